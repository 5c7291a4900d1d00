"""How well a reward model predicts choices of labelers whom it has seen, and of others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from instructgpt.evaluation.results import Bin, CrossValidation, Fold, RewardModel
from instructgpt.evaluation.statistics import Array, Estimate, interval, ratio, ratio_draws
from instructgpt.functional.ranking import bin_of, calibration_error


class Ranked(NamedTuple):
    """One labeler's ranking of the responses to one prompt."""

    prompt: str  # what tells it from others
    group: str  # of the labeler
    labeler: str
    ranking: Array  # [K] 1 = best, equal = tie
    scores: Array  # [K] of the reward model
    lengths: Array  # [K] tokens
    utilities: Array  # [K] NaN where nothing graded them
    heads: Array | None = None  # [K, H] what each head says; None: there is one


class Counts(NamedTuple):
    """Of the decided pairs of one ranking."""

    pairs: int
    right: float  # the winner has the higher score; an equal score counts half
    longer: float  # the winner is longer


def margins(row: Ranked) -> Array:
    """Score of the preferred minus score of the other response, for each decided pair."""
    winners, losers = (row.ranking[:, None] < row.ranking[None, :]).nonzero()
    return row.scores[winners] - row.scores[losers]


def _half(difference: Array) -> float:
    return float((difference > 0).sum() + 0.5 * (difference == 0).sum())


def counts(row: Ranked) -> Counts:
    """Count the decided pairs of a ranking and what they say."""
    winners, losers = (row.ranking[:, None] < row.ranking[None, :]).nonzero()
    longer = _half(row.lengths[winners] - row.lengths[losers])
    return Counts(len(winners), _half(margins(row)), longer)


def share(rows: Sequence[Ranked], part: Callable[[Counts], float], seed: int) -> Estimate:
    """Share of decided pairs; all pairs of a prompt are resampled together.

    Args:
        rows: rankings.
        part: what is counted.
        seed: of the bootstrap.
    """
    prompts = list(dict.fromkeys(row.prompt for row in rows))
    return ratio(*sums(rows, part, prompts), seed)


def sums(
    rows: Sequence[Ranked],
    part: Callable[[Counts], float],
    prompts: Sequence[str],
    weights: Sequence[float] | None = None,
) -> tuple[Array, Array]:
    """How many decided pairs of each prompt count, and how many there are.

    Args:
        rows: rankings.
        part: what is counted.
        prompts: all that there are; one without rankings has no pairs.
        weights: of the rankings, 1 unless given.
    """
    places = {name: i for i, name in enumerate(prompts)}
    above, below = np.zeros(len(prompts)), np.zeros(len(prompts))
    for row, weight in zip(rows, weights or [1.0] * len(rows), strict=True):
        found = counts(row)
        above[places[row.prompt]] += weight * part(found)
        below[places[row.prompt]] += weight * found.pairs
    return above, below


def accuracy(rows: Sequence[Ranked], seed: int) -> Estimate:
    """Share of decided pairs in which the winner has the higher score."""
    return share(rows, lambda found: found.right, seed)


def of_group(rows: Sequence[Ranked], group: str) -> list[Ranked]:
    """The rankings of one group of labelers."""
    return [row for row in rows if row.group == group]


def ground_truth_accuracy(rows: Sequence[Ranked], seed: int) -> Estimate | None:
    """Share of pairs with different utility in which the better one has the higher score."""
    once = {row.prompt: row for row in rows if not np.isnan(row.utilities).any()}
    if not once:
        return None
    true = [row._replace(ranking=-row.utilities) for row in once.values()]
    return accuracy(true, seed)


def reward_model_results(rows: Sequence[Ranked], training: str, seed: int) -> RewardModel:
    """Accuracy and calibration by group of labelers; reliability on the training group.

    Args:
        rows: rankings with the scores of one reward model.
        training: name of the group whose taste it has learned.
        seed: of the bootstrap.
    """
    groups = {row.group: of_group(rows, row.group) for row in rows}
    chosen = groups[training] if training in groups else next(iter(groups.values()))
    found = [margins(row) for row in chosen]
    pairs = torch.from_numpy(np.concatenate(found)).float()
    owners = np.repeat([row.prompt for row in chosen], [len(one) for one in found])
    return RewardModel(
        accuracy={group: accuracy(own, seed) for group, own in groups.items()},
        longer_wins={
            group: share(own, lambda found: found.longer, seed) for group, own in groups.items()
        },
        calibration={
            group: float(calibration_error(torch.from_numpy(decided).float()))
            for group, own in groups.items()
            if len(decided := np.concatenate([margins(row) for row in own]))
        },
        disagreement=disagreement(groups, seed),
        ground_truth_accuracy=ground_truth_accuracy(rows, seed),
        calibration_error=float(calibration_error(pairs)),
        calibration_prompts=len(np.unique(owners)),
        reliability=reliability(pairs, owners, seed),
    )


def disagreement(groups: Mapping[str, Sequence[Ranked]], seed: int) -> dict[str, Estimate]:
    """How far heads are apart about the margin of a decided pair, on average; none with one head.

    Args:
        groups: rankings by group of labelers.
        seed: of the bootstrap.
    """
    found = {}
    for group, rows in groups.items():
        if all(row.heads is not None for row in rows):
            places = {name: i for i, name in enumerate(dict.fromkeys(row.prompt for row in rows))}
            above, below = np.zeros(len(places)), np.zeros(len(places))
            for row in rows:
                apart = margin_spread(row)
                above[places[row.prompt]] += apart.sum()
                below[places[row.prompt]] += len(apart)
            drawn = ratio_draws(above, below, seed)
            limits = interval(drawn.resampled)
            found[group] = Estimate(float(drawn.value), *limits, int(below.sum()))
    return found


def margin_spread(row: Ranked) -> Array:
    """Standard deviation over the heads of the margin of each decided pair; their zeros cancel."""
    assert row.heads is not None
    winners, losers = (row.ranking[:, None] < row.ranking[None, :]).nonzero()
    apart: Array = (row.heads[winners] - row.heads[losers]).std(1)
    return apart


def reliability(pairs: Tensor, owners: NDArray[np.str_], seed: int) -> list[Bin]:
    """Accuracy by confidence; prompts are resampled as wholes.

    Args:
        pairs: margins of decided pairs.
        owners: prompt of each.
        seed: of the bootstrap.
    """
    confidence, place = pairs.abs().sigmoid().numpy(), bin_of(pairs).numpy()
    right = np.where(pairs.numpy() > 0, 1.0, np.where(pairs.numpy() == 0, 0.5, 0.0))
    bins = []
    for index in np.unique(place):
        inside = place == index
        _, units = np.unique(owners[inside], return_inverse=True)
        one = ratio(np.bincount(units, weights=right[inside]), np.bincount(units), seed)
        about = float(confidence[inside].mean()), one.value, one.low, one.high
        bins.append(Bin(*about, pairs=one.n, prompts=int(units.max()) + 1))
    return bins


def cross_validation(
    folds: Sequence[tuple[Sequence[Ranked], Collection[str]]], seed: int
) -> CrossValidation:
    """Accuracy on labelers whom a reward model has learned from, and on those left out.

    A ranking that several folds score counts once, with the mean of what they say. The difference
    is that of left out minus learned from, over the same resamples of prompts.

    Args:
        folds: the same rankings of all training labelers with the scores of each fold's reward
            model, and the names of those it was not trained on.
        seed: of the bootstrap.
    """
    learned, left = (
        [[i for i, row in enumerate(rows) if (row.labeler in out) == away] for rows, out in folds]
        for away in (False, True)
    )
    prompts = list(dict.fromkeys(row.prompt for rows, _ in folds for row in rows))
    sides = []
    for parts in (learned, left):
        times = Counter(i for part in parts for i in part)
        pooled = [
            (rows[i], 1 / times[i])
            for (rows, _), part in zip(folds, parts, strict=True)
            for i in part
        ]
        chosen, weights = [row for row, _ in pooled], [weight for _, weight in pooled]
        sides.append(sums(chosen, lambda one: one.right, prompts, weights))
    inner, outer = (ratio_draws(*side, seed) for side in sides)
    limits = interval(outer.resampled - inner.resampled)
    inside, outside = (ratio(*side, seed) for side in sides)
    difference = Estimate(float(outer.value - inner.value), *limits, len(prompts))
    scored = [
        Fold(*(accuracy([rows[i] for i in part], seed) for part in both))
        for (rows, _), *both in zip(folds, learned, left, strict=True)
    ]
    return CrossValidation(inside, outside, difference, scored)
