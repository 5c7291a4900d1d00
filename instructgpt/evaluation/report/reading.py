"""What figures and tables both read from the results."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Results = Mapping[str, Any]

NAMES = {
    "panel": "training labelers",
    "training": "training labelers",
    "held_out": "held-out labelers",
    "shifted": "labelers with other priorities",
    "reward_model": "reward model",
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
    return str(results.get("labels", {}).get(model, model))


def baseline(results: Results) -> str:
    """How the model is called that others are compared with."""
    return label(results, str(results.get("baseline", "the baseline")))


def in_order(results: Results, found: Iterable[str]) -> list[str]:
    """Models in the order of the results; those not listed there come last."""
    models = list(results.get("models", []))
    names = list(dict.fromkeys(found))
    return [m for m in models if m in names] + [m for m in names if m not in models]


def all_models(results: Results) -> list[str]:
    """Every model that has a place somewhere."""
    names = list(results.get("models", []))
    names += [row["model"] for row in results.get("win_rates", [])]
    for part in ("metadata", "use_cases", "closed_domain", "truthfulness", "toxicity", "nlp"):
        names += results.get(part, {})
    for part in ("likert", "utility"):
        names += keys_of(results.get(part, {}).values())
    names += results.get("over_optimisation", {}).get("checkpoints", {})
    names += keys_of(sample["answers"] for sample in results.get("samples", []))
    return in_order(results, names)


def keys_of(tables: Iterable[Mapping[str, Any]]) -> list[str]:
    """Keys of several mappings in the order in which they appear."""
    return list(dict.fromkeys(key for table in tables for key in table))


def decodings(results: Results, found: Iterable[str]) -> list[str]:
    """Decodings that are there, in the order of the results."""
    names = list(dict.fromkeys(found))
    order = list(results.get("decodings", []))
    return [d for d in order if d in names] + [d for d in names if d not in order]


def judges(results: Results, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Judges of these rows, in the order in which the results describe them."""
    names = list(dict.fromkeys(str(row["judge"]) for row in rows))
    order = list(results.get("judges", {}))
    return [j for j in order if j in names] + [j for j in names if j not in order]


def against_baseline(results: Results) -> list[Mapping[str, Any]]:
    """Win rates against the baseline."""
    baseline = results.get("baseline")
    return [r for r in results.get("win_rates", []) if r["against"] == baseline != r["model"]]


def curve_panels(curves: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Curves of one stage by what they measure: ``train/loss`` and ``val/loss`` share a panel."""
    panels: dict[str, dict[str, Any]] = {}
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
