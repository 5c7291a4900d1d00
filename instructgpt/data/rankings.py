"""What rows say about which response is better."""

from __future__ import annotations

import math
from fractions import Fraction

from instructgpt.data.checks import missing
from instructgpt.data.columns import Columns
from instructgpt.data.errors import bad
from instructgpt.data.numbers import number_of

SCORES = ("score", "rating", "reward", "grade")
"""A column of pairs with one of these words and "chosen" or "rejected" in its name is a score."""

SAME_SCORE = "with equal scores: a tie"
SAME_TEXT = "with the same text twice: a tie"
REVERSED = "warning: whose scores contradict the ranking, which counts"
CONTRADICTED = "warning: that rank one text twice, around others: it gets its mean rank"


def pair_ranking(columns: Columns) -> list[int]:
    """The ranking of ``chosen`` and ``rejected``: a tie where their scores are equal."""
    lead = _lead(columns)
    if lead is None or lead > 0:
        return [1, 2]
    columns.notes.append(REVERSED if lead < 0 else SAME_SCORE)
    return [1, 2] if lead < 0 else [1, 1]


def _lead(columns: Columns) -> float | None:
    """By how much ``chosen`` is better than ``rejected``, where a row says it."""
    for key in list(columns.row):
        other = key.replace("chosen", "rejected")
        scored = other != key and any(word in key for word in SCORES)
        if scored and columns.first(key) and columns.first(other):
            chosen, rejected = (number_of(columns, name, "score") for name in (key, other))
            return chosen - rejected
    return number_of(columns, "margin", "margin") if columns.first("margin") else None


def list_ranking(columns: Columns, count: int) -> list[int]:
    """The ranking of ``responses``, by ranks or else by ratings."""
    where, row = columns.where, columns.row
    ratings = columns.first("ratings", "scores")
    ranking = columns.take("ranking", "ranking")
    if ranking is None:
        columns.uses.pop("ranking")
        if not ratings:
            raise missing(where, row, "ranking")
        numbers = _ratings(columns, ratings, "ranking", count)
        return [1 + sum(other > number for other in numbers) for number in numbers]
    if not isinstance(ranking, list) or len(ranking) != count:
        raise bad(where, "ranking", f"must be a list of {count} ranks, one a response", ranking)
    for i, rank in enumerate(ranking):
        if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
            raise bad(where, f"ranking[{i}]", "must be an integer >= 1 (1 = best)", rank)
        if rank >= 2**63:  # a batch of rankings is a tensor
            raise bad(where, f"ranking[{i}]", "must be less than 2^63", rank)
    if ratings:
        numbers = _ratings(columns, ratings, "a check of the ranking", count)
        every = range(count)
        if any(ranking[i] < ranking[j] and numbers[i] < numbers[j] for i in every for j in every):
            columns.notes.append(REVERSED)
    return ranking


def _ratings(columns: Columns, key: str, use: str, count: int) -> list[float]:
    """One finite number a response, the higher the better."""
    where, ratings = columns.where, columns.take(key, use)
    if not isinstance(ratings, list) or len(ratings) != count:
        raise bad(where, key, f"must be a list of {count} numbers, one a response", ratings)
    for i, rating in enumerate(ratings):
        number = isinstance(rating, int | float) and not isinstance(rating, bool)
        # An integer of any size is finite; math.isfinite would make a float of it.
        if not number or (isinstance(rating, float) and not math.isfinite(rating)):
            raise bad(where, f"{key}[{i}]", "must be a finite number", rating)
    return ratings


def settle(responses: list[str], ranking: list[int], notes: list[str]) -> list[int]:
    """The ranking with equal texts tied, at the mean of their ranks.

    >>> settle(["a", "a ", "b"], [1, 2, 3], [])
    [1, 1, 3]

    Args:
        responses: texts, equal whatever the white space around them.
        ranking: 1 = best.
        notes: told what is tied.
    """
    ranks: dict[str, list[int]] = {}
    for text, rank in zip(responses, ranking, strict=True):
        ranks.setdefault(text.strip(), []).append(rank)
    if all(len(own) == 1 for own in ranks.values()):
        return ranking
    notes.append(SAME_TEXT)
    if all(len(set(own)) == 1 for own in ranks.values()):
        return ranking
    around = any(
        min(own) <= other <= max(own)
        for text, own in ranks.items()
        for name, others in ranks.items()
        for other in others
        if name != text and min(own) < max(own)
    )
    if around:
        notes.append(CONTRADICTED)
    means = {text: Fraction(sum(own), len(own)) for text, own in ranks.items()}
    merged = [means[text.strip()] for text in responses]
    return [1 + sum(other < mean for other in merged) for mean in merged]
