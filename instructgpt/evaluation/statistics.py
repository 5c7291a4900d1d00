"""Intervals for what is estimated from a sample."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from instructgpt.functional.intervals import share_interval

Array = NDArray[np.float64]

RESAMPLES = 2000


class Estimate(NamedTuple):
    """A value, its 95 % interval, and from how many it was computed."""

    value: float
    low: float
    high: float
    n: int
    facts: int | None = None  # that the cases are about, where these were resampled


class Draws(NamedTuple):
    """A statistic of the sample and of its bootstrap resamples."""

    value: Array  # [...]
    resampled: Array  # [RESAMPLES, ...]


@lru_cache(maxsize=32)
def resampling(count: int, seed: int) -> Array:
    """How often each of ``count`` units is in each resample, [RESAMPLES, count].

    Estimates over the same units share their resamples, so their differences are paired.
    """
    rng = np.random.default_rng([seed, count])
    drawn = rng.multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    return drawn.astype(np.float64)


def draws(values: ArrayLike, seed: int = 0) -> Draws:
    """The mean over units, and the means of resamples of them.

    Args:
        values: one row a unit, [n] or [n, ...].
        seed: of the resampling.
    """
    array = np.asarray(values, dtype=np.float64)
    weights = resampling(len(array), seed) / len(array)
    return Draws(array.mean(0), np.tensordot(weights, array, 1))


def interval(resampled: Array) -> tuple[float, float]:
    """The percentile interval, 95 %; resamples in which the statistic does not exist are left out.

    >>> interval(np.arange(1001.0))
    (25.0, 975.0)
    """
    if np.isnan(resampled).all():
        return float("nan"), float("nan")
    low, high = np.nanpercentile(resampled, [2.5, 97.5])
    return float(low), float(high)


def mean(values: ArrayLike, seed: int = 0) -> Estimate:
    """The mean over independent units, such as prompts, with a bootstrap interval.

    Args:
        values: one number a unit.
        seed: of the resampling.
    """
    found = draws(values, seed)
    return Estimate(float(found.value), *interval(found.resampled), len(np.asarray(values)))


def rate(values: Sequence[float] | Sequence[bool]) -> Estimate:
    """The share of units for which something is true, with Wilson's interval.

    The bootstrap would claim certainty where nothing, or everything, is true.

    >>> rate([False] * 100).high > 0.03
    True
    """
    share = float(np.mean(np.asarray(values, dtype=np.float64)))
    return Estimate(share, *share_interval(share, len(values)), len(values))


def ratio_draws(numerators: ArrayLike, denominators: ArrayLike, seed: int = 0) -> Draws:
    """Sum over sum, and the same of resamples of the units.

    Args:
        numerators: one row a unit, [n] or [n, ...].
        denominators: one number a unit.
        seed: of the resampling.
    """
    above = np.asarray(numerators, dtype=np.float64)
    below = np.asarray(denominators, dtype=np.float64)
    weights = resampling(len(above), seed)
    sums, counts = np.tensordot(weights, above, 1), weights @ below
    with np.errstate(invalid="ignore", divide="ignore"):
        resampled = (sums.T / counts).T
        return Draws(above.sum(0) / below.sum(), resampled)


def ratio(numerators: ArrayLike, denominators: ArrayLike, seed: int = 0) -> Estimate:
    """Share of cases, with units resampled as wholes: for pairs that share a prompt, for instance.

    Where no case counts, or every one, the bootstrap would claim certainty; the interval is then
    Wilson's, of as many as there are units.

    Args:
        numerators: how many of a unit's cases count.
        denominators: cases of a unit; their sum is the ``n`` of the estimate.
        seed: of the resampling.

    Example:
        >>> ratio([3, 0], [4, 1]).value
        0.6
    """
    found = ratio_draws(numerators, denominators, seed)
    below, value = np.asarray(denominators, dtype=np.float64), float(found.value)
    if value in (0, 1):
        limits = share_interval(value, int(np.count_nonzero(below)))
    else:
        limits = interval(found.resampled)
    return Estimate(value, *limits, round(float(below.sum())))


def by_cluster(values: ArrayLike, clusters: Sequence[str]) -> tuple[Array, Array]:
    """Sums of values over each cluster, and how many there are in it.

    Args:
        values: one row a prompt, [n] or [n, ...].
        clusters: name of each one's cluster.
    """
    array = np.asarray(values, dtype=np.float64)
    _, index = np.unique(np.asarray(clusters), return_inverse=True)
    sums = np.zeros((int(index.max()) + 1, *array.shape[1:]))
    np.add.at(sums, index, array)
    return sums, np.bincount(index).astype(np.float64)


def clustered(values: Sequence[float], clusters: Sequence[str], seed: int = 0) -> Estimate:
    """The share of prompts that are independent only between clusters, such as those on one fact.

    Args:
        values: one number from 0 to 1 a prompt.
        clusters: name of each one's cluster.
        seed: of the resampling.
    """
    return ratio(*by_cluster(values, clusters), seed)
