"""What is measured on the answers of several models to the same prompts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations, permutations
from typing import Any, NamedTuple

import numpy as np

from instructgpt.evaluation.judges import Answer, Judge
from instructgpt.evaluation.length_control import length_controlled
from instructgpt.evaluation.results import Difference, ShowingOrder, Table, WinRate
from instructgpt.evaluation.statistics import (
    Array,
    Estimate,
    by_cluster,
    interval,
    mean,
    rate,
    ratio,
    ratio_draws,
)
from instructgpt.evaluation.win_rates import Compared, compare_models
from instructgpt.types import Prompt


class Question(NamedTuple):
    """A prompt that every model has answered."""

    id: str
    prompt: Prompt  # as the baseline was asked; a prompted model may have seen more
    category: str  # use case
    group: str  # the set it belongs to


class Answers(NamedTuple):
    """The answers of models to questions: one list of responses for each model and question."""

    questions: list[Question]
    by_model: dict[str, list[list[Answer]]]

    def of(self, *groups: str) -> Answers:
        """Those to the questions of some sets."""
        return self.where([question.group in groups for question in self.questions])

    def where(self, kept: Sequence[bool]) -> Answers:
        """Those to some questions."""

        def chosen(rows: list[Any]) -> list[Any]:
            return [row for row, keep in zip(rows, kept, strict=True) if keep]

        models = {model: chosen(rows) for model, rows in self.by_model.items()}
        return Answers(chosen(self.questions), models)


Values = dict[str, Array]
"""Model -> one number a question; NaN where the measure does not apply."""


def values(answers: Answers, measure: Callable[[Answer], float | bool | None]) -> Values:
    """A measure of each question's responses, averaged; NaN where it is None.

    Args:
        answers: of the models.
        measure: of one response.
    """

    def one(responses: list[Answer]) -> float:
        found = [measure(response) for response in responses]
        return float(np.mean([np.nan if value is None else float(value) for value in found]))

    return {
        model: np.array([one(responses) for responses in rows])
        for model, rows in answers.by_model.items()
    }


def estimates(found: Values, seed: int, share: bool = True) -> dict[str, Estimate]:
    """Means over the questions to which the measure applies; none where there are none.

    Args:
        found: values by model.
        seed: of the bootstrap.
        share: a number is how often something is so, not how good it is.
    """
    result = {}
    for model, numbers in found.items():
        real = numbers[~np.isnan(numbers)]
        if len(real):
            binary = share and bool(np.isin(real, (0, 1)).all())
            result[model] = rate(list(real)) if binary else mean(real, seed)
    return result


def differences(found: Values, seed: int) -> list[Difference]:
    """Later minus earlier model, for every two, paired by question.

    Args:
        found: values by model, in order.
        seed: of the bootstrap.
    """
    rows = []
    for earlier, later in combinations(found, 2):
        difference = found[later] - found[earlier]
        difference = difference[~np.isnan(difference)]
        if len(difference):
            rows.append(Difference(later, earlier, *mean(difference, seed)[:4]))
    return rows


class WinRates(NamedTuple):
    """Rows of win rates, differences between those over the baseline, and what order did."""

    rows: list[WinRate]
    differences: list[Difference]
    orders: list[ShowingOrder]


def win_rates(
    answers: Answers, judges: Mapping[str, Judge], baseline: str, decoding: str, seed: int
) -> WinRates:
    """Every model against the baseline, then every other two, later against earlier.

    Args:
        answers: of the models.
        judges: by name.
        baseline: model to compare with.
        decoding: name of how the answers were sampled.
        seed: of the bootstrap.
    """
    others = [model for model in answers.by_model if model != baseline]
    pairs = [(model, baseline) for model in others]
    pairs += [(later, earlier) for earlier, later in combinations(others, 2)]
    result = WinRates([], [], [])
    for name, judge in judges.items():
        found = {
            (model, against): compare_models(
                judge, answers.by_model[model], answers.by_model[against], seed
            )
            for model, against in pairs
        }
        wins = {model: found[model, baseline].wins for model in others}
        for (model, against), one in found.items():
            rest = [wins[m] for m in others if m != model] if against == baseline else []
            level = length_controlled(one.pairs, one.rate.n, seed, difficulty(rest, one.wins))
            result.rows.append(WinRate(model, against, name, decoding, *one.rate, level))
        for row in differences(wins, seed):
            result.differences.append(row._replace(judge=name, decoding=decoding))
        if judge.sees_both:
            result.orders.append(showing_order(name, decoding, list(found.values()), seed))
    return result


def difficulty(rest: Sequence[Array], wins: Array) -> Array | None:
    """How often other models beat the baseline on each prompt; None where there are no two.

    Args:
        rest: their wins, NaN where nothing is known.
        wins: those of the model itself: prompts where nothing is known of it are left out.
    """
    if len(rest) < 2:
        return None
    table = np.array(rest)[:, ~np.isnan(wins)]
    known = ~np.isnan(table)
    sums, counts = np.where(known, table, 0).sum(0), known.sum(0)
    middle = sums.sum() / max(1, counts.sum())
    means: Array = np.where(counts > 0, sums / np.maximum(counts, 1), middle)
    return means


def showing_order(name: str, decoding: str, found: Sequence[Compared], seed: int) -> ShowingOrder:
    """What the order of two answers did to the verdicts, over all pairs of models.

    Args:
        name: of the judge.
        decoding: name of how the answers were sampled.
        found: what the judge said of each two models.
        seed: of the bootstrap.
    """
    owner = np.concatenate([one.owner for one in found])
    first, flips, wins = (
        np.concatenate([getattr(one.outcomes, part) for one in found])
        for part in ("shown_first", "flips", "wins")
    )
    seen = ~np.isnan(first)
    counts = np.bincount(owner, seen)
    first_won, flipped = (
        ratio(np.bincount(owner[seen], part[seen], len(counts)), counts, seed)
        for part in (first, flips)
    )
    return ShowingOrder(name, decoding, first_won, flipped, int(np.isnan(wins).sum()))


def metadata(name: str) -> Callable[[Answer], bool | None]:
    """Reads a property of a response that may not apply to it."""
    return lambda answer: answer.metadata.get(name)


def turned(found: Mapping[str, Mapping[str, Estimate]]) -> Table:
    """Outer -> inner -> estimate as inner -> outer -> estimate, such as model -> measure."""
    result: Table = {}
    for outer, estimates_of in found.items():
        for inner, estimate in estimates_of.items():
            result.setdefault(inner, {})[outer] = estimate
    return result


def times(
    found: Values, factor: float, seed: int, clusters: Sequence[str] | None = None
) -> list[Difference]:
    """One model minus so many times the other, for every ordered two, paired by question.

    Args:
        found: values by model; where the measure does not apply it counts as 0.
        factor: of the other model.
        seed: of the bootstrap.
        clusters: of the questions; those of one cluster are resampled together, and ``n`` is the
            number of clusters. Default: each is its own.
    """
    rows = []
    for against, model in permutations(found, 2):
        gain = np.nan_to_num(found[model]) - factor * np.nan_to_num(found[against])
        names = clusters or [str(i) for i in range(len(gain))]
        part = ratio_draws(*by_cluster(gain, names), seed)
        limits = interval(part.resampled)
        rows.append(Difference(model, against, float(part.value), *limits, len(set(names))))
    return rows
