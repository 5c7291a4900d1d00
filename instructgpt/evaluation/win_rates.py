"""How often the answers of one model are preferred to those of another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from instructgpt.evaluation.judges import Answer, Judge, Judgement
from instructgpt.evaluation.length_control import JudgedPairs
from instructgpt.evaluation.statistics import Array, mean
from instructgpt.functional.intervals import share_interval

TIE = Judgement(0.0, 1.0)


class Outcomes(NamedTuple):
    """What a judge said about each pair, averaged over both orders of showing the answers.

    NaN where it said nothing usable in one of the orders: then nothing is known of the pair.
    """

    wins: Array  # [M] of the first model; a tie counts half, and so does who wins in one order only
    ties: Array  # [M]
    consistency: Array  # [M] 1 where the order made no difference, 0 where it decided
    shown_first: Array  # [M] how often the answer shown first won; NaN where none was shown
    flips: Array  # [M] 1 where the other order had another winner; NaN where none was shown


class Preferred(NamedTuple):
    """Share of prompts on which a model is preferred, a tie counting half."""

    value: float
    low: float  # bootstrap over prompts
    high: float
    wilson_low: float  # binomial
    wilson_high: float
    ties: float
    order_consistency: float
    n: int


class Compared(NamedTuple):
    """A win rate, and what it is the mean of."""

    rate: Preferred
    wins: Array  # one share a prompt; NaN where the judge said nothing usable
    outcomes: Outcomes  # of every pair
    owner: NDArray[np.int64]  # number of the prompt of every pair
    longer: Array  # characters of the first answer of every pair minus those of the second

    @property
    def pairs(self) -> JudgedPairs:
        """Those that the judge had an opinion on; their prompts numbered without the others."""
        known = ~np.isnan(self.outcomes.wins)
        _, numbers = np.unique(self.owner[known], return_inverse=True)
        return JudgedPairs(numbers.astype(np.int64), self.outcomes.wins[known], self.longer[known])


def compare(judge: Judge, first: Sequence[Answer], second: Sequence[Answer]) -> Outcomes:
    """Show each pair of answers in both orders; equal texts tie without being shown.

    Args:
        judge: decides.
        first: answers of one model.
        second: answers of the other to the same prompts.
    """
    shown = [i for i, (a, b) in enumerate(zip(first, second, strict=True)) if a.text != b.text]
    forward, backward = [TIE] * len(first), [TIE] * len(first)
    if shown:
        ahead = judge([(first[i], second[i]) for i in shown])
        back = judge([(second[i], first[i]) for i in shown])
        for i, one, other in zip(shown, ahead, back, strict=True):
            forward[i], backward[i] = one, other
    a = np.array([verdict.win + verdict.tie / 2 for verdict in forward])
    b = np.array([1 - verdict.win - verdict.tie / 2 for verdict in backward])
    ties = np.array([(x.tie + y.tie) / 2 for x, y in zip(forward, backward, strict=True)])
    seen = np.isin(np.arange(len(a)), shown) & ~np.isnan(a + b)
    unknown = np.where(seen, 0.0, np.nan)
    flips = np.where((a - 0.5) * (b - 0.5) < 0, 1.0, 0.0) + unknown
    return Outcomes((a + b) / 2, ties, 1 - np.abs(a - b), (a + 1 - b) / 2 + unknown, flips)


def compare_models(
    judge: Judge, first: Sequence[Sequence[Answer]], second: Sequence[Sequence[Answer]], seed: int
) -> Compared:
    """The win rate of one model over another, and its wins on each prompt.

    Args:
        judge: decides.
        first: answers of one model, one list a prompt; the k-th meets the other's k-th.
        second: answers of the other model.
        seed: of the bootstrap.
    """
    owner = np.array([i for i, answers in enumerate(first) for _ in answers])
    ours, theirs = _flat(first), _flat(second)
    outcomes = compare(judge, ours, theirs)
    longer = np.array([float(len(a.text) - len(b.text)) for a, b in zip(ours, theirs, strict=True)])
    known = ~np.isnan(outcomes.wins)
    counts = np.bincount(owner[known], minlength=len(first))
    with np.errstate(invalid="ignore"):
        wins, ties, same = (
            np.bincount(owner[known], part[known], len(first)) / counts for part in outcomes[:3]
        )
    some = counts > 0
    rate = _preferred(wins[some], ties[some], same[some], seed)
    return Compared(rate, wins, outcomes, owner, longer)


def _preferred(wins: Array, ties: Array, same: Array, seed: int) -> Preferred:
    if not len(wins):
        nan = float("nan")
        return Preferred(nan, nan, nan, nan, nan, nan, nan, 0)
    found = mean(wins, seed)
    wilson = share_interval(found.value, found.n)
    means = float(ties.mean()), float(same.mean())
    return Preferred(*found[:3], *wilson, *means, found.n)


def _flat(answers: Sequence[Sequence[Answer]]) -> list[Answer]:
    return [answer for one in answers for answer in one]
