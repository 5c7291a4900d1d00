"""What runs have left behind: samples of their checkpoints, and learning curves."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from instructgpt.data.errors import bad
from instructgpt.data.files import read_file
from instructgpt.data.formats import parse_item
from instructgpt.evaluation.answers import AnswersRow, Grader, answers_of
from instructgpt.evaluation.judges import Answer
from instructgpt.evaluation.results import Checkpoint, Curve, Curves
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
    "val/rewards/chosen",
    "val/rewards/rejected",
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


Score = Callable[[Sequence[Answer]], Sequence[float]]


class Measured(NamedTuple):
    """A validation prompt's answer by a checkpoint; NaN is what is not known."""

    kl: float
    score: float
    utility: float


def checkpoint_curve(
    run: str,
    prompts: Mapping[str, Prompt],
    grader: Grader | None,
    score: Score | None,
    seed: int,
) -> list[Checkpoint]:
    """KL, score and true utility of each checkpoint that answered the validation prompts.

    A run whose samples have no KL has that of its validations (``val/kl``), if it logs one; where
    they have no score, the reward model of the evaluation gives it.

    Args:
        run: folder of a run, whose ``samples.jsonl`` has all validation prompts.
        prompts: text -> the prompt.
        grader: knows the prompts.
        score: of a reward model.
        seed: of the bootstrap.
    """
    steps: dict[int, dict[str, Measured]] = {}
    for item in read_file(Path(run, "samples.jsonl")):
        row = item.value
        if isinstance(row, UserError):
            raise row
        if isinstance(row, dict) and row.get("kind", "sampled") == "sampled":
            found = measured(item.where, row, prompts, grader, score)
            steps.setdefault(row["step"], {})[row["prompt"]] = found
    logged = {row["step"]: row.get("val/kl") for row in validations(run)}
    curve = []
    for step, rows in sorted(steps.items()):
        columns = np.array(list(rows.values()), dtype=np.float64).T
        kl, *estimates = (column[~np.isnan(column)] for column in columns)
        far = float(kl.mean()) if len(kl) else logged.get(step)
        known = (mean(part, seed) if len(part) else None for part in estimates)
        curve.append(Checkpoint(step, math.nan if far is None else far, *known))
    return curve


def measured(
    where: str,
    row: Mapping[str, Any],
    prompts: Mapping[str, Prompt],
    grader: Grader | None,
    score: Score | None,
) -> Measured:
    """What is known of one answer.

    Args:
        where: file and line.
        row: of ``samples.jsonl``.
        prompts: text -> the prompt.
        grader: knows the prompts.
        score: of a reward model, for answers without one.
    """
    prompt = prompts.get(row["prompt"])
    if prompt is None:
        raise bad(where, "prompt", "must be one of --checkpoint_prompts", row["prompt"])
    asked = AnswersRow(where, prompt, [row["response"]], [row["finished"]])
    (answer,) = answers_of(asked, prompt, grader)
    kl, known = row.get("kl"), row.get("score")
    if known is None and score is not None:
        (known,) = score([answer])
    return Measured(
        math.nan if kl is None else kl, math.nan if known is None else known, answer.utility
    )


def prompts_by_text(path: str) -> dict[str, Prompt]:
    """Text of a prompt -> the prompt."""
    parsed = (one for item in read_file(Path(path)) for one in parse_item(item, "prompt"))
    return {one.row.prompt.text: one.row.prompt for one in parsed}


def validations(run: str) -> list[dict[str, Any]]:
    """The metrics of each validation of a run, which it remembers whatever interrupts it."""
    path = Path(run, "metrics.json")
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["validations"]
        return [{"step": row["step"], **row} for row in rows]
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such file (--runs and --checkpoints must name folders of finished runs)"
        ) from None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path}: must be the metrics.json that `fit` writes") from None


def validation_curves(run: str) -> Curves:
    """Metrics of the validations of a run as curves."""
    curves: Curves = {}
    for row in validations(run):
        for name, value in row.items():
            if name in SHOWN and name.startswith("val/") and value is not None:
                curves.setdefault(name, []).append((row["step"], value))
    return {name: thin(curve) for name, curve in curves.items()}


def event_curves(run: str, wanted: Collection[str] | None = SHOWN) -> Curves:
    """Metrics in the TensorBoard files of a run; a run that was killed may lack some points.

    Args:
        run: folder of the run.
        wanted: their names; None for all.
    """
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    curves: Curves = {}
    for path in sorted(Path(run).glob("events.out.tfevents.*")):
        events = EventAccumulator(str(path), size_guidance={"scalars": 0})
        events.Reload()
        for name in events.Tags()["scalars"]:
            if wanted is None or name in wanted:
                points = [(event.step, event.value) for event in events.Scalars(name)]
                curves[name] = curves.get(name, []) + points
    return {name: thin(latest(curve)) for name, curve in curves.items()}


def latest(curve: Curve) -> Curve:
    """Points in order of steps; of several at one step, which a resumed run leaves, the last.

    >>> latest([(1, 0.5), (2, 0.4), (1, 0.3)])
    [(1, 0.3), (2, 0.4)]
    """
    points = {step: value for step, value in curve if math.isfinite(value)}
    return [(step, points[step]) for step in sorted(points)]


def thin(curve: Curve) -> Curve:
    """At most ``POINTS`` points, evenly chosen, the first and the last among them."""
    if len(curve) <= POINTS:
        return curve
    chosen = np.linspace(0, len(curve) - 1, POINTS).round().astype(int)
    return [curve[i] for i in chosen]
