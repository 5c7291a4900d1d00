"""Win rates as they would be if both answers were of the same length."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from instructgpt.evaluation.statistics import Array, Estimate, interval, resampling
from instructgpt.functional.intervals import share_interval

RIDGE = 0.1
"""Half of this times a squared weight is added to the loss, a sum over prompts; not the model's.

Of 1, 0.1, 0.03 and 0.01 the one with the least error for a judge of nothing but length, on 60 and
500 prompts, half to 85 % of which have the longer answer from the same model.
"""

FIRM = 1e-6
"""The same for the weight of the model: so little that it bends no rate, but ends the search."""

LONGEST_STEP = 4.0
MOST_STEPS = 100
CLOSE = 1e-3
"""The last step of a resample is smaller: its rate is right to a fortieth of a percent."""

AT_ONCE = 200_000
"""Numbers of a table that is worked through at once: they fit into a cache."""


class JudgedPairs(NamedTuple):
    """Pairs of answers that a judge has compared."""

    owner: NDArray[np.int64]  # [M] number of the prompt; every prompt has a pair
    wins: Array  # [M] of the first answer; a tie counts half
    longer: Array  # [M] characters of the first answer minus those of the second


def length_controlled(
    pairs: JudgedPairs, prompts: int, seed: int, difficulty: Array | None = None
) -> Estimate | None:
    """The win rate at equal length, by the regression of AlpacaEval 2 (arXiv:2404.04475, eq. 2).

    The judge prefers the first answer with probability sigmoid(θ + φ tanh(Δ/s) + ψ d): θ is the
    model, Δ the difference of the lengths in characters, s its standard deviation, d how easily the
    baseline is beaten on this prompt. The rate is the mean over prompts with Δ = 0. Where length
    plays no part it is the plain rate; of models exchanged it is one minus itself.

    It differs from AlpacaEval's own: d is not a weight that was fitted to a leaderboard, but how
    often the other models of this evaluation beat the baseline; a fixed ridge on φ and ψ takes the
    place of a cross-validated L1; there are no answers of a model told to be brief or wordy to hold
    φ down by; both orders of showing are in the wins; the interval is a bootstrap over prompts.

    Args:
        pairs: of two models, of prompts that a judge had an opinion on.
        prompts: how many there are; each counts as much as another.
        seed: of the bootstrap.
        difficulty: d of each prompt, [prompts], if anything is known of it.

    Returns:
        None where one answer is always longer than the other by the same: then nothing tells what
        is length and what is the model.
    """
    owner = pairs.owner
    if not prompts or (np.ptp(pairs.longer) == 0 and pairs.longer[0] != 0):
        return None
    value = float(_by_prompt(pairs.wins, owner, prompts).mean())
    if value in (0, 1):  # whatever the lengths; the bootstrap would claim certainty
        return Estimate(value, *share_interval(value, prompts), prompts)
    columns = [np.ones(len(owner)), _standardised(pairs.longer)]
    if difficulty is not None and np.ptp(difficulty) > 0:
        centred = difficulty - difficulty.mean()
        columns.append((centred / centred.std())[owner])
    features = np.stack(columns, 1)
    shares = 1 / np.bincount(owner, minlength=prompts)[owner]
    whole = fit(features, pairs.wins, shares[None])
    (rate,) = _at_equal_length(whole, features, shares[None])
    times, alone = resampling(prompts, seed), len(owner) == prompts
    rows, drawn = max(1, AT_ONCE // len(owner)), []
    for start in range(0, len(times), rows):
        some = times[start : start + rows]
        weights = some if alone else some[:, owner] * shares
        found = fit(features, pairs.wins, weights, start=whole[0], tolerance=CLOSE)
        drawn.append(_at_equal_length(found, features, weights))
    return Estimate(float(rate), *interval(np.concatenate(drawn)), prompts)


def fit(
    features: Array,
    wins: Array,
    weights: Array,
    start: Array | None = None,
    tolerance: float = 1e-10,
) -> Array:
    """The likeliest weights of a logistic regression by Newton's method, for several weightings.

    Args:
        features: [M, P], the first a constant.
        wins: [M] probabilities from 0 to 1.
        weights: of the cases, [R, M].
        start: [P] where to begin.
        tolerance: on the last step.

    Returns:
        [R, P].
    """
    size = features.shape[1]
    ridge = np.full(size, RIDGE)
    ridge[0] = FIRM
    first = np.zeros(size) if start is None else start
    products = (features[:, :, None] * features[:, None, :]).reshape(len(features), -1)
    won = weights @ (wins[:, None] * features)
    # The first step is from the same place for all weightings: nothing is as large as they are.
    chance = sigmoid(features @ first)
    expected = weights @ (chance[:, None] * features)
    curve = weights @ ((chance * (1 - chance))[:, None] * products)
    found = np.tile(first, (len(weights), 1))
    for _ in range(MOST_STEPS):
        slope = won - expected - ridge * found
        curves = curve.reshape(-1, size, size) + np.diag(ridge)
        step = np.linalg.solve(curves, slope[:, :, None])[:, :, 0]
        found += step.clip(-LONGEST_STEP, LONGEST_STEP)
        if np.abs(step).max() < tolerance:
            break
        chances = sigmoid(found @ features.T)
        spread = weights * chances
        expected = spread @ features
        spread *= 1 - chances
        curve = spread @ products
    return found


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(−x)), without overflow.

    >>> sigmoid(np.array([-1000.0, 0.0, 1000.0])).tolist()
    [0.0, 0.5, 1.0]
    """
    result: Array = 0.5 * (1 + np.tanh(x / 2))
    return result


def _standardised(longer: Array) -> Array:
    spread = longer.std(ddof=1) if len(longer) > 1 else 0.0
    return np.tanh(longer / spread) if spread > 0 else np.zeros(len(longer))


def _at_equal_length(found: Array, features: Array, weights: Array) -> Array:
    if features.shape[1] == 2:  # the same for every prompt
        return sigmoid(found[:, 0])
    equal = features.copy()
    equal[:, 1] = 0
    rates: Array = (weights * sigmoid(found @ equal.T)).sum(1) / weights.sum(1)
    return rates


def _by_prompt(values: Array, owner: NDArray[np.int64], prompts: int) -> Array:
    means: Array = np.bincount(owner, values, prompts) / np.bincount(owner, minlength=prompts)
    return means
