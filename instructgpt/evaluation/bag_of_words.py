"""A Bradley–Terry model of words: what counting them says about which response is better."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from instructgpt.evaluation.files import read_json
from instructgpt.evaluation.statistics import Array
from instructgpt.functional.pairs import better_pairs, minimum
from instructgpt.types import UserError

MOST_WORDS = 20_000
"""So many words have a weight: those that are in most responses."""

RIDGE = 30.0
"""Half of this times the squared weights is added to the loss, a sum over training rows.

The best of 0.3, 1, 3, 10 and 30 on four of six public sets of 130 to 1,644 rows, in four folds:
a baseline is to be as strong as it can be.
"""

BAG_FILE = "bag_of_words.json"
"""In the folder of a run, not of its export: its words are those of the training rows."""

EXPORT = "export"

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


def read_bag(reward_model: str) -> BagOfWords | None:
    """The one that a fit has left beside ``export`` of a reward model; None: there is none.

    Args:
        reward_model: its folder, or a hub id.
    """
    folder = Path(reward_model).resolve()
    path = folder.parent / BAG_FILE
    if folder.name != EXPORT or not path.is_file():  # of another model, where it has another name
        return None
    found = read_json(str(path))
    weights, pairs = found.get("weights"), found.get("pairs")
    fine = isinstance(weights, dict) and all(isinstance(one, float) for one in weights.values())
    if not isinstance(weights, dict) or not fine or not isinstance(pairs, int):
        raise UserError(f'{path}: must hold "weights" of words and "pairs", as fit writes them')
    return BagOfWords(weights, pairs)


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
    pairs = better_pairs([one.ranking for one in choices], [one.weight for one in choices])
    if not len(pairs.weights):
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
        return pairs.loss(scores(weights)) + RIDGE / 2 * weights.square().sum()

    weights = minimum(loss, len(numbers))
    return BagOfWords(dict(zip(numbers, weights.tolist(), strict=True)), len(pairs.weights))
