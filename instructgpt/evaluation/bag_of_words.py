"""A Bradley–Terry model of words: what counting them says about which response is better."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus

from instructgpt.evaluation.statistics import Array

MOST_WORDS = 20_000
"""So many words have a weight: those that are in most responses."""

RIDGE = 30.0
"""Half of this times the squared weights is added to the loss, a sum over training rows.

The best of 0.3, 1, 3, 10 and 30 on four of six public sets of 130 to 1,644 rows, in four folds:
a baseline is to be as strong as it can be.
"""

WORD = re.compile(r"\w+|[^\w\s]")


class RankedTexts(NamedTuple):
    """A prompt's ranked responses."""

    texts: Sequence[str]
    ranking: Sequence[int]  # 1 = best, equal = tie
    weight: float = 1.0  # of all its decided pairs together


def words(text: str) -> list[str]:
    """Words and punctuation marks, in lower case.

    >>> words("It's 3 o'clock!")
    ['it', "'", 's', '3', 'o', "'", 'clock', '!']
    """
    return WORD.findall(text.lower())


class BagOfWords(NamedTuple):
    """Weights of words: a response scores the sum of weight times log(1 + count)."""

    weights: dict[str, float]
    pairs: int  # it was fitted on

    def score(self, text: str) -> float:
        """The score of a response; words without a weight count nothing."""
        found = Counter(word for word in words(text) if word in self.weights)
        return sum(self.weights[word] * float(np.log1p(found[word])) for word in sorted(found))

    def scores(self, texts: Sequence[str]) -> Array:
        """Scores of responses, [K]."""
        return np.array([self.score(text) for text in texts])


def fit_words(choices: Sequence[RankedTexts]) -> BagOfWords:
    """The most likely weights, with a ridge: a logistic regression on the decided pairs.

    A pair is the difference of its responses' log(1 + count) of each word, without a constant. The
    pairs of a prompt share its weight, as in the loss of a reward model.

    Args:
        choices: to fit.
    """
    bags = [Counter(words(text)) for choice in choices for text in choice.texts]
    spread = Counter(word for bag in bags for word in bag)
    most = sorted(spread, key=lambda word: (-spread[word], word))[:MOST_WORDS]
    numbers = {word: i for i, word in enumerate(sorted(most))}
    better, worse, shares = _pairs(choices)
    if not len(shares):
        return BagOfWords({}, 0)
    entries = [
        (row, numbers[word], count)
        for row, bag in enumerate(bags)
        for word, count in bag.items()
        if word in numbers
    ]
    rows, columns, counts = torch.tensor(entries, dtype=torch.int64).reshape(-1, 3).T.contiguous()
    logs = counts.double().log1p()

    def scores(weights: Tensor) -> Tensor:
        parts = weights.index_select(0, columns) * logs
        sums: Tensor = parts.new_zeros(len(bags)).index_add(0, rows, parts)
        return sums

    def loss(weights: Tensor) -> Tensor:
        found = scores(weights)
        margins = found.index_select(0, better) - found.index_select(0, worse)
        total: Tensor = (softplus(-margins) * shares).sum() + RIDGE / 2 * weights.square().sum()
        return total

    weights = _minimum(loss, len(numbers))
    return BagOfWords(dict(zip(numbers, weights.tolist(), strict=True)), len(shares))


def _pairs(choices: Sequence[RankedTexts]) -> tuple[Tensor, Tensor, Tensor]:
    """Better and worse response of every decided pair, and its weight."""
    first, found = 0, [np.zeros((3, 0))]
    for choice in choices:
        ranks = np.asarray(choice.ranking)
        better, worse = (ranks[:, None] < ranks[None, :]).nonzero()
        share = np.full(len(better), choice.weight / max(1, len(better)))
        found.append(np.stack([better + first, worse + first, share]))
        first += len(ranks)
    better, worse, shares = torch.from_numpy(np.concatenate(found, 1))
    return better.long(), worse.long(), shares


def _minimum(loss: Callable[[Tensor], Tensor], count: int) -> Tensor:
    """Where a smooth convex function of so many numbers is least, [count] float64."""
    weights = torch.zeros(count, dtype=torch.float64, requires_grad=True)
    search = torch.optim.LBFGS(
        [weights],
        max_iter=500,
        tolerance_grad=1e-6,
        tolerance_change=0,
        line_search_fn="strong_wolfe",
    )

    def step() -> Tensor:
        search.zero_grad()
        value = loss(weights)
        value.backward()
        return value

    with torch.enable_grad():
        search.step(step)
    return weights.detach()
