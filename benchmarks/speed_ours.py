"""What benchmarks/speed.py times on our side: stages trained by Lightning's Trainer, in turns.

    python speed_ours.py WORK

WORK is JSON (``Row.work`` in speed_rows.py). Only public names are used, with their defaults but
for what a fair comparison needs: no average of weights, no logger and no checkpoint, and PPO takes
log-probabilities from sampling, as TRL does.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from speed_data import EOS, PAD
from speed_turns import Turns, watch

import instructgpt as ig

RATE = 1e-9  # so that the weights, and with them the lengths, stay what they are
EPOCHS = 1000


class Border(Callback):
    """An epoch is a unit; of PPO it is a phase.

    Args:
        turns: to tell.
        work: what is done.
    """

    def __init__(self, turns: Turns, work: dict[str, Any]) -> None:
        self.turns, self.work = turns, work

    def on_fit_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Count on the network that is trained."""
        model = pl_module.model.trunk if self.work["kind"] == "reward" else pl_module.policy
        watch(self.turns, model, PAD)
        self.dtype = str(next(model.parameters()).dtype).removeprefix("torch.")

    def on_train_epoch_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Wait for the turn."""
        self.turns.begin()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count what is learned from."""
        kind = self.work["kind"]
        if kind == "sft":
            self.turns.count(targets=batch.targets.sum())
        elif kind != "ppo":
            sizes = (batch.ranking > 0).sum(1)
            self.turns.count(comparisons=(sizes * (sizes - 1) // 2).sum())

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Say what it took; of a phase, what it says of itself."""
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        if self.work["kind"] == "ppo":
            episodes = self.work["step"] * self.work["steps"]
            self.turns.count(
                sampled=round(metrics["ppo/response_length"] * episodes),
                finished=round(metrics["ppo/eos_rate"] * episodes),
            )
            names = [name for name in metrics if name.startswith("time/")]
            self.turns.parts |= {name.removeprefix("time/"): metrics[name] for name in names}
        reuses = {"reuses": pl_module.reuse_logprobs} if self.work["kind"] == "ppo" else {}
        self.turns.end(dtype=self.dtype, **reuses)


def _data(work: dict[str, Any], kind: Any, **options: Any) -> Any:
    rows, prompt = Path(work["folder"]) / "rows.jsonl", work["rows"]["prompt"]["most"]
    common = {"train": str(rows), "validation": None, "template": "plain", "num_proc": 1}
    limits = {"max_prompt_tokens": prompt, "max_response_tokens": work["rows"]["response"]["most"]}
    tokenizer = str(Path(work["folder"]) / "policy")
    cache = str(Path(work["folder"]) / "cache")
    return kind(tokenizer=tokenizer, cache=cache, **common, **limits, **options)


def _network(work: dict[str, Any]) -> Any:
    """On a GPU with as many tokens a forward pass as configs/overlays/gpu.yaml has."""
    more = {} if work["device"] == "cpu" else {"max_tokens": 8192}
    return ig.Network(dtype=work["dtype"], **more)


def _stage(work: dict[str, Any]) -> tuple[Any, Any]:
    """The module and its data."""
    folder, kind = Path(work["folder"]), work["kind"]
    network = _network(work)
    adapter = ig.LoRA(rank=8) if work.get("lora") else None
    common: dict[str, Any] = {"network": network, "trained": adapter}
    common |= {"optimizer": partial(ig.PaperAdam, lr=RATE), "schedule": ig.Constant()}
    policy, reward, step = str(folder / "policy"), str(folder / "reward"), work["step"]
    if kind == "ppo":
        module: Any = ig.PPOModule(
            init_from=policy,
            reward=ig.LearnedReward(reward, network=network),
            batches=ig.Batches(step * work["steps"], step),
            value=ig.Value(init_from=reward, lr=RATE),
            reuse_logprobs=True,  # TRL does not ask its policy a second time either
            ema_decay=None,
            **common,
        )
        return module, _data(work, ig.PromptDataModule)
    if kind == "sft":
        module = ig.SFTModule(init_from=policy, dropout=0.0, validation_prompts=0, **common)
        return module, _data(work, ig.DemonstrationDataModule, batch_size=step)
    if kind == "reward":
        module = ig.RewardModule(init_from=reward, **common)
    else:
        module = ig.PreferenceModule(init_from=policy, validation_prompts=0, **common)
    return module, _data(work, ig.ComparisonDataModule, batch_size=step)


def train(work: dict[str, Any], turns: Turns) -> None:
    """Train until the driver has seen enough."""
    module, data = _stage(work)
    devices = work.get("devices", 1)
    trainer = Trainer(
        accelerator=work["device"] if work["device"] == "cpu" else "gpu",
        devices=devices,
        strategy="ddp" if devices > 1 else "auto",
        max_epochs=EPOCHS,
        callbacks=[Border(turns, work)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        gradient_clip_val=1.0,
        default_root_dir=tempfile.gettempdir(),
    )
    trainer.fit(module, data)


def rollout(work: dict[str, Any], turns: Turns) -> None:
    """Answer prompts."""
    from instructgpt.models.load import load_policy
    from instructgpt.rollout.sampler import sample

    data = _data(work, ig.PromptDataModule)
    data.setup("fit")
    network = _network(work)
    policy = load_policy(str(Path(work["folder"]) / "policy"), None, network, data.tokenizer)
    policy.to(work["device"]).eval()
    batch = data.rollout_prompts(0, work["rows"]["prompts"], 0, 1)
    batch = data.transfer_batch_to_device(batch, torch.device(work["device"]), 0)
    for phase in range(EPOCHS):
        turns.begin()
        found = sample(policy, batch, data.max_response_tokens, [EOS], ig.Sampling(), 0, phase)
        turns.count(sampled=found.response_mask.sum(), finished=found.finished.sum())
        turns.end(dtype=work["dtype"])


def main() -> None:
    """Do what the driver asks for."""
    work = json.loads(sys.argv[1])
    torch.set_num_threads(work.get("threads", 1))
    if work["device"] == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    if not work.get("graphs", True):
        from instructgpt.rollout.decoding import PACES

        PACES["cuda"] = PACES["cuda"]._replace(graphs=False)
    if not work.get("ragged", True):
        from instructgpt.rollout.engine import SEGMENTS

        SEGMENTS.clear()
    turns = Turns(work["device"])
    (rollout if work["kind"] == "rollout" else train)(work, turns)


if __name__ == "__main__":
    main()
