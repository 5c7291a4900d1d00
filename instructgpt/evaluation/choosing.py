"""Choosing among sampled responses what people shall rank."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan
from typing import Any, NamedTuple

import numpy as np

from instructgpt.evaluation.answers import AnswersRow, answers_of
from instructgpt.evaluation.scoring import Scorer
from instructgpt.feedback.acquire import Acquire
from instructgpt.feedback.acquisition import Array, acquire, check_acquire, standardised
from instructgpt.terminal import say
from instructgpt.types import UserError, require


class Rankable(NamedTuple):
    """A row to be ranked, and why it was chosen."""

    row: AnswersRow
    responses: list[str]  # those with words
    why: dict[str, Any]  # nothing where all are asked about


def rankable(rows: Sequence[AnswersRow]) -> list[Rankable]:
    """Rows with two different responses that have words."""
    found = [Rankable(row, [text for text in row.responses if text.strip()], {}) for row in rows]
    return [one for one in found if len(set(one.responses)) > 1]


def judges_of(how: Acquire, reward_model: str | None) -> list[Scorer]:
    """The reward models that choose.

    Args:
        how: to choose.
        reward_model: folder or hub id.
    """
    check_acquire(how)
    if how.by == "random":
        require(reward_model is None, "--reward_model", "left out at random", reward_model)
        return []
    if reward_model is None:
        raise UserError(f"--reward_model must be given with --choose.by {how.by}, got none")
    found = [Scorer(reward_model)]
    if how.against is not None:
        found.append(Scorer(how.against, "--choose.against"))
    elif how.by == "disagreement" and found[0].heads == 1:
        raise UserError(
            "--choose.by disagreement needs --choose.against, or a --reward_model with several "
            f"heads (--model.heads), got '{reward_model}', which has one"
        )
    return found


def choose(
    asked: list[Rankable], scorers: Sequence[Scorer], how: Acquire, seed: int
) -> list[Rankable]:
    """The rows that people shall rank, those that are worth most first; all where none is chosen.

    Args:
        asked: rows that can be ranked.
        scorers: reward models.
        how: to choose.
        seed: of random rows.
    """
    if how.rows is None:
        return asked
    said = opinions(asked, scorers) if scorers else None
    found = acquire(said, len(asked), how, seed)
    about = {"by": how.by, "among": len(asked)}
    values = [one.value for one in found if not isnan(one.value)]
    span = f" ({min(values):.4g} to {max(values):.4g})" if values else ""
    way = "at random" if how.by == "random" else f"by {how.by}"
    say(f"{len(found):,} of {len(asked):,} prompts are chosen {way}{span}")
    return [
        asked[one.number]._replace(
            why={"acquisition": about if isnan(one.value) else {**about, "value": one.value}}
        )
        for one in found
    ]


def opinions(asked: Sequence[Rankable], scorers: Sequence[Scorer]) -> list[Array]:
    """What the heads of one reward model, or two models, say of the different responses, [K, H].

    Args:
        asked: rows.
        scorers: one or two.
    """
    rows = []
    for one in asked:
        answers = answers_of(one.row, one.row.prompt, None)
        rows.append(list({a.text: a for a in answers if a.text.strip()}.values()))
    every = [answer for row in rows for answer in row]
    for scorer in scorers:
        scorer(every)  # all at once
    if len(scorers) > 1:
        return standardised([[np.array(scorer(row)) for row in rows] for scorer in scorers])
    found = [[(one.heads or (one.score,)) for one in scorers[0].each(row)] for row in rows]
    return [np.array(one) for one in found]
