"""What runs have left behind: samples of their checkpoints, and learning curves."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from instructgpt.data.errors import bad
from instructgpt.data.files import read_file
from instructgpt.data.formats import parse_prompt
from instructgpt.evaluation.answers import Grader
from instructgpt.evaluation.statistics import mean
from instructgpt.types import Prompt, UserError

POINTS = 200
"""At most so many points a curve."""

SHOWN = (
    "train/loss",
    "train/accuracy",
    "val/loss",
    "val/accuracy",
    "val/calibration_error",
    "val/score",
    "val/greedy_score",
    "val/kl",
    "val/response_length",
    "ppo/score",
    "ppo/kl",
    "ppo/entropy",
    "ppo/response_length",
    "loss/policy",
    "loss/value",
    "loss/ptx",
)
"""Metrics of the stages that have a curve in the report."""

Curves = dict[str, list[list[float]]]


def checkpoint_curve(
    run: str, prompts: Mapping[str, Prompt], grader: Grader, seed: int
) -> list[dict[str, Any]]:
    """KL, score and true utility of each checkpoint that answered the validation prompts.

    Args:
        run: folder of a PPO run, whose ``samples.jsonl`` has all validation prompts.
        prompts: text -> the prompt.
        grader: knows them.
        seed: of the bootstrap.
    """
    path = Path(run, "samples.jsonl")
    steps: dict[int, dict[str, tuple[float, float, float]]] = {}
    for item in read_file(path):
        row = item.value
        if isinstance(row, UserError):
            raise row
        if not isinstance(row, dict) or row.get("kind") != "sampled" or row.get("kl") is None:
            continue
        known = prompts.get(row["prompt"])
        if known is None:
            rule = "must be one of --checkpoint_prompts"
            raise bad(item.where, "prompt", rule, row["prompt"])
        answer = grader.grade(item.where, known, [row["response"]], [row["finished"]])[0]
        found = row["kl"], row["score"], answer.utility
        steps.setdefault(row["step"], {})[row["prompt"]] = found
    curve = []
    for step, rows in sorted(steps.items()):
        kl, score, utility = np.array(list(rows.values())).T
        point: dict[str, Any] = {"step": step, "kl": float(kl.mean())}
        parts = {"score": score, "utility": utility}
        curve.append(point | {name: mean(part, seed)._asdict() for name, part in parts.items()})
    return curve


def prompts_by_text(path: str) -> dict[str, Prompt]:
    """Text of a prompt -> the prompt."""
    prompts = [parse_prompt(item).row.prompt for item in read_file(Path(path))]
    return {prompt.text: prompt for prompt in prompts}


def validation_curves(run: str) -> Curves:
    """Metrics of the validations of a run, which it remembers whatever interrupts it."""
    path = Path(run, "metrics.json")
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["validations"]
        points = [(name, [row["step"], row[name]]) for row in rows for name in row]
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such file (--runs must name folders of finished runs)"
        ) from None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path}: must be the metrics.json that `fit` writes") from None
    curves: Curves = {}
    for name, point in points:
        if name in SHOWN and name.startswith("val/") and point[1] is not None:
            curves.setdefault(name, []).append(point)
    return {name: thin(curve) for name, curve in curves.items()}


def event_curves(run: str) -> Curves:
    """Metrics in the TensorBoard files of a run; a run that was killed may lack some points."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    curves: Curves = {}
    for path in sorted(Path(run).glob("events.out.tfevents.*")):
        events = EventAccumulator(str(path), size_guidance={"scalars": 0})
        events.Reload()
        for name in events.Tags()["scalars"]:
            if name in SHOWN:
                points = [[event.step, event.value] for event in events.Scalars(name)]
                curves[name] = curves.get(name, []) + points
    return {name: thin(latest(curve)) for name, curve in curves.items()}


def latest(curve: list[list[float]]) -> list[list[float]]:
    """Points in order of steps; of several at one step, which a resumed run leaves, the last.

    >>> latest([[1, 0.5], [2, 0.4], [1, 0.3]])
    [[1, 0.3], [2, 0.4]]
    """
    points = {step: value for step, value in curve if math.isfinite(value)}
    return [[step, points[step]] for step in sorted(points)]


def thin(curve: list[list[float]]) -> list[list[float]]:
    """At most ``POINTS`` points, evenly chosen, the first and the last among them."""
    if len(curve) <= POINTS:
        return curve
    chosen = np.linspace(0, len(curve) - 1, POINTS).round().astype(int)
    return [curve[i] for i in chosen]
