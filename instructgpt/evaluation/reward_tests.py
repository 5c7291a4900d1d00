"""A reward model against rankings it has not seen, and as the one who chooses the best of n."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from instructgpt.data.files import read_file
from instructgpt.data.formats import Row, parse_item
from instructgpt.evaluation.answers import (
    Grader,
    answers_of,
    finished_of,
    knowing,
    read_answers,
)
from instructgpt.evaluation.best_of_n import best_of_n
from instructgpt.evaluation.files import read_json
from instructgpt.evaluation.judges import Answer, Judge
from instructgpt.evaluation.records import from_json
from instructgpt.evaluation.results import Agreement, BestOf, RewardModel
from instructgpt.evaluation.reward_accuracy import (
    Ranked,
    cross_validation,
    of_group,
    reward_model_results,
)
from instructgpt.evaluation.scoring import Scorer
from instructgpt.types import UserError

TRAINING = "training"


def agreement(path: str) -> dict[str, Agreement]:
    """What ``label`` has measured of each group of labelers."""
    return {
        name: from_json(Agreement, group["agreement"], f"{path}: {name}.agreement")
        for name, group in read_json(path)["panels"].items()
        if "agreement" in group
    }


def check_reward_model(
    scorer: Scorer,
    comparisons: str,
    panels: str | None,
    folds: dict[str, str],
    grader: Grader | None,
    seed: int,
) -> RewardModel:
    """Accuracy by group of labelers, calibration, ceilings, cross-validation.

    Args:
        scorer: the reward model.
        comparisons: rankings; ``source`` is the group of the labeler.
        panels: path of ``panels.json``.
        folds: number of a fold -> its reward model.
        grader: knows some prompts.
        seed: of the bootstrap.
    """
    rows = read_rankings(comparisons, grader)
    results = reward_model_results(ranked(rows, scorer), TRAINING, seed)
    about = read_json(panels) if panels else {"panels": {}}
    groups = {row.source for row, _ in rows}
    ceilings = {
        n: g["ceiling"] for n, g in about["panels"].items() if n in groups and "ceiling" in g
    }
    parts = []
    for number, folder in folds.items():
        left_out = labelers_of(about, number, str(panels))
        scored = ranked(rows, Scorer(folder))
        parts.append((of_group(scored, TRAINING), left_out))
    crossed = cross_validation(parts, seed) if parts else None
    return replace(results, ceiling=ceilings, cross_validation=crossed)


def labelers_of(about: dict[str, Any], number: str, path: str) -> list[str]:
    """Names of the labelers whom a fold leaves out."""
    folds = about.get("folds") or []
    if not number.isdigit() or int(number) >= len(folds):
        raise UserError(
            f"--folds.{number}: must be the number of a fold in {path}, which has {len(folds)}"
        )
    return [str(name) for name in folds[int(number)]["labelers"]]


def read_rankings(path: str, grader: Grader | None) -> list[tuple[Row, list[Answer]]]:
    """Rankings with their responses, graded where the grader knows the prompt."""
    found = []
    graded: dict[tuple[str, tuple[str, ...]], list[Answer]] = {}  # many labelers rank the same
    items = read_file(Path(path))
    rows: list[Row] = [one.row for item in items for one in parse_item(item, "comparison")]
    for row in rows:
        key = row.prompt.text, tuple(row.responses)
        if key not in graded:
            # Scored with their end, as the reward model has read comparisons in training.
            answers = [
                Answer(row.prompt, text, True, {}, {}, float("nan")) for text in row.responses
            ]
            if grader is not None and "meta" in row.prompt.meta:
                ended = finished_of(row.where, row.prompt.meta, len(row.responses))
                grades = grader.grade(row.where, row.prompt, row.responses, ended)
                utilities = [one.utility for one in grades]
                answers = [
                    one._replace(utility=value)
                    for one, value in zip(answers, utilities, strict=True)
                ]
            graded[key] = answers
        found.append((row, graded[key]))
    return found


def ranked(rows: list[tuple[Row, list[Answer]]], scorer: Scorer) -> list[Ranked]:
    """The rankings with a reward model's scores."""
    scorer([answer for _, answers in rows for answer in answers])  # all at once
    return [
        Ranked(
            row.key,
            row.source,
            row.labeler,
            np.array(row.ranking),
            np.array(scorer(answers)),
            np.array([float(scorer.length(answer)) for answer in answers]),
            np.array([answer.utility for answer in answers]),
        )
        for row, answers in rows
    ]


def best_of_samples(
    path: str, scorer: Scorer, judge: Judge | None, grader: Grader | None, seed: int
) -> list[BestOf]:
    """Best-of-n by the reward model.

    Args:
        path: answers rows with N responses.
        scorer: the reward model.
        judge: of the win rate over one sample.
        grader: knows all prompts, or none of them.
        seed: of the bootstrap.
    """
    rows = read_answers(path, least=2)
    count = len(rows[0].responses)
    for row in rows:
        if len(row.responses) != count:
            raise UserError(
                f'{row.where}: "responses" must be {count} as in {rows[0].where}, '
                f"got {len(row.responses)}"
            )
    known = knowing(grader, rows)
    answers = [answers_of(row, row.prompt, known) for row in rows]
    flat = scorer.each([answer for one in answers for answer in one])
    scores, apart = (
        np.array(values).reshape(-1, count).tolist()
        for values in ([one.score for one in flat], [one.disagreement for one in flat])
    )
    judge = None if known is None else judge
    return best_of_n(answers, scores, judge, seed, apart if scorer.heads > 1 else None)
