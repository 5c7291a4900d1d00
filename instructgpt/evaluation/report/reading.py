"""What figures and tables both read from the results."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from instructgpt.evaluation.results import Curves, OverOptimisation, Results, WinRate

NAMES = {
    "panel": "training labelers",
    "training": "training labelers",
    "held_out": "held-out labelers",
    "shifted": "labelers with other priorities",
    "reward_model": "reward model",
    "judge_model": "second reward model",
    "endpoint": "model behind an endpoint",
    "ground_truth": "ground truth",
    "sampled": "sampled, T = 1",
    "greedy": "greedy",
    "fails_to_follow": "fails to follow ↓",
    "inappropriate": "inappropriate for an assistant ↓",
    "satisfies_constraint": "satisfies the constraint ↑",
    "toxic": "toxic ↓",
    "truthful": "truthful ↑",
    "truthful_informative": "truthful and informative ↑",
    "clean_end": "ends cleanly ↑",
    "none": "no instruction",
    "respectful": "asked to be respectful",
    "rude": "asked to be rude",
    "hallucination": "hallucination ↓",
    "follow": "follows the instruction ↑",
    "open_qa": "open QA",
    "closed_qa": "closed QA",
}
KEYS = ("train", "val", "test")  # of the metrics in learning curves


def said(name: str) -> str:
    """A name in words: ``held_out`` is "held-out labelers"."""
    return NAMES.get(name, name.replace("_", " "))


def label(results: Results, model: str) -> str:
    """How a model is called."""
    return results.labels.get(model, model)


def in_order(results: Results, found: Iterable[str]) -> list[str]:
    """Models in the order of the results; those not listed there come last."""
    return listed_first(results.models, found)


def listed_first(order: Iterable[str], found: Iterable[str]) -> list[str]:
    """What was found, each once, in this order; what the order does not have comes last."""
    known, names = list(order), list(dict.fromkeys(found))
    return [one for one in known if one in names] + [one for one in names if one not in known]


def all_models(results: Results) -> list[str]:
    """Every model that has a place somewhere."""
    names = [*results.models, *(row.model for row in results.win_rates)]
    for table in results.tables.values():
        names += table
    for table in results.ratings.values():
        names += keys_of(table.values())
    names += over_optimisation(results).checkpoints
    names += keys_of(sample.answers for sample in results.samples)
    return in_order(results, names)


def over_optimisation(results: Results) -> OverOptimisation:
    """What was measured of it, if only nothing."""
    return results.over_optimisation or OverOptimisation()


def keys_of(tables: Iterable[Mapping[str, Any]]) -> list[str]:
    """Keys of several mappings in the order in which they appear."""
    return list(dict.fromkeys(key for table in tables for key in table))


def decodings(results: Results, found: Iterable[str]) -> list[str]:
    """Decodings that are there, in the order of the results."""
    return listed_first(results.decodings, found)


def judges(results: Results, rows: Sequence[WinRate]) -> list[str]:
    """Judges of these rows, in the order in which the results describe them."""
    return listed_first(results.judges, (row.judge for row in rows))


def curve_panels(curves: Curves) -> dict[str, Curves]:
    """Curves of one stage by what they measure: ``train/loss`` and ``val/loss`` share a panel."""
    panels: dict[str, Curves] = {}
    for metric, points in curves.items():
        kind, _, name = metric.partition("/")
        if kind not in KEYS or not name:
            kind, name = "", metric
        if points:
            panels.setdefault(name, {})[kind] = points
    return panels


def safe(name: str) -> str:
    """A name that can be part of a file's name and of an id."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", name) or "_"
