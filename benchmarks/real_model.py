"""A pretrained chat model aligned with people's preferences by ``configs/real/pipeline.yaml``: what became of it.

    OMP_NUM_THREADS=1 python benchmarks/real_model.py --model FOLDER --data FOLDER --seeds 0 1
    python benchmarks/real_model.py --collect --seeds 0 1     # results of runs that are there
    python benchmarks/real_model.py --report                  # the tables of docs/real_model.md from the results

A seed of ``--size slice`` (the default) took 83 minutes of one CPU core beside other work with 135 M parameters; ``gpu`` is for one GPU. The
data is no part of the project: a folder with ``comparisons/``, ``demonstrations/``, ``text/`` and ``eval/``. Finished
stages are kept. Nothing is chosen by the held-out half of the comparisons, of which 160 rows were looked at before (docs/decisions.md).
"""  # noqa: E501

from __future__ import annotations

import argparse
import gzip
import json
import os
import platform
import re
import subprocess
import sys
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from real_report import judged, write_page

HERE = Path(__file__).parent
RESULTS = HERE / "results/real_model.json"
PIPELINE = HERE.parent / "configs/real/pipeline.yaml"
COMPARISONS = {"hh-helpful-base": 1400, "hh-helpful-rejection-sampled": 800}
"""Rows of each, before they are split."""

SHORT = 400
"""Characters of a prompt that is asked or practised: none of them is cut."""
DEMONSTRATIONS = ("oasst", "self-instruct")
SETS = ("hellaswag", "rte", "sst2", "wsc", "truthfulqa", "crows-pairs", "winogender")
OF_BIAS = ("pct_stereotype", "likelihood_diff")  # of which more is not better
LEAST_ACCURACY = 0.66


class Size(NamedTuple):
    """Rows, tokens and steps, from measured speed (one core: 110 to 150 tokens/s of training)."""

    demonstrations: int = 80  # of each set
    asked: int = 96  # held-out prompts
    practised: int = 192  # prompts of DPO and PPO
    problems: int = 40  # of each public set
    arithmetic: int = 8  # of gsm8k, which are answered
    prompt: int = 128  # tokens
    response: int = 48  # tokens a policy says
    written: int = 128  # tokens of a response that people have written or ranked
    phases: int = 8
    episodes: int = 32  # of a phase
    passes: int = 1  # over them
    batch: int = 4  # prompts of a step of DPO, each with four answers
    rates: tuple[float, float] = (5e-4, 3e-4)  # of DPO and PPO: few steps
    precision: str = "bf16-mixed"
    max_tokens: int = 1024


SIZES = {
    "slice": Size(),
    "gpu": Size(
        **{"demonstrations": 200, "asked": 256, "practised": 512, "problems": 200},
        **{
            "arithmetic": 100,
            "prompt": 512,
            "response": 128,
            "written": 256,
            "phases": 20,
            "episodes": 128,
            "passes": 2,
        },
        **{"batch": 16, "rates": (2e-4, 2e-4), "precision": "bf16-mixed", "max_tokens": 16384},
    ),
}


def rows_of(folder: Path, name: str, most: int) -> list[dict[str, Any]]:
    """The first rows of a set."""
    path = next(folder.glob(f"{name}.jsonl*"))
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
        return [json.loads(line) for line in islice(lines, most)]


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    """Rows as JSONL; the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def inputs_of(data: Path, place: Path, model: str, size: Size) -> dict[str, Any]:
    """What the pipeline is given, cut to size."""
    told = [
        row
        for n in DEMONSTRATIONS
        for row in rows_of(data / "demonstrations", n, size.demonstrations)
    ]
    sets = {
        name.replace("-", "_"): write(
            place / f"{name}.jsonl", rows_of(data / "eval", name, size.problems)
        )
        for name in SETS
    }
    solved = rows_of(data / "demonstrations", "gsm8k", size.arithmetic)
    sums = [{name: row[name] for name in ("prompt", "response")} for row in solved]
    ranked = [
        row
        for name, most in COMPARISONS.items()
        for row in rows_of(data / "comparisons", name, most)
    ]
    return {
        "model": model,
        "comparisons": write(place / "comparisons.jsonl", ranked),
        "demonstrations": write(place / "demonstrations.jsonl", told),
        "prompts": str(place / "practised.jsonl"),
        "text": [str(path) for path in sorted((data / "text").glob("*.jsonl*"))],
        "sets": {**sets, "gsm8k": write(place / "gsm8k.jsonl", sums)},
        "precision": size.precision,
        "dtype": "bfloat16" if size.precision.startswith("bf16") else "float32",
        "max_tokens": size.max_tokens,
    }


def recipe(inputs: dict[str, Any], output: Path, asked: Path, size: Size) -> dict[str, Any]:
    """The shipped pipeline with these sizes."""
    short = {"data.max_prompt_tokens": size.prompt, "data.max_response_tokens": size.response}
    long = {**short, "data.max_response_tokens": size.written}
    step = {"data.batch_size": size.batch, "trainer.accumulate_grad_batches": 1}
    answered = {"prompts": str(asked), "max_response_tokens": size.response}

    def head(*layers: int) -> dict[str, Any]:
        read = {"layers": list(layers), "tokens": ["last", "mean"]}
        chosen = {"class_path": "FrozenTrunk", "init_args": read}
        return {"model.trained": chosen, "model.network.dtype": "bfloat16"}

    options: dict[str, dict[str, Any]] = {
        "sft": {**long, "trainer.accumulate_grad_batches": 1, "model.validation_prompts": 0},
        "reward": {**long, **head(-1, -11), "model.init_from": "{model}"},
        "judge": {**long, **head(-6, -16)},
        "candidates": {"max_response_tokens": size.response},
        "dpo": {
            **short,
            **step,
            "model.validation_prompts": 16,
            "model.optimizer.lr": size.rates[0],
        },
        "<algorithm>": {
            **short,
            "data.validation": None,
            "data.pretraining_block_size": 128,
            "trainer.max_epochs": size.phases,
            "model.batches.rollout_batch_size": size.episodes,
            "model.batches.minibatch_size": size.episodes // 2,
            "model.algorithm.epochs": size.passes,
            "model.optimizer.lr": size.rates[1],
        },
        "<policy>_answers": answered,
        "samples": answered,
        "tax": {"max_response_tokens": 128},
    }
    stages = {name: {"options": json.loads(json.dumps(one))} for name, one in options.items()}
    return {"extends": str(PIPELINE), "output": str(output), "inputs": inputs, "stages": stages}


def run(model: str, data: Path, place: Path, seed: int, size: Size) -> None:
    """All stages of one seed; the split first, from which prompts are taken."""
    inputs = inputs_of(data, place / "inputs", model, size)
    asked, practised = place / "inputs/asked.jsonl", place / "inputs/practised.jsonl"
    for path in (asked, practised):
        if not path.exists():
            write(path, [{"prompt": "not cut yet"}])
    file = place / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe(inputs, place / "runs", asked, size), sort_keys=False))
    command = [sys.executable, "-m", "instructgpt", "pipeline", f"--config={file}"]
    subprocess.run([*command, f"--seed={seed}", "--only=split"], check=True, cwd=HERE.parent)
    for part, path, most in (("test", asked, size.asked), ("train", practised, size.practised)):
        rows = rows_of(place / "runs/split/data", part, 10**9)
        short = {row["prompt"]: row for row in rows if len(row["prompt"]) <= SHORT}
        write(path, list(short.values())[:most])
    subprocess.run([*command, f"--seed={seed}"], check=True, cwd=HERE.parent)


def json_of(path: Path) -> Any:
    """What a file holds."""
    return json.loads(path.read_text())


def collect(place: Path) -> dict[str, Any]:
    """What one seed has left."""
    runs = place / "runs"
    trained = [name for name in ("sft", "dpo", "ppo", "ppo_ptx") if (runs / name).is_dir()]
    metrics = {name: json_of(runs / name / "metrics.json") for name in trained}
    judges = {name: json_of(runs / name / "metrics.json") for name in ("reward", "judge")}
    results = {
        against: json_of(runs / name / "results.json")
        for against, name in {"sft": "evaluate", "model": "evaluate_before"}.items()
    }
    last = {name: one["final"] for name, one in metrics.items()}
    stages = json_of(runs / "pipeline.json")["stages"]
    return {
        "sft": {name: last["sft"].get(name) for name in ("val/loss", "val/loss_fall", "intervals")},
        "rewards": {name: one["baselines"] for name, one in judges.items()},
        "texts": results["sft"]["texts"]["sampled"],
        "score": {name: last[name]["ppo/score"] for name in trained if "ppo" in name},
        "dpo": {name: last["dpo"].get(name) for name in ("val/margin", "val/accuracy")},
        "win_rates": {
            against: [
                {key: row.get(key) for key in ("model", "judge", "value", "low", "high", "n")}
                | {"length_controlled": row.get("length_controlled")}
                for row in found["win_rates"]
            ]
            for against, found in results.items()
        },
        "tax": json_of(tax)["sets"] if (tax := runs / "tax/results.json").is_file() else {},
        "samples": results["sft"]["samples"][:8],
        "seconds": {stage["name"]: stage["seconds"] for stage in stages},
        "logs": {name: log_of(runs / f"{name}.log") for name in (*metrics, *judges)},
        "warnings": warnings_of(runs),
    }


def log_of(path: Path) -> dict[str, Any]:
    """Tokens a second and memory, as a stage has printed them."""
    text = path.read_text()
    speeds = [int(one.replace(",", "")) for one in re.findall(r"([\d,]+) tokens/s", text)]
    memory = re.findall(r"memory (?:in all|used)\s+(.*)", text)
    return {"tokens_per_second": speeds[-1] if speeds else None, "memory": memory}


def warnings_of(runs: Path) -> list[str]:
    """What the stages warned of."""
    lines = [
        f"{log.stem}: {line.strip()}".replace(f"{runs.parent}/", "")
        for log in sorted(runs.glob("*.log"))
        for line in log.read_text().splitlines()
        if line.strip().startswith("warning: ")
    ]
    return list(dict.fromkeys(lines))


def targets(seed: dict[str, Any]) -> dict[str, bool | None]:
    """The aims, and whether they are met; None where that was not measured."""
    found = seed["rewards"]["reward"]["by_source"]["hh/helpful-base"]
    others = [found[name] for name in ("longer_wins", "bag_of_words") if found.get(name)]
    accuracy = found["reward_model"]
    policies = [one for name in ("dpo", "ppo") if (one := judged(seed, "sft", name))]
    changes = [
        row
        for one in seed["tax"].values()
        for measure, rows in one["differences"].items()
        for row in rows
        if row["model"] == "ppo_ptx" and measure not in OF_BIAS
    ]
    return {
        "reward model right in at least .66 of helpful-base": accuracy[0] >= LEAST_ACCURACY,
        "its interval above those of both baselines": all(accuracy[1] > one[2] for one in others),
        "DPO or PPO preferred to SFT, also at equal length": any(
            one["low"] > 0.5 and (one["length_controlled"] or {"low": 0})["low"] > 0.5
            for one in policies
        )
        if policies
        else None,
        "no public set falls by more than its interval with ptx": all(
            row["high"] >= 0 for row in changes
        )
        if changes
        else None,
    }


def main() -> None:
    """Run, collect, or print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="folder or hub id of a chat model")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--size", choices=list(SIZES), default="slice")
    parser.add_argument("--runs", type=Path, default=HERE.parent / "runs/real_model")
    parser.add_argument("--collect", action="store_true", help="only write the results file")
    parser.add_argument("--report", action="store_true", help="only write the page's tables")
    given = parser.parse_args()
    if given.report:
        write_page(json_of(RESULTS)["seeds"])
        return
    places = {seed: given.runs.resolve() / f"seed_{seed}" for seed in given.seeds}
    if not given.collect:
        for seed, place in places.items():
            run(given.model, given.data.resolve(), place, seed, SIZES[given.size])
    seeds = {str(seed): collect(place) for seed, place in places.items()}
    for one in seeds.values():
        one["targets"] = targets(one)
    threads = os.environ.get("OMP_NUM_THREADS", "all")
    about = {"machine": platform.machine(), "threads": threads, "size": SIZES[given.size]._asdict()}
    earlier = json_of(RESULTS) if RESULTS.is_file() else {}
    if all(earlier.get(name) == value for name, value in json.loads(json.dumps(about)).items()):
        seeds = dict(sorted({**earlier["seeds"], **seeds}.items()))  # some run another day
    RESULTS.write_text(json.dumps({**about, "seeds": seeds}, indent=1, ensure_ascii=False) + "\n")
    print(f"wrote {RESULTS}")


if __name__ == "__main__":
    main()
