"""Figures 33 and 34 of the paper in miniature: the coefficients of pretraining loss and KL penalty.

    python benchmarks/miniature_ablations.py --seed 1

Adds one PPO run for each value to a pipeline (about two minutes each, two at a time), with all else
as in configs/miniature.yaml, and reads off the accuracy on public NLP tasks, the true utility and
the KL. Earlier stages of the same folder are kept. Writes miniature_ablations.json and .png to
results/.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from matplotlib.figure import Figure

from instructgpt.evaluation.records import to_json
from instructgpt.evaluation.results import Results, read_results

HERE = Path(__file__).parent
ROOT = HERE.parent
PTX_COEFS = (0.0, 0.03, 0.1, 0.3, 1.0)
KL_COEFS = (0.0, 0.05, 0.2, 0.5)
USUAL = {"ptx": 0.0, "kl": 0.2}  # what the stage `ppo` has


def pipeline() -> dict[str, Any]:
    """A run of PPO for each value, its answers, and one evaluation of them all."""
    base = ROOT / "configs" / "miniature.yaml"
    mix = yaml.safe_load(base.read_text())["matrix"]["algorithm"]["ppo_ptx"]["options"]
    variants = {
        f"ptx_{i}": mix | {"model.pretraining.ptx_coef": v}
        for i, v in enumerate(PTX_COEFS)
        if v != USUAL["ptx"]
    } | {f"kl_{i}": {"model.kl.kl_coef": v} for i, v in enumerate(KL_COEFS) if v != USUAL["kl"]}
    algorithms = {name: {"label": name, "options": one} for name, one in variants.items()}
    evaluate = {
        "title": "Coefficients of the pretraining loss and of the KL penalty",
        "baseline": "sft",
        "panels": "{label}/panels.json",
        "answers": {"<policy>": "{<policy>_sampled}/responses.jsonl"},
        "nlp": {"<nlp>": "{<nlp>_nlp}/responses.jsonl"},
    }
    return {
        "extends": str(base),
        "matrix": {"algorithm": algorithms},
        "stages": {
            "evaluate": None,
            "evaluate_ablations": {"verb": "evaluate", "options": evaluate},
        },
    }


def point(folder: Path, results: Results, name: str) -> dict[str, Any]:
    """What one run came to."""
    wins = [row for row in results.over_baseline if (row.judge, row.model) == ("panel", name)]
    found = {
        "nlp": to_json(results.nlp[name]["mean"]),
        "utility": to_json(results.utility["sampled"][name]),
        "win_rate": to_json(wins[0]) if wins else None,
    }
    if (folder / name / "metrics.json").is_file():
        final = json.loads((folder / name / "metrics.json").read_text())["validations"][-1]
        names = {"kl": "val/kl", "score": "val/score"}  # which SFT has not
        found |= {key: final[name] for key, name in names.items() if name in final}
    return found


def draw(rows: dict[str, list[dict[str, Any]]], flat: dict[str, Any]) -> Figure:
    """Accuracy on NLP tasks and utility against each coefficient."""
    figure = Figure(figsize=(9, 6.4), layout="constrained")
    for column, (name, points) in enumerate(rows.items()):
        for row, (measure, unit) in enumerate(
            (("nlp", "accuracy, 3 NLP tasks"), ("utility", "true utility, 1 to 7"))
        ):
            axes = figure.add_subplot(2, 2, 2 * row + column + 1)
            values = [one[measure]["value"] for one in points]
            below = [one[measure]["value"] - one[measure]["low"] for one in points]
            above = [one[measure]["high"] - one[measure]["value"] for one in points]
            axes.errorbar(range(len(points)), values, [below, above], marker="o", capsize=3)
            for model, style in (("gpt", ":"), ("sft", "--")):
                level = flat[model][measure]["value"]
                axes.axhline(level, color="0.5", linestyle=style, label=model.upper())
            axes.set_xticks(range(len(points)), [f"{one['coefficient']:g}" for one in points])
            axes.set(xlabel=name, ylabel=unit)
            axes.grid(alpha=0.2)
            axes.legend(frameon=False, fontsize=8)
    n = rows["ptx_coef (gamma), Fig. 33"][0]
    figure.suptitle(
        f"Bars: 95 % interval; n = {n['nlp']['n']} NLP items, {n['utility']['n']} prompts; one seed"
    )
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "miniature_seeds")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    options = parser.parse_args()
    folder = options.runs.resolve() / str(options.seed)
    folder.mkdir(parents=True, exist_ok=True)
    config = folder.parent / "ablations.yaml"
    config.write_text(yaml.safe_dump(pipeline(), sort_keys=False))
    command = [sys.executable, "-m", "instructgpt", "pipeline", "--config", str(config)]
    command += ["--seed", str(options.seed), "--output", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True)
    results = read_results(folder / "evaluate_ablations" / "results.json")
    found = {}
    for title, kind, values in (
        ("ptx_coef (gamma), Fig. 33", "ptx", PTX_COEFS),
        ("kl_coef (beta), Fig. 34", "kl", KL_COEFS),
    ):
        names = ["ppo" if v == USUAL[kind] else f"{kind}_{i}" for i, v in enumerate(values)]
        found[title] = [
            {"coefficient": v} | point(folder, results, name)
            for v, name in zip(values, names, strict=True)
        ]
    flat = {name: point(folder, results, name) for name in ("gpt", "sft")}
    options.results.mkdir(exist_ok=True)
    text = json.dumps({"seed": options.seed, **flat, **found}, indent=1, ensure_ascii=False)
    (options.results / "miniature_ablations.json").write_text(text + "\n")
    draw(found, flat).savefig(options.results / "miniature_ablations.png", dpi=120)


if __name__ == "__main__":
    main()
