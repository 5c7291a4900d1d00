"""How wide a band is: mean ± k·sd of some runs, and what that promises of a new run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from instructgpt.callbacks.bands import DIGITS, Band

COVERAGE = 0.95
"""Of new runs, which shall stay inside everywhere."""
MOST_SD = 6.0
"""On each side; a band of more says nothing."""
LEAST_OF_ALL = 0.5
"""Of the sd over all places together, at any place."""
LEAST_SHARE = 0.005
"""Of the largest value, as an sd."""
MOST_KNOTS = 12
FAR = 1.0
"""In sd, from a line between knots, where there must be one more knot."""
ONLY = 0.01
"""Of a run or of a step, before a place that is the only one: two knots make a line."""
Points = list[tuple[float, float]]
"""Of a metric: the share of the run or the steps that were done, the value."""


def inside_t(t: float, freedom: int) -> float:
    """The probability that Student's t lies between -t and t (Abramowitz & Stegun, 26.7.3 and 4).

    Args:
        t: at least 0.
        freedom: degrees of it.

    Examples:
        >>> [round(inside_t(t, n), 4) for t, n in ((12.706, 1), (4.303, 2), (3.182, 3), (2.571, 5))]
        [0.95, 0.95, 0.95, 0.95]
    """
    angle = math.atan(t / math.sqrt(freedom))
    sine, square = math.sin(angle), math.cos(angle) ** 2
    odd = freedom % 2
    term = math.cos(angle) if odd else 1.0
    total = 0.0
    for k in range(1 + odd, freedom, 2):
        total += term
        term *= square * k / (k + 1)
    total += 0.0 if odd or freedom > 1 else term
    return (angle + sine * total) * 2 / math.pi if odd else sine * total


def factor(runs: int, places: int) -> float:
    """How many sd a band is wide on each side, before it is cut at ``MOST_SD``.

    Args:
        runs: that the mean and the sd are from.
        places: at which a new run is judged.

    Examples:
        >>> round(factor(6, 1), 2)  # 2.571 of Student's t with 5 degrees, times the root of 7/6
        2.78
    """
    wanted, low, high = 1 - (1 - COVERAGE) / places, 0.0, 1e9
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if inside_t(middle, runs - 1) < wanted else (low, middle)
    return high * math.sqrt(1 + 1 / runs)


class Chance(NamedTuple):
    """What is to be expected of a new run."""

    k: float
    at_one_place: float
    everywhere: float  # at least


def chance(runs: int, places: int) -> Chance:
    """The factor that is used, and what it promises.

    Args:
        runs: that the bands are from.
        places: at which a new run is judged.

    Examples:
        >>> [round(number, 3) for number in chance(2, 20)]
        [6.0, 0.872, 0.0]
    """
    k = min(MOST_SD, factor(runs, places))
    one = inside_t(k / math.sqrt(1 + 1 / runs), runs - 1)
    return Chance(k, one, max(0.0, 1 - places * (1 - one)))


def on_one_grid(curves: Sequence[Points]) -> tuple[np.ndarray, np.ndarray]:
    """Places [P] of the run with the fewest points, values [n, P] of all at the nearest places.

    Args:
        curves: of one metric, one of each run.
    """
    grid = np.array([place for place, _ in min(curves, key=len)])
    rows = []
    for curve in curves:
        places, values = np.array(curve).T
        rows.append(values[np.abs(places[None] - grid[:, None]).argmin(1)])
    return grid, np.array(rows)


def spread(values: np.ndarray) -> np.ndarray:
    """The sd between runs at each place [P].

    Args:
        values: [n, P].
    """
    variance = values.var(0, ddof=1)
    reach = max(1, len(variance) // 8)
    near = [variance[max(0, i - reach) : i + reach + 1].mean() for i in range(len(variance))]
    least = max(LEAST_OF_ALL * variance.mean() ** 0.5, LEAST_SHARE * np.abs(values).max(), 1e-6)
    return np.maximum(np.sqrt(near), least)


def smooth(values: np.ndarray) -> np.ndarray:
    """Values without the noise of single places: parabolas through those near each [P].

    Args:
        values: [P]; fewer than 20 stay as they are.
    """
    reach, places = len(values) // 20, np.arange(len(values))
    if not reach:
        return values
    near = [slice(max(0, i - 2 * reach), i + 2 * reach + 1) for i in places]
    return np.array([np.polyfit(places[n] - i, values[n], 2)[-1] for i, n in enumerate(near)])


def band_of(curves: Sequence[Points], k: float, from_0_to_1: bool = False) -> Band:
    """Mean ± k·sd on as few knots as say it.

    Args:
        curves: of one metric, one of each run.
        k: how many sd.
        from_0_to_1: the metric has no other values.
    """
    grid, values = on_one_grid(curves)
    mean, sd = values.mean(0), spread(values)
    even = smooth(mean)
    mean = np.where(np.abs(even - mean) > sd, mean, even)  # a bend is no noise
    low, high = mean - k * sd, mean + k * sd
    if from_0_to_1:
        low, high = low.clip(0, 1), high.clip(0, 1)
    knots = sorted({0, len(grid) - 1})
    while len(knots) < min(MOST_KNOTS, len(grid)):
        lines = [np.interp(grid, grid[knots], side[knots]) for side in (low, high)]
        off = np.maximum(np.abs(lines[0] - low), np.abs(lines[1] - high)) / sd
        if off.max() <= FAR:
            break
        knots = sorted({*knots, int(off.argmax())})
    at = [round(float(place), DIGITS) for place in grid[knots]]
    sides = [[rounded(value) for value in side[knots]] for side in (low, high)]
    if len(at) == 1:  # such as a single validation, at the end
        at, sides = [round(at[0] - ONLY, DIGITS), *at], [side * 2 for side in sides]
    return Band(at, *sides)


def rounded(value: float) -> float:
    """With few digits."""
    return float(f"{value:.{DIGITS}g}")
