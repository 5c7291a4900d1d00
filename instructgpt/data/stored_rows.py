"""Rows of a store: demonstrations, prompts, comparisons, and what is made of them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from instructgpt.data.records import read_prompt
from instructgpt.data.rows import (
    ComparisonRow,
    LanguageRow,
    PromptRow,
    comparison_row,
    demonstration_row,
    joined,
)
from instructgpt.data.views import Picked, R, Rows


class Stored(Rows[R]):
    """Rows of a store.

    Args:
        picked: which they are.
        first: number of the first among the rows of its split.
    """

    def __init__(self, picked: Picked, first: int = 0) -> None:
        self.store, self.places = picked
        self.first = first

    def __len__(self) -> int:
        """How many there are."""
        return len(self.places)

    @property
    def names(self) -> Sequence[np.ndarray]:
        """What a stage sees of each."""
        return [Picked(self.store, self.places).names]

    @property
    def prompt_lengths(self) -> np.ndarray:
        """Tokens of each prompt."""
        return self.store.lists("prompt_tokens").lengths[self.places]

    def prompt(self, number: int) -> np.ndarray:
        """Tokens of the prompt of a row of the store."""
        return self.store.lists("prompt_tokens")[number]


class Demonstrations(Stored[LanguageRow]):
    """A prompt with the response to it."""

    def row(self, place: int) -> LanguageRow:
        """A row, made now."""
        number = int(self.places[place])
        (response,) = self.store.nested("responses")[number]
        return demonstration_row(self.prompt(number), response, self.store.text("id", number))

    @property
    def targets(self) -> np.ndarray:
        """Trained tokens of each row."""
        return self.store.nested("responses").lengths[self.places]

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each row."""
        return self.prompt_lengths + self.targets


class Prompts(Stored[PromptRow]):
    """A prompt to respond to."""

    def row(self, place: int) -> PromptRow:
        """A row, made now."""
        number = int(self.places[place])
        prompt = read_prompt(self.store.text("prompt", number), self.store.text("id", number))
        return PromptRow(joined(self.prompt(number)), prompt, self.first + place)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each row."""
        return self.prompt_lengths


class Comparisons(Stored[ComparisonRow]):
    """A prompt with ranked responses."""

    def row(self, place: int) -> ComparisonRow:
        """A row, made now."""
        number = int(self.places[place])
        row = comparison_row(
            self.prompt(number),
            self.store.nested("responses")[number],
            self.store.lists("ranking")[number].tolist(),
            self.store.text("labeler", number),
            self.store.text("source", number),
            self.store.text("id", number),
        )
        return row._replace(number=self.first + place)

    def sizes(self, place: int) -> tuple[int, list[int]]:
        """Tokens of the prompt of a row, and of its responses."""
        number = int(self.places[place])
        responses = self.store.nested("responses")[number]
        return len(self.prompt(number)), [len(one) for one in responses]

    @cached_property
    def ends(self) -> np.ndarray:
        """Where the responses of each row of the store begin among all, and where they end."""
        return np.concatenate([[0], np.cumsum(self.store.nested("responses").counts)])

    @property
    def response_tokens(self) -> np.ndarray:
        """Tokens of all responses of each row."""
        return _reduced(np.add, self.store.nested("responses").lengths, self.ends)[self.places]

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of the longest sequence of each row."""
        longest = _reduced(np.maximum, self.store.nested("responses").lengths, self.ends)
        return self.prompt_lengths + longest[self.places]


def _reduced(how: np.ufunc, values: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """A sum or a maximum of the members of each list; 0 for those without any."""
    sizes = np.diff(ends)
    found = np.zeros(len(sizes), np.int64)
    filled = sizes > 0
    if filled.any():
        found[filled] = how.reduceat(values, ends[:-1][filled])
    return found


class RankedPairs(Rows[ComparisonRow]):
    """Pairs of responses of other rows, each as a row of its own.

    Args:
        rows: with all their responses.
        pairs: row, better and worse response; -1 for worse where a row has one response, [n, 3].
        first: number of the first among the rows of its split.
    """

    def __init__(self, rows: Comparisons, pairs: np.ndarray, first: int = 0) -> None:
        self.rows, self.pairs, self.first = rows, pairs, first

    def __len__(self) -> int:
        """How many there are."""
        return len(self.pairs)

    def row(self, place: int) -> ComparisonRow:
        """A row, made now."""
        number, better, worse = self.pairs[place].tolist()
        row = self.rows.row(number)._replace(number=self.first + place)
        if worse < 0:
            return row
        two = (better, worse)
        return row._replace(responses=tuple(row.responses[i] for i in two), ranking=(1, 2))

    def sizes(self, place: int) -> tuple[int, list[int]]:
        """Tokens of the prompt of a row, and of its responses."""
        number, better, worse = self.pairs[place].tolist()
        prompt, responses = self.rows.sizes(number)
        two = (better, worse) if worse >= 0 else (better,)
        return prompt, [responses[i] for i in two]

    @property
    def response_lengths(self) -> np.ndarray:
        """Tokens of both responses of each row, 0 for one that is not there, [n, 2]."""
        numbers, two = self.pairs[:, :1], self.pairs[:, 1:]
        places = self.rows.ends[self.rows.places[numbers]] + np.maximum(two, 0)
        return np.where(two < 0, 0, self.rows.store.nested("responses").lengths[places])

    @property
    def response_tokens(self) -> np.ndarray:
        """Tokens of all responses of each row."""
        return self.response_lengths.sum(1)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of the longest sequence of each row."""
        return self.rows.prompt_lengths[self.pairs[:, 0]] + self.response_lengths.max(1)

    @property
    def names(self) -> Sequence[np.ndarray]:
        """Of the rows, and which pairs."""
        return [*self.rows.names, self.pairs]
