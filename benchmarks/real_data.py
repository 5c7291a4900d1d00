"""All four stages on real data with a small GPT-2 on a CPU: does every part learn, and how fast.

    OMP_NUM_THREADS=1 python benchmarks/real_data.py --data ../shared/data/dev

The data is no part of the project; any folder with text/, demonstrations/, comparisons/ and
prompts/ in the formats of the README will do. Finished stages are kept; the numbers go into
results/real_data.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from instructgpt.functional.intervals import share_interval

HERE = Path(__file__).parent
MODEL = "{model_type: gpt2, n_layer: 5, n_embd: 256, n_head: 4, n_positions: 512}"
ROWS = {"max_prompt_tokens": 128, "max_response_tokens": 96, "on_error": "skip", "batch_size": 16}
PHASES = 24


def stages(data: Path, runs: Path) -> dict[str, list[str]]:
    """The command line of each stage, with what differs from the shipped configuration."""

    def options(**given: Any) -> list[str]:
        return [f"--{name.replace('__', '.')}={value}" for name, value in given.items()]

    rows = options(**{f"data__{name}": value for name, value in ROWS.items()})
    short = {k: v for k, v in ROWS.items() if k not in ("batch_size", "max_response_tokens")}
    once = {"trainer__max_epochs": 1, "trainer__check_val_every_n_epoch": 1}
    sft, reward = runs / "sft/export", runs / "reward/export"
    return {
        "pretrain": options(
            **once,
            data__train=data / "text",
            data__validation=0.05,
            data__bpe__vocab_size=4096,
            data__block_size=256,
            data__batch_size=16,
            data__template="hh",
            model__architecture=MODEL,
            model__optimizer__lr=1e-3,
        ),
        "sft": options(
            **once,
            model__init_from=runs / "pretrain/export",
            data__train=data / "demonstrations",
            data__validation=0.05,
            model__optimizer__lr=5e-4,
        )
        + rows,
        "reward": options(
            **once,
            model__init_from=sft,
            data__train=data / "comparisons",
            data__demonstrations=data / "demonstrations",
            data__validation=0.15,
            model__optimizer__lr=2e-4,
        )
        + rows,
        "ppo_ptx": options(
            trainer__max_epochs=PHASES,
            trainer__check_val_every_n_epoch=8,
            model__init_from=sft,
            model__reward__init_from=reward,
            model__batches__rollout_batch_size=64,
            model__batches__minibatch_size=16,
            model__batches__microbatch_size=16,
            model__kl__kl_coef=0.02,
            model__optimizer__lr=1e-4,
            model__value__lr=2e-4,
            model__pretraining__ptx_coef=1.0,
            data__train=data / "prompts",
            data__validation=0.1,
            data__pretraining=data / "text",
            data__pretraining_block_size=128,
            data__max_response_tokens=48,
            **{f"data__{name}": value for name, value in short.items()},
        ),
    }


def run(stage: str, options: list[str], runs: Path) -> float:
    """Run one stage unless it is there, and return its wall time in seconds."""
    folder = runs / stage
    took = folder / "seconds"
    if not took.exists():
        command = [sys.executable, "-m", "instructgpt", "fit", f"--config=configs/{stage}.yaml"]
        start = time.perf_counter()
        subprocess.run([*command, f"--output={folder}", *options], check=True, cwd=HERE.parent)
        took.write_text(str(time.perf_counter() - start))
    return float(took.read_text())


def answers(model: Path, prompts: list[str], runs: Path) -> list[str]:
    """One answer to each prompt, greedy."""
    source, target = runs / "shown.jsonl", runs / "answers.jsonl"
    source.write_text("".join(json.dumps({"prompt": p}) + "\n" for p in prompts))
    command = [sys.executable, "-m", "instructgpt", "generate", f"--model={model}", "--greedy=true"]
    command += [f"--prompts={source}", f"--output={target}", "--max_response_tokens=48"]
    subprocess.run(command, check=True, cwd=HERE.parent)
    return [json.loads(line)["responses"][0] for line in target.read_text().splitlines()]


def curve(folder: Path, name: str) -> list[list[float]]:
    """The (step, value) points of a TensorBoard scalar."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    return [[e.step, round(e.value, 4)] for e in events.Scalars(name)]


def interval(share: float, count: float) -> list[float]:
    """A 95 % interval, rounded."""
    return [round(bound, 4) for bound in share_interval(share, count)]


def by_source(metrics: dict[str, float]) -> dict[str, dict[str, Any]]:
    """Accuracy of the reward model on each validation set beside "longer wins" and chance."""
    table = {}
    for name in sorted(metrics):
        if name.startswith("val/accuracy_by_source/"):
            source = name.removeprefix("val/accuracy_by_source/")
            pairs = metrics[f"val/pairs_by_source/{source}"]
            table[source] = {
                "pairs": int(pairs),
                "accuracy": round(metrics[name], 4),
                "interval_95": interval(metrics[name], pairs),
                "longer_wins": round(metrics[f"val/longer_wins_by_source/{source}"], 4),
                "chance": 0.5,
            }
    return table


def main() -> None:
    """Run what is missing, then write the results file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=HERE.parents[1] / "shared/data/dev")
    parser.add_argument("--runs", type=Path, default=HERE.parent / "runs/real_data")
    arguments = parser.parse_args()
    data, runs = arguments.data.resolve(), arguments.runs.resolve()
    runs.mkdir(parents=True, exist_ok=True)
    seconds = {stage: run(stage, options, runs) for stage, options in stages(data, runs).items()}
    metrics = {s: json.loads((runs / s / "metrics.json").read_text())["exported"] for s in seconds}
    samples = [json.loads(line) for line in (runs / "ppo_ptx/samples.jsonl").open()]
    shown = dict.fromkeys(row["prompt"] for row in samples if len(row["prompt"]) < 500)
    prompts = list(shown)[:6]
    before = answers(runs / "sft/export", prompts, runs)
    after = answers(runs / "ppo_ptx/export", prompts, runs)
    ppo = ("ppo/score", "ppo/kl", "ppo/eos_rate", "ppo/response_length", "loss/ptx")
    results = {
        "what": "GPT-2-like model, 5.1 M parameters, float32 on a CPU, one seed",
        "machine": f"{platform.machine()}, {os.environ.get('OMP_NUM_THREADS', 'all')} thread(s)",
        "seconds": {stage: round(value, 1) for stage, value in seconds.items()},
        "loss": {
            "pretrain_validation_nats_per_token": metrics["pretrain"]["val/loss"],
            "sft_validation_nats_per_token": metrics["sft"]["val/loss"],
            "sft_token_accuracy": metrics["sft"]["val/accuracy"],
            "reward_validation_nats_per_pair": metrics["reward"]["val/loss_per_pair"],
        },
        "reward_model": {
            "accuracy": metrics["reward"]["val/accuracy"],
            "pairs": int(metrics["reward"]["val/pairs"]),
            "interval_95": interval(
                metrics["reward"]["val/accuracy"], metrics["reward"]["val/pairs"]
            ),
            "longer_wins": metrics["reward"]["val/accuracy_longer_wins"],
            "calibration_error": metrics["reward"]["val/calibration_error"],
            "by_set": by_source(metrics["reward"]),
        },
        "ppo_ptx": {name: curve(runs / "ppo_ptx", name) for name in ppo},
        "samples": [
            {"prompt": p, "sft": b, "ppo_ptx": a}
            for p, b, a in zip(prompts, before, after, strict=True)
        ],
    }
    target = HERE / "results" / "real_data.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    print(f"wrote {target}")


if __name__ == "__main__":
    main()
