"""The plan of `fit` beside the memory that was used: all loops, LoRA, checkpointing, quantised.

    python benchmarks/memory.py                    # all shapes, a process each; minutes of one core
    python benchmarks/memory.py sft ppo-lora       # some of them; the others' results stay
    python benchmarks/memory.py --device cuda

On a CPU what is compared is the resident memory of the process at its peak, from the first step on,
without what it held before beside the networks: Python, libraries and rows. glibc is told to give
back each tensor of more than 256 KiB when it is freed; a second run without that shows what its
heap keeps (``resident``), which no account can know. On CUDA it is what torch had allocated at
most. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "memory.json"
BOUND = 0.15
STEP = 2  # optimizer steps of a run, or of a phase of PPO
BARE: dict[str, Any] = {
    **{"logger": False, "enable_checkpointing": False, "enable_progress_bar": False},
    **{"enable_model_summary": False, "use_distributed_sampler": False},
}
"""Options of a Trainer that does nothing but train."""
GIVES_BACK = {"MALLOC_MMAP_THRESHOLD_": f"{2**18}"}


@dataclass(frozen=True)
class Shape:
    """One run.

    Args:
        about: for the table.
        stage: sft, reward, dpo or ppo.
        model: name of a shape of benchmarks/speed_data.py.
        prompts: rows of an optimizer step.
        responses: to a prompt.
        lora: whether adapters are trained.
        network: options of it.
    """

    about: str
    stage: str
    model: str
    prompts: int
    responses: int = 1
    lora: bool = False
    network: tuple[tuple[str, Any], ...] = ()


SHAPES = {
    "sft": Shape("SFT, GPT-2-like, 49k ids", "sft", "gpt2-49k", 16),
    "sft-checkpointing": Shape(
        "SFT with gradient checkpointing, Llama-like",
        *("sft", "llama", 16),
        network=(("gradient_checkpointing", True),),
    ),
    "reward": Shape("reward model, K = 4, GPT-2-like", "reward", "gpt2", 8, 4),
    "dpo": Shape("DPO, pairs, Llama-like", "dpo", "llama", 8, 2),
    "ppo": Shape("PPO with a critic, GPT-2-like", "ppo", "gpt2", 16),
    "ppo-lora": Shape("PPO with LoRA, Llama-like", "ppo", "llama", 16, lora=True),
}


def make(folder: Path, shape: Shape) -> None:
    """Random weights, whose responses seldom end before their limit, and random rows."""
    import torch
    from speed_data import SHAPES as MODELS
    from speed_data import Lengths, Rows, make_tokenizer, write_rows
    from transformers import (
        AutoConfig,
        AutoModelForCausalLM,
        AutoModelForSequenceClassification,
    )

    about = dict(MODELS[shape.model])
    config = AutoConfig.for_model(about.pop("model_type"), num_labels=1, **about)
    torch.manual_seed(0)
    for name, kind in (
        ("policy", AutoModelForCausalLM),
        ("reward", AutoModelForSequenceClassification),
    ):
        kind.from_config(config).save_pretrained(folder / name)
        make_tokenizer(folder / name, config.vocab_size)
    responses = 0 if shape.stage == "ppo" else shape.responses
    count = STEP * shape.prompts
    rows = Rows(count, responses, Lengths(80, 0.5, 200), Lengths(60, 0.5, 128), 0)
    write_rows(folder, rows, config.vocab_size)


def stage(folder: Path, shape: Shape) -> tuple[Any, Any]:
    """The module and its data."""
    import instructgpt as ig

    policy, reward = str(folder / "policy"), str(folder / "reward")
    network = ig.Network(**dict(shape.network))
    common: dict[str, Any] = {"network": network, "trained": ig.LoRA() if shape.lora else None}
    common |= {"optimizer": partial(ig.PaperAdam, lr=1e-6), "schedule": ig.Constant()}
    rows: dict[str, Any] = {"train": str(folder / "rows.jsonl"), "validation": None, "num_proc": 1}
    rows |= {"tokenizer": policy, "template": "plain", "cache": str(folder / "cache")}
    rows |= {"max_prompt_tokens": 200, "max_response_tokens": 128}
    if shape.stage == "ppo":
        module: Any = ig.PPOModule(
            init_from=policy,
            reward=ig.LearnedReward(reward),
            batches=ig.Batches(STEP * shape.prompts, shape.prompts),
            value=ig.Value(init_from=reward, lr=1e-6),
            **common,
        )
        return module, ig.PromptDataModule(**rows)
    rows["batch_size"] = shape.prompts
    if shape.stage == "sft":
        module = ig.SFTModule(init_from=policy, dropout=0.0, validation_prompts=0, **common)
        return module, ig.DemonstrationDataModule(**rows)
    if shape.stage == "reward":
        module = ig.RewardModule(init_from=reward, **common)
    else:
        module = ig.PreferenceModule(init_from=policy, validation_prompts=0, **common)
    return module, ig.ComparisonDataModule(**rows)


def measure(name: str, device: str) -> None:
    """Train, and print what was planned and what was used."""
    import torch
    from lightning.pytorch import Trainer

    from instructgpt.callbacks.plan import PlanPrinter

    class FromHereOn(PlanPrinter):
        """Forgets the peak of loading, which can be higher."""

        def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
            if device == "cpu":
                Path("/proc/self/clear_refs").write_text("5")
            super().on_train_start(trainer, pl_module)

    torch.set_num_threads(1)
    plan = FromHereOn()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        subprocess.run([sys.executable, __file__, "--make", str(folder), name], check=True)
        module, data = stage(folder, SHAPES[name])
        trainer = Trainer(
            accelerator="cpu" if device == "cpu" else "gpu",
            devices=1,
            max_epochs=1,
            callbacks=[plan],
            num_sanity_val_steps=0,
            gradient_clip_val=1.0,
            default_root_dir=folder,
            **BARE,
        )
        trainer.fit(module, data)
    assert plan.memory is not None
    print(json.dumps({"planned": plan.memory.bytes, "used": plan.used - plan.memory.beside}))


def once(name: str, device: str, settings: dict[str, str]) -> dict[str, int]:
    """A shape in a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **settings}
    command = [sys.executable, __file__, "--measure", name, "--device", device]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name} ended: {(done.stderr.strip() or '?').splitlines()[-1]}")
    found: dict[str, int] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def run(name: str, device: str) -> dict[str, Any]:
    """What was planned and used by a shape."""
    found = once(name, device, GIVES_BACK)
    ratio = found["planned"] / found["used"]
    if device == "cpu":
        found["resident"] = once(name, device, {})["used"]
    result = {"about": SHAPES[name].about, "device": device}
    result |= {part: round(size / 2**20, 1) for part, size in found.items()}
    return result | {"ratio": round(ratio, 3), "holds": abs(ratio - 1) <= BOUND}


def write(known: dict[str, Any]) -> None:
    """Write the results down, after each shape: the next ones can take a while."""
    versions = {"python": platform.python_version(), "machine": platform.machine()}
    text = json.dumps({"bound": BOUND, **versions, "shapes": known}, indent=1)
    RESULTS.write_text(text + "\n")


def main() -> None:
    """Measure the shapes that were asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("shapes", nargs="*", metavar="SHAPE", help=", ".join(SHAPES))
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--make", help=argparse.SUPPRESS)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.make:
        make(Path(options.make), SHAPES[options.shapes[0]])
    elif options.measure:
        measure(options.measure, options.device)
    else:
        known = json.loads(RESULTS.read_text())["shapes"] if RESULTS.is_file() else {}
        for name in options.shapes or SHAPES:
            known[name] = run(name, options.device)
            one = known[name]
            print(f"{name:18} {one['planned']:8} MiB planned {one['used']:8} used {one['ratio']}")
            write(known)


if __name__ == "__main__":
    main()
