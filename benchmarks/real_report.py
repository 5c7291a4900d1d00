"""The tables of docs/real_model.md, from results/real_model.json."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from speed_report import put_in

PAGE = Path(__file__).parents[1] / "docs/real_model.md"
TAXED = [
    *(("hellaswag", "acc_norm"), ("rte", "acc"), ("sst2", "acc"), ("wsc", "acc")),
    *(("truthfulqa", "mc1"), ("crows_pairs", "pct_stereotype"), ("winogender", "acc")),
    ("gsm8k", "exact_match_flexible"),
]
TRAINED = {"dpo": "DPO", "ppo": "PPO", "ppo_ptx": "PPO-ptx", "best_of_16": "best of 16 of SFT"}
NAMES = {"model": "the model as it was", "sft": "SFT", **TRAINED}
MET = {True: "met", False: "missed", None: "not measured"}


def write_page(seeds: dict[str, Any]) -> None:
    """Put the tables of all seeds into the page.

    Args:
        seeds: of the results file.
    """
    parts = {"outcome": outcome, "tax": tax, "work": work, "samples": samples}
    for name, part in parts.items():
        put_in(PAGE, part(seeds), (f"<!-- {name} -->", f"<!-- /{name} -->"))


def judged(seed: dict[str, Any], against: str, model: str) -> dict[str, Any] | None:
    """The win rate of a model by the judge that took no part; None of a model that is not there."""
    rows = seed["win_rates"][against]
    found = (r for r in rows if r["model"] == model and r["judge"] == "judge_model")
    return next(found, None)


def share(row: Any) -> str:
    """A share with its interval, in per cent."""
    if row is None:
        return "-"
    value, low, high = (row[n] for n in (("value", "low", "high") if "low" in row else range(3)))
    return f"{100 * value:.0f} [{100 * low:.0f}, {100 * high:.0f}]"


def nats(row: Any) -> str:
    """A number of nats with its interval."""
    return "-" if row is None else f"{row['value']:.1f} [{row['low']:.1f}, {row['high']:.1f}]"


class Table:
    """Markdown, a column a seed."""

    def __init__(self, names: Iterable[str]) -> None:
        columns = [f"seed {name}" for name in names]
        self.lines = ["| | " + " | ".join(columns) + " |", "| --- |" + " --- |" * len(columns)]

    def add(self, title: str, cells: list[str]) -> None:
        """A line."""
        self.lines.append(f"| {title} | " + " | ".join(cells) + " |")


def outcome(seeds: dict[str, Any]) -> list[str]:
    """What became of the model, as lines of Markdown."""
    made, ones = Table(seeds), list(seeds.values())
    line = made.add
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
    return made.lines


def tax(seeds: dict[str, Any]) -> list[str]:
    """How far models are from the model as it was on public sets, as lines of Markdown."""
    made = Table(seeds)
    for set_name, measure in TAXED:
        measured = [
            one["tax"][set_name]["differences"][measure] if one["tax"] else []
            for one in seeds.values()
        ]
        problems = max(row["n"] for rows in measured for row in rows)
        for model in ("sft", "dpo", "ppo", "ppo_ptx"):
            found = [next((r for r in rows if r["model"] == model), None) for rows in measured]
            title = f"{set_name}, {measure}, n = {problems}: {NAMES[model]}"
            made.add(title, [share(row) for row in found])
    return made.lines


def work(seeds: dict[str, Any]) -> list[str]:
    """Minutes, tokens a second and memory of the stages, as lines of Markdown."""
    made, ones = Table(seeds), list(seeds.values())
    for stage in ones[0]["seconds"]:
        cells = []
        for one in ones:
            log, seconds = one["logs"].get(stage, {}), one["seconds"].get(stage)
            cell = f"{seconds / 60:.1f} min" if seconds is not None else "-"
            if log.get("tokens_per_second") and stage not in ("reward", "judge"):
                cell += f", {log['tokens_per_second']} tokens/s"
            if log.get("memory"):
                peak = re.search(r"about ([\d,]+ MiB)", log["memory"][-1])
                cell += f", {peak.group(1)}" if peak else ""
            cells.append(cell)
        made.add(stage.replace("_", " "), cells)
    sums = [sum(filter(None, one["seconds"].values())) / 60 for one in ones]
    made.add("all", [f"{total:.0f} min" for total in sums])
    return made.lines


def samples(seeds: dict[str, Any]) -> list[str]:
    """The first answers to the same prompts, as lines of Markdown."""
    lines = []
    for name, one in seeds.items():
        for sample in one["samples"][:2]:
            lines += [f"**Seed {name}:** {inline(sample['prompt'])}", ""]
            for model, said in sample["answers"].items():
                lines.append(f"- *{NAMES[model]}:* {inline(said['sampled']['text'])}")
            lines.append("")
    return lines[:-1]


def inline(text: str) -> str:
    """A text as one line that Markdown takes as it is."""
    return re.sub(r"([\\`*_<>\[\]|#])", r"\\\1", " ".join(text.split()))
