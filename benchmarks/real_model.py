"""A pretrained chat model aligned with people's preferences by ``configs/real/pipeline.yaml``: what became of it.

    OMP_NUM_THREADS=1 python benchmarks/real_model.py --model FOLDER --data FOLDER --seeds 0 1
    python benchmarks/real_model.py --collect --seeds 0 1     # results of runs that are there
    python benchmarks/real_model.py --table                   # the table of the results, for docs and README

A seed of ``--size slice`` (the default) took two hours of one CPU core that had other work, too, with 135 M parameters; ``gpu`` is for one GPU. The
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

HERE = Path(__file__).parent
RESULTS = HERE / "results/real_model.json"
PIPELINE = HERE.parent / "configs/real/pipeline.yaml"
COMPARISONS = {"hh-helpful-base": 1400, "hh-helpful-rejection-sampled": 800}
"""Rows of each, before they are split."""

SHORT = 400
"""Characters of a prompt that is asked or practised: none of them is cut."""
DEMONSTRATIONS = ("oasst", "self-instruct")
SETS = ("hellaswag", "rte", "sst2", "wsc", "truthfulqa", "crows-pairs", "winogender")
TRAINED = {"dpo": "DPO", "ppo": "PPO", "ppo_ptx": "PPO-ptx", "best_of_16": "best of 16 of SFT"}
LEAST_ACCURACY = 0.66
MET = {True: "met", False: "missed", None: "not measured"}


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


def judged(seed: dict[str, Any], against: str, model: str) -> dict[str, Any] | None:
    """The win rate of a model by the judge that took no part; None of a model that is not there."""
    rows = seed["win_rates"][against]
    found = (r for r in rows if r["model"] == model and r["judge"] == "judge_model")
    return next(found, None)


def targets(seed: dict[str, Any]) -> dict[str, bool | None]:
    """The aims, and whether they are met; None where that was not measured."""
    found = seed["rewards"]["reward"]["by_source"]["hh/helpful-base"]
    others = [found[name] for name in ("longer_wins", "bag_of_words") if found.get(name)]
    accuracy = found["reward_model"]
    policies = [one for name in ("dpo", "ppo") if (one := judged(seed, "sft", name))]
    changes = [
        row
        for one in seed["tax"].values()
        for rows in one["differences"].values()
        for row in rows
        if row["model"] == "ppo_ptx"
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


def share(row: Any) -> str:
    """A share with its interval, in per cent."""
    if row is None:
        return "-"
    value, low, high = (row[n] for n in (("value", "low", "high") if "low" in row else range(3)))
    return f"{100 * value:.0f} [{100 * low:.0f}, {100 * high:.0f}]"


def nats(row: Any) -> str:
    """A number of nats with its interval."""
    return "-" if row is None else f"{row['value']:.1f} [{row['low']:.1f}, {row['high']:.1f}]"


def table(results: dict[str, Any]) -> str:
    """The results as Markdown, a column a seed."""
    seeds = results["seeds"]
    lines = ["| | " + " | ".join(f"seed {name}" for name in seeds) + " |"]
    lines.append("| --- |" + " --- |" * len(seeds))

    def line(title: str, cells: list[str]) -> None:
        lines.append(f"| {title} | " + " | ".join(cells) + " |")

    ones = list(seeds.values())
    line("SFT: held-out loss, nats a token", [f"{one['sft']['val/loss']:.2f}" for one in ones])
    for kind, name in {"reward": "reward model", "judge": "judge"}.items():
        for part in ("all", *ones[0]["rewards"][kind]["by_source"]):
            held_out = [one["rewards"][kind] for one in ones]
            found = [one["all"] if part == "all" else one["by_source"][part] for one in held_out]
            held = f"{name}: right in % of {found[0]['pairs']:,} held-out pairs of {part}"
            line(held, [share(one["reward_model"]) for one in found])
            for base in ("longer_wins", "bag_of_words"):
                line(f"… {base.replace('_', ' ')}", [share(one.get(base)) for one in found])
    for against in ("sft", "model"):
        for model, name in TRAINED.items():
            rows = [judged(one, against, model) for one in ones]
            cells = [
                f"{share(row)}, at equal length {share(row['length_controlled'])}" if row else "-"
                for row in rows
            ]
            line(
                f"{name} preferred to {'SFT' if against == 'sft' else 'the model as it was'}, %",
                cells,
            )
    for model in TRAINED:
        if model != "best_of_16":  # log 16 - 15 / 16 = 1.84 nats at most (arXiv:2009.01325)
            kls = [one["texts"].get(model, {}).get("kl") for one in ones]
            line(f"{TRAINED[model]}: nats an answer from SFT", [nats(kl) for kl in kls])
    for model in ("sft", *TRAINED):
        ended = [one["texts"].get(model, {}).get("ended") for one in ones]
        line(f"{TRAINED.get(model, 'SFT')}: answers that end, %", [share(one) for one in ended])
    for aim in ones[0]["targets"]:
        line(aim, [MET[one["targets"][aim]] for one in ones])
    line("minutes", [f"{sum(filter(None, one['seconds'].values())) / 60:.0f}" for one in ones])
    return "\n".join(lines)


def main() -> None:
    """Run, collect, or print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="folder or hub id of a chat model")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--size", choices=list(SIZES), default="slice")
    parser.add_argument("--runs", type=Path, default=HERE.parent / "runs/real_model")
    parser.add_argument("--collect", action="store_true", help="only write the results file")
    parser.add_argument("--table", action="store_true", help="only print the table")
    given = parser.parse_args()
    if given.table:
        print(table(json_of(RESULTS)))
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
        seeds = {**earlier["seeds"], **seeds}  # one seed may run today, another tomorrow
    RESULTS.write_text(json.dumps({**about, "seeds": seeds}, indent=1, ensure_ascii=False) + "\n")
    print(f"wrote {RESULTS}")


if __name__ == "__main__":
    main()
