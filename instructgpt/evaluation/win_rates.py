"""How often the answers of one model are preferred to those of another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from instructgpt.evaluation.judges import Answer, Judge, Judgement
from instructgpt.evaluation.statistics import Array, mean
from instructgpt.functional.intervals import share_interval

TIE = Judgement(0.0, 1.0)


class Outcomes(NamedTuple):
    """What a judge said about each prompt, averaged over both orders of showing the answers."""

    wins: Array  # [M] of the first model; a tie counts half
    ties: Array  # [M]
    consistency: Array  # [M] 1 where the order made no difference, 0 where it decided


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
    wins: Array  # one share a prompt


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
    return Outcomes((a + b) / 2, ties, 1 - np.abs(a - b))


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
    owner = [i for i, answers in enumerate(first) for _ in answers]
    outcomes = compare(judge, _flat(first), _flat(second))
    counts = np.bincount(owner)
    wins, ties, same = (np.bincount(owner, weights=part) / counts for part in outcomes)
    found = mean(wins, seed)
    wilson = share_interval(found.value, found.n)
    means = float(ties.mean()), float(same.mean())
    return Compared(Preferred(*found[:3], *wilson, *means, found.n), wins)


def _flat(answers: Sequence[Sequence[Answer]]) -> list[Answer]:
    return [answer for one in answers for answer in one]
