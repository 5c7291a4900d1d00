"""What benchmarks/speed.py times on the other side: TRL's trainers, and ``generate``, in turns.

    python speed_peers.py WORK

WORK is JSON (``Row.work`` in speed_rows.py). TRL is spared its calls of ``gc.collect`` and has no
logger, checkpoint, gradient checkpointing or sample generations; its micro-batch is searched by
the driver. PPO is of TRL 1.12.0, the last release that has it.
"""

from __future__ import annotations

import json
import sys
import tempfile
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, disable_progress_bars
from speed_data import EOS, PAD, words
from speed_turns import Turns, watch, without_collector
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    TrainerCallback,
)

EPOCHS = 1000


class Border(TrainerCallback):
    """An epoch is a unit.

    Args:
        turns: to tell.
        dtype: of the weights.
    """

    def __init__(self, turns: Turns, dtype: str) -> None:
        self.turns, self.dtype = turns, dtype

    def on_epoch_begin(self, *_: Any, **__: Any) -> None:
        """Wait for the turn."""
        self.turns.begin()

    def on_epoch_end(self, *_: Any, **__: Any) -> None:
        """Say what it took."""
        self.turns.end(dtype=self.dtype)


class PhaseBorder(Border):
    """A phase of PPO is a unit."""

    on_epoch_begin = on_epoch_end = lambda *_, **__: None

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Wait for the first turn."""
        self.turns.begin()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Say what the phase took, and wait for the next turn."""
        self.turns.end(dtype=self.dtype)
        self.turns.begin()


def _load(work: dict[str, Any], name: str) -> Any:
    kind = AutoModelForCausalLM if name == "policy" else AutoModelForSequenceClassification
    return kind.from_pretrained(Path(work["folder"]) / name, dtype=getattr(torch, work["dtype"]))


def _common(work: dict[str, Any], micro: int, accumulate: int) -> dict[str, Any]:
    """Arguments of all trainers."""
    return {
        "output_dir": tempfile.mkdtemp(),
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": accumulate,
        "learning_rate": 1e-9,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 1.0,
        "optim": "adamw_torch_fused",
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": work["device"] == "cpu",
        "bf16": False,
        "gradient_checkpointing": False,
        "logging_steps": 10**9,
        "dataloader_pin_memory": False,
        "seed": 0,
    }


def _counted(trainer: Any, turns: Turns, **names: Any) -> None:
    """Count what the batches of a trainer hold.

    Args:
        trainer: whose batches.
        turns: to tell.
        **names: of what is counted, and how it is found in a batch.
    """
    collate = trainer.data_collator

    def counting(examples: Any) -> Any:
        batch = collate(examples)
        turns.count(**{name: find(batch) for name, find in names.items()})
        return batch

    trainer.data_collator = counting


def _pairs(rows: list[dict[str, Any]]) -> list[tuple[list[int], list[int], list[int]]]:
    """Prompt, better and worse response of all pairs; responses are ranked in their order."""
    return [
        (row["prompt"], better, worse)
        for row in rows
        for better, worse in combinations(row["responses"], 2)
    ]


def reward(work: dict[str, Any], rows: list[dict[str, Any]], turns: Turns) -> Any:
    """RewardTrainer on all pairs."""
    from trl import RewardConfig, RewardTrainer

    pairs = _pairs(rows)
    micro, steps = work["settings"]["micro"], work["steps"]
    arguments = RewardConfig(
        **_common(work, micro, len(pairs) // (steps * micro)),
        num_train_epochs=EPOCHS,
        max_length=None,
    )
    data = {
        "chosen_ids": [p + a for p, a, _ in pairs],
        "rejected_ids": [p + b for p, _, b in pairs],
    }
    model, tokenizer = (
        _load(work, "reward"),
        AutoTokenizer.from_pretrained(Path(work["folder"]) / "policy"),
    )
    callbacks = [Border(turns, work["dtype"])]
    trainer = RewardTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_dict(data),
        processing_class=tokenizer,
        callbacks=callbacks,
    )
    _counted(trainer, turns, comparisons=lambda batch: len(batch["input_ids"]) // 2)
    watch(turns, model, PAD)
    return trainer


def dpo(work: dict[str, Any], rows: list[dict[str, Any]], turns: Turns) -> Any:
    """DPOTrainer, its fused head on, as it is by default."""
    from trl import DPOConfig, DPOTrainer

    pairs = _pairs(rows)
    micro = work["settings"]["micro"]
    arguments = DPOConfig(
        **_common(work, micro, len(pairs) // (work["steps"] * micro)),
        num_train_epochs=EPOCHS,
        max_length=None,
    )
    names = ("prompt", "chosen", "rejected")  # texts: it takes no ids
    texts = [[words(ids) for ids in pair] for pair in pairs]
    data = dict(zip(names, map(list, zip(*texts, strict=True)), strict=True))
    model = _load(work, "policy")
    trainer = DPOTrainer(
        model=model,
        ref_model=_load(work, "policy"),
        args=arguments,
        train_dataset=Dataset.from_dict(data),
        processing_class=AutoTokenizer.from_pretrained(Path(work["folder"]) / "policy"),
        callbacks=[Border(turns, work["dtype"])],
    )
    _counted(trainer, turns, comparisons=lambda batch: len(batch["input_ids"]) // 2)
    watch(turns, model, PAD)
    return trainer


def sft(work: dict[str, Any], rows: list[dict[str, Any]], turns: Turns) -> Any:
    """SFTTrainer with or without packing, loss on completions only."""
    from trl import SFTConfig, SFTTrainer

    micro, packing = work["settings"]["micro"], work["settings"]["packing"]
    longest = work["rows"]["prompt"]["most"] + work["rows"]["response"]["most"]
    # One step sees all rows, however many of them packing makes.
    parts = len(rows) if packing else len(rows) // (work["steps"] * micro)
    arguments = SFTConfig(
        **_common(work, micro, parts),
        num_train_epochs=EPOCHS,
        max_length=longest,
        packing=packing,
        completion_only_loss=True,
        loss_type="nll",
    )
    data = {
        "input_ids": [row["prompt"] + row["responses"][0] for row in rows],
        "completion_mask": [
            [0] * len(row["prompt"]) + [1] * len(row["responses"][0]) for row in rows
        ],
    }
    model = _load(work, "policy")
    trainer = SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_dict(data),
        processing_class=AutoTokenizer.from_pretrained(Path(work["folder"]) / "policy"),
        callbacks=[Border(turns, work["dtype"])],
    )
    _counted(trainer, turns, targets=lambda batch: (batch["labels"] != -100).sum())
    watch(turns, model, PAD)
    return trainer


def ppo(work: dict[str, Any], rows: list[dict[str, Any]], turns: Turns) -> Any:
    """PPOTrainer with a separate critic; all prompts are one phase."""
    import trl.experimental.ppo.ppo_trainer as module
    from peft import LoraConfig, get_peft_model
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    micro, steps = work["step"], work["steps"]
    # All prompts are one pass of its loader, at whose end accelerate steps on every micro-batch:
    # so there are as many optimizer steps as micro-batches, whatever num_mini_batches says.
    arguments = PPOConfig(
        **_common(work, micro, steps),
        total_episodes=EPOCHS * len(rows),
        num_ppo_epochs=1,
        num_mini_batches=1,
        local_rollout_forward_batch_size=min(work["settings"]["forward"], len(rows)),
        response_length=work["rows"]["response"]["most"],
        stop_token="eos",
        temperature=1.0,
        num_sample_generations=0,
    )
    policy, value = _load(work, "policy"), _load(work, "reward")
    reference = _load(work, "policy")
    if work.get("lora"):
        adapter = {"r": 8, "lora_alpha": 16, "target_modules": "all-linear"}
        adapter["fan_in_fan_out"] = "gpt2" in policy.config.model_type
        value = get_peft_model(value, LoraConfig(task_type="SEQ_CLS", **adapter))
        # Its trainer reads the value's trunk and score by name, which peft passes on.
        adapter = {"peft_config": LoraConfig(task_type="CAUSAL_LM", **adapter)}
        reference = None
    else:
        adapter = {}
    data = Dataset.from_dict({"input_ids": [row["prompt"] for row in rows]})
    tokenizer = AutoTokenizer.from_pretrained(Path(work["folder"]) / "policy")
    tokenizer.padding_side = "left"
    trainer = PPOTrainer(
        args=arguments,
        processing_class=tokenizer,
        model=policy,
        ref_model=reference,
        reward_model=_load(work, "reward"),
        value_model=value,
        train_dataset=data,
        eval_dataset=data,
        callbacks=[PhaseBorder(turns, work["dtype"])],
        **adapter,
    )
    truncate = module.truncate_response

    def counted(stop: int, pad: int, responses: Any) -> Any:
        kept = truncate(stop, pad, responses)
        turns.count(sampled=(kept != pad).sum(), finished=(kept == EOS).any(1).sum())
        return kept

    module.truncate_response = counted
    watch(turns, policy, PAD)
    return trainer


def generate(work: dict[str, Any], rows: list[dict[str, Any]], turns: Turns) -> None:
    """``generate`` of transformers, left-padded batches of a size."""
    model = _load(work, "policy").to(work["device"]).eval()
    size, most = work["settings"]["micro"], work["rows"]["response"]["most"]
    tokenizer = AutoTokenizer.from_pretrained(Path(work["folder"]) / "policy")
    tokenizer.padding_side = "left"
    prompts = [row["prompt"] for row in rows]
    while True:
        turns.begin()
        for start in range(0, len(prompts), size):
            asked = {"input_ids": prompts[start : start + size]}
            batch = tokenizer.pad(asked, return_tensors="pt").to(work["device"])
            how = {"do_sample": True, "top_k": 0, "max_new_tokens": most, "pad_token_id": PAD}
            with torch.no_grad():
                found = model.generate(**batch, **how)[:, batch["input_ids"].shape[1] :]
            turns.count(sampled=(found != PAD).sum(), finished=(found == EOS).any(1).sum())
        turns.end(dtype=work["dtype"])


def run(work: dict[str, Any], rows: list[dict[str, Any]], turns: Turns) -> None:
    """Work until the driver has seen enough.

    Args:
        work: what is done.
        rows: prompts and responses, as ids.
        turns: to take.
    """
    if work["kind"] == "rollout":
        generate(work, rows, turns)
    else:
        makers = {"ppo": ppo, "sft": sft, "reward": reward, "dpo": dpo}
        makers[work["kind"]](work, rows, turns).train()


def main() -> None:
    """Do what the driver asks for."""
    work = json.loads(sys.argv[1])
    torch.set_num_threads(work.get("threads", 1))
    turns = Turns(work["device"])
    rows = json.loads((Path(work["folder"]) / "ids.json").read_text())
    disable_progress_bars()
    without_collector()
    run(work, rows, turns)


if __name__ == "__main__":
    main()
