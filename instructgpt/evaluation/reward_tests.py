"""A reward model against rankings it has not seen, and as the one who chooses the best of n."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from instructgpt.data.files import read_file
from instructgpt.data.formats import Row, parse_item
from instructgpt.data.order import text_hash
from instructgpt.data.sketch import read_sketch, share_among, sketch
from instructgpt.evaluation.answers import (
    Grader,
    answers_of,
    finished_of,
    knowing,
    read_answers,
)
from instructgpt.evaluation.bag_of_words import read_bag
from instructgpt.evaluation.best_of_n import best_of_n
from instructgpt.evaluation.files import read_json
from instructgpt.evaluation.independence import training_sets
from instructgpt.evaluation.judges import Answer, Judge
from instructgpt.evaluation.records import from_json
from instructgpt.evaluation.results import Agreement, BestOf, RewardModel
from instructgpt.evaluation.reward_accuracy import (
    Ranked,
    accuracy,
    cross_validation,
    of_group,
    reward_model_results,
)
from instructgpt.evaluation.scoring import Scorer
from instructgpt.models.artefact import read_artefact
from instructgpt.terminal import note
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
    rows: list[tuple[Row, list[Answer]]],
    scorer: Scorer,
    panels: str | None,
    folds: dict[str, str],
    seed: int,
) -> RewardModel:
    """Accuracy by group of labelers, calibration, ceilings, cross-validation.

    Args:
        rows: rankings; ``source`` is the group of the labeler.
        scorer: the reward model.
        panels: path of ``panels.json``.
        folds: number of a fold -> its reward model.
        seed: of the bootstrap.
    """
    results = on_rankings(rows, scorer, seed)
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


def on_rankings(rows: list[tuple[Row, list[Answer]]], scorer: Scorer, seed: int) -> RewardModel:
    """Accuracy by group beside that of what is cheaper, and calibration.

    Args:
        rows: rankings.
        scorer: the reward model; the bag of words that its fit has left beside it is asked, too.
        seed: of the bootstrap.
    """
    tell_seen(rows, scorer)
    found = ranked(rows, scorer)
    results = reward_model_results(found, TRAINING, seed)
    bag = read_bag(scorer.reward.init_from)
    if bag is None:
        return results
    bagged = [
        one._replace(scores=bag.scores(row.responses))
        for one, (row, _) in zip(found, rows, strict=True)
    ]
    shares = {group: accuracy(of_group(bagged, group), seed) for group in results.accuracy}
    return replace(results, bag_of_words=shares)


def tell_seen(rows: list[tuple[Row, list[Answer]]], scorer: Scorer) -> None:
    """Warn of rankings of prompts that the reward model was trained on, as far as it is known."""
    about = read_artefact(scorer.reward.init_from)
    asked = sketch([text_hash(key) for key in dict.fromkeys(row.key for row, _ in rows)])
    for one in training_sets(about) if about is not None else []:
        known = read_sketch(one.get("prompts"))
        share = None if known is None else share_among(asked, known)
        if share is not None and share[0]:
            less = "" if share[1] == asked.distinct else "about "
            number = f"{less}{asked.distinct * share[0]:,.0f} of the {asked.distinct:,} prompts"
            note(f"{number} of --comparisons are among those that {scorer.option} was trained on")


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
            if grader is not None and grader.knows(row.prompt):
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
    return [one_ranked(row, answers, scorer) for row, answers in rows]


def one_ranked(row: Row, answers: list[Answer], scorer: Scorer) -> Ranked:
    """A ranking with a reward model's scores."""
    found = scorer.each(answers)
    return Ranked(
        row.key,
        row.source,
        row.labeler,
        np.array(row.ranking),
        np.array([one.score for one in found]),
        np.array([float(scorer.length(answer)) for answer in answers]),
        np.array([answer.utility for answer in answers]),
        np.array([one.heads for one in found]) if scorer.heads > 1 else None,
    )


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
