"""Best-of-n sampling: what choosing among n samples by a score does to their true worth."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import comb, log

import numpy as np
from numpy.typing import ArrayLike

from instructgpt.evaluation.judges import Answer, Judge
from instructgpt.evaluation.results import BestOf
from instructgpt.evaluation.statistics import Array, mean
from instructgpt.evaluation.win_rates import compare

OPPONENTS = 4
"""Samples of each prompt that the best of the others are compared with."""


def kl_of_best(n: int) -> float:
    """KL of the best of n from one sample: at most log n − (n − 1)/n (Stiennon et al. 2020).

    That is what it is where no two samples are the same; it is less where samples repeat.

    >>> round(kl_of_best(1), 6), round(kl_of_best(16), 3)
    (0.0, 1.835)
    """
    return log(n) - (n - 1) / n


def sizes(samples: int) -> list[int]:
    """The n that are measured with so many samples: powers of two.

    >>> sizes(17)
    [1, 2, 4, 8, 16]
    """
    return [2**i for i in range(samples.bit_length()) if 2**i <= samples]


@lru_cache
def best_weights(samples: int, n: int) -> Array:
    """Probability that the sample of each rank, lowest score first, is the best of n, [samples].

    The n are a random subset: C(i − 1, n − 1) of the C(samples, n) subsets have the i-th as best.

    >>> best_weights(4, 2).round(3).tolist()
    [0.0, 0.167, 0.333, 0.5]
    """
    every = comb(samples, n)
    return np.array([comb(i, n - 1) / every for i in range(samples)])


def expected_of_best(scores: ArrayLike, values: ArrayLike, n: int) -> float:
    """The expected value of the best of n by score, without bias, from more than n samples.

    Args:
        scores: what chooses, one number a sample; of equal scores the later is better.
        values: what is measured.
        n: size of the subsets.

    Example:
        >>> expected_of_best([0.0, 1.0, 2.0], [3.0, 6.0, 0.0], 2)  # (6 + 0 + 0) / 3
        2.0
    """
    order = np.argsort(np.asarray(scores), kind="stable")
    return float(best_weights(len(order), n) @ np.asarray(values, dtype=np.float64)[order])


def best_of_n(
    answers: Sequence[Sequence[Answer]],
    scores: Sequence[Sequence[float]],
    judge: Judge | None,
    seed: int,
    disagreement: Sequence[Sequence[float]] | None = None,
) -> list[BestOf]:
    """Score, true utility and win rate over one more sample, for each n.

    Args:
        answers: samples of each prompt, as many for each.
        scores: of the reward model that chooses.
        judge: of the win rate, which needs one sample more than n; None for no win rate.
        seed: of the bootstrap.
        disagreement: of the heads of the reward model about each; None: it has one.
    """
    count = len(answers[0])
    true = [[answer.utility for answer in one] for one in answers]
    graded = not np.isnan(true).any()
    wins = [] if judge is None else wins_over_opponents(answers, judge)
    rows = []
    for n in sizes(count):
        kept = [expected_of_best(one, one, n) for one in scores]
        row = BestOf(n, kl_of_best(n), mean(kept, seed))
        if graded:
            best = [expected_of_best(*one, n) for one in zip(scores, true, strict=True)]
            row = row._replace(utility=mean(best, seed))
        if wins and n < count:
            won = [expected_win(*one, n) for one in zip(scores, wins, strict=True)]
            row = row._replace(win_rate=mean(won, seed))
        if disagreement is not None:
            apart = [expected_of_best(*one, n) for one in zip(scores, disagreement, strict=True)]
            row = row._replace(disagreement=mean(apart, seed))
        rows.append(row)
    return rows


def wins_over_opponents(answers: Sequence[Sequence[Answer]], judge: Judge) -> list[Array]:
    """How often each sample of a prompt is preferred to each of the first few, [samples, few].

    Args:
        answers: samples of each prompt, as many for each.
        judge: decides.
    """
    few = min(OPPONENTS, len(answers[0]))
    pairs = [(a, b) for one in answers for a in one for b in one[:few]]
    wins = compare(judge, [a for a, _ in pairs], [b for _, b in pairs]).wins
    return list(wins.reshape(len(answers), -1, few))


def expected_win(scores: Sequence[float], wins: Array, n: int) -> float:
    """How often the best of n by score is preferred to one more sample, without bias.

    Args:
        scores: what chooses, one number a sample.
        wins: of each sample over the first few, which are the opponents in turn; an opponent is
            none of the n.
        n: less than the number of samples.
    """
    shares = []
    for opponent in range(wins.shape[1]):
        others = [i for i in range(len(scores)) if i != opponent]
        shares.append(expected_of_best(np.take(scores, others), wins[others, opponent], n))
    return float(np.mean(shares))
