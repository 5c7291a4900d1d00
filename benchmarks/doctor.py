r"""How early the doctor warns of over-optimisation, and how often falsely, in the miniature.

    python -m instructgpt pipeline --output runs/doctor/base \
        --only world,pretrain,sft,sample,sample_validation,label,reward,reward_fold_0
    python benchmarks/doctor.py --base runs/doctor/base --seeds 0 1 2

The results here are of a smaller base (world: 18,000 documents, 1,200 demonstrations, 1,800 ranked
prompts, 10,240 prompts to learn from), one seed of it. Six of the nine runs are of an earlier state
of the code; two of its runs that were made again came out the same to the last bit.

PPO is run healthily (the recipe's KL coefficient) and so that it over-optimises (none, and a higher
rate). The second judge is a reward model that other labelers ranked for; the truth, which neither
the run nor the doctor sees, is the world's utility of the same answers. The rule for judges is also
asked what it would have said had the truth been the judge. Limits are replayed on what was logged,
so that finished runs, which are kept, answer for limits of today.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from instructgpt.callbacks.limits import LimitWatch, Opinions
from instructgpt.cli import main as fit
from instructgpt.evaluation.statistics import clustered
from instructgpt.functional.intervals import Interval
from instructgpt.miniature.world.grader import grade, utility

HERE = Path(__file__).parent
ROOT = HERE.parent
KINDS: dict[str, list[str]] = {
    "healthy": [],
    "no_kl": ["--model.kl.kl_coef=0"],
    "no_kl_fast": [
        "--model.kl.kl_coef=0",
        "--model.optimizer.lr=3e-3",
        "--model.schedule=Constant",
    ],
}
PHASES, EVERY, HELD_OUT = 40, 5, 150


def run(kind: str, seed: int, base: Path, folder: Path) -> None:
    """Train one policy, judged by a second reward model on the way."""
    held = folder.parent / "validation.jsonl"
    rows = (base / "world/prompts_validation.jsonl").read_text().splitlines(keepends=True)
    held.parent.mkdir(parents=True, exist_ok=True)
    held.write_text("".join(rows[:HELD_OUT]))
    judge = {
        "class_path": "LearnedReward",
        "init_args": {"init_from": f"{base}/reward_fold_0/export"},
    }
    fit(
        [
            *("fit", "--config", str(ROOT / "configs/miniature/ppo.yaml")),
            *("--output", str(folder), f"--seed_everything={seed}", "--bands=null"),
            *(f"--model.init_from={base}/sft/export", f"--model.judge={json.dumps(judge)}"),
            f"--model.reward.init_from={base}/reward/export",
            *("--model.batches.rollout_batch_size=128", f"--trainer.max_epochs={PHASES}"),
            *(f"--data.train={base}/world/prompts_rl.jsonl", f"--data.validation={held}"),
            *(f"--trainer.check_val_every_n_epoch={EVERY}", "--trainer.enable_progress_bar=false"),
            *KINDS[kind],
        ]
    )


def truth(base: Path, folder: Path) -> list[dict[str, Any]]:
    """The utility of the sampled answers of each validation, with its interval."""
    lines = (base / "world/prompts_validation.jsonl").read_text().splitlines()
    meta = {row["prompt"].strip(): row["meta"] for row in map(json.loads, lines)}
    found: dict[int, list[float]] = {}
    for row in map(json.loads, (folder / "samples.jsonl").read_text().splitlines()):
        if row["kind"] == "sampled":
            attributes, _ = grade(meta[row["prompt"].strip()], row["response"], row["finished"])
            found.setdefault(row["step"], []).append(utility(attributes))
    prompts = [str(i) for i in range(HELD_OUT)]
    return [  # where a run was killed after a validation, its answers are there again
        {"step": step, **clustered(values[-HELD_OUT:], prompts, 0)._asdict()}
        for step, values in found.items()
    ]


def phases(folder: Path) -> list[dict[str, float]]:
    """What was logged of each phase."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    names = [name for name in events.Tags()["scalars"] if name.startswith(("ppo/", "loss/"))]
    found: dict[int, dict[str, float]] = {}
    for name in names:
        for one in events.Scalars(name):
            found.setdefault(one.step, {})[name] = one.value
    return [{"step": step, **found[step]} for step in sorted(found)]


def warnings(folder: Path) -> list[dict[str, Any]]:
    """Limits that the doctor finds exceeded, with the optimizer step and phase."""
    watch, seen = LimitWatch(), phases(folder)
    return [
        {"name": one.name, "phase": number, "of": len(seen), "what": one.what}
        for number, metrics in enumerate(seen, 1)
        for one in watch.see(metrics)
    ]


def disagreement(validations: list[dict[str, Any]], judge: str) -> int | None:
    """The first phase after which a judge's fall would be said."""
    opinions = Opinions()
    for row in validations:
        low, high = row[judge]["low"], row[judge]["high"]
        interval = Interval(low, high, HELD_OUT)
        if opinions.see(row["score"], row[judge]["value"], interval) is not None:
            return int(row["phase"])
    return None


def measured(base: Path, folder: Path) -> dict[str, Any]:
    """What happened in a run, and what was said of it when."""
    known = {row["step"]: row for row in truth(base, folder)}
    rows = []
    for number, one in enumerate(json.loads((folder / "metrics.json").read_text())["validations"]):
        low, high, _ = one["intervals"]["val/judge"]
        true = known[one["step"]]
        rows.append(
            {
                "phase": (number + 1) * EVERY,
                "score": one["val/score"],
                "kl": one["val/kl"],
                "judge": {"value": one["val/judge"], "low": low, "high": high},
                "truth": {name: true[name] for name in ("value", "low", "high")},
            }
        )
    best = max(rows, key=lambda row: row["truth"]["value"])
    return {
        "validations": rows,
        "best_truth_at": best["phase"],
        "truth_fell": best["truth"]["value"] - rows[-1]["truth"]["value"],
        "limits": warnings(folder),
        "judge_said_at": disagreement(rows, "judge"),
        "truth_would_have_said_at": disagreement(rows, "truth"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--base", type=Path, default=ROOT / "runs/doctor/base")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs/doctor")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--results", type=Path, default=HERE / "results/doctor.json")
    options = parser.parse_args()
    found = {}
    for seed in options.seeds:
        for kind in KINDS:
            folder = options.runs / f"{kind}_{seed}"
            if not (folder / "metrics.json").is_file():
                run(kind, seed, options.base, folder)
            found[folder.name] = measured(options.base, folder)
            about = {"phases": PHASES, "every": EVERY, "held_out": HELD_OUT}
            result = {**about, "kinds": KINDS, "runs": found}
            options.results.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
