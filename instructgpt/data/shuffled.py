"""Items that are read for ever, shuffled: their order is a function of (seed, position).

A buffer that is refilled item by item, as that of ``datasets.IterableDataset``, cannot be had back
without all that went through it, so that library resumes with other rows. Here a buffer is filled,
shuffled and emptied before it is filled again: to go on anywhere costs one buffer.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any, NamedTuple, Protocol

import torch

from instructgpt.data.opening import Item
from instructgpt.seeds import mix, permutation
from instructgpt.types import UserError

BUFFER_BYTES = 2**26
"""What a buffer holds at most, whatever the number of items: some documents are books."""

CHUNK = 32
"""Items that are decoded together."""

SOURCES, FIRST, WINDOW, SETS = range(4)
"""What a random number is drawn for."""


class Opened(Protocol):
    """A source that is being read."""

    def __iter__(self) -> Iterator[Item]:
        """Its items from where it stands."""

    def mark(self) -> Any:
        """Where it stands, in types of JSON."""


class Readable(Protocol):
    """A source of items: a file, or a data set of the hub."""

    def open(self, mark: Any) -> Opened:
        """Begin to read.

        Args:
            mark: where another reading stood; None for the beginning.
        """


class Cursor(NamedTuple):
    """A place among the items of a set."""

    turn: int = 0  # how often all items have been read
    window: int = 0  # how often the buffer has been filled in this turn
    source: int = 0  # in which the buffer begins, in the order of this turn
    mark: Any = None  # where in the source
    taken: int = 0  # items taken from the buffer


START = Cursor()


class ShuffledSet:
    """The items of a set, again and again.

    Args:
        sources: files or data sets, read in another order in each turn.
        buffer: how many items are shuffled together.
        names: of the order: the seed, and the number of the set.
    """

    def __init__(self, sources: Sequence[Readable], buffer: int, *names: int) -> None:
        self.sources, self.buffer, self.names = sources, buffer, names

    def items(self, start: Cursor = START) -> Iterator[tuple[Item, Cursor]]:
        """Items from a place on, each with the place behind it.

        Args:
            start: such a place.
        """
        place = start
        while True:
            names = *self.names, place.turn
            order = permutation(len(self.sources), *names, SOURCES).tolist()
            empty = True
            for window, here in self._windows([self.sources[i] for i in order], place):
                shuffled = permutation(len(window), *names, WINDOW, here.window).tolist()
                for taken in range(here.taken, len(window)):
                    yield window[shuffled[taken]], here._replace(taken=taken + 1)
                empty = False
            if empty and place == Cursor(place.turn):
                raise UserError("--data.train must hold rows, got none")
            place = Cursor(place.turn + 1)

    def _windows(
        self, sources: list[Readable], place: Cursor
    ) -> Iterator[tuple[list[Item], Cursor]]:
        """What the buffer holds, one time after the other, to the end of a turn."""
        window: list[Item] = []
        size, room = 0, self._room(place)
        for number in range(place.source, len(sources)):
            opened = sources[number].open(place.mark if number == place.source else None)
            for item in opened:
                window.append(item)
                size += item.size
                if len(window) == room or size >= BUFFER_BYTES:
                    yield window, place
                    place = Cursor(place.turn, place.window + 1, number, opened.mark())
                    window, size, room = [], 0, self.buffer
        if window:
            yield window, place

    def _room(self, place: Cursor) -> int:
        """How many items are shuffled together; in each turn others begin, so that others meet."""
        if place.window or not place.turn:
            return self.buffer
        return 1 + mix(*self.names, place.turn, FIRST) % self.buffer


class Chunk(NamedTuple):
    """Items that follow each other."""

    number: int
    cursors: tuple[Cursor, ...]  # where each set stood before them
    items: list[Item]


class Mixture:
    """Several sets as one: each item comes from one of them by chance.

    Args:
        sets: to draw from.
        weights: how often each is drawn from, in proportion.
        seed: of the choice.
    """

    def __init__(self, sets: Sequence[ShuffledSet], weights: Sequence[float], seed: int) -> None:
        self.sets, self.seed = sets, seed
        total = sum(weights)
        self.bounds = [bound / total for bound in accumulate(weights)][:-1]

    @property
    def start(self) -> tuple[Cursor, ...]:
        """Where the sets stand at first."""
        return (START,) * len(self.sets)

    def chunks(self, number: int, cursors: Sequence[Cursor]) -> Iterator[Chunk]:
        """Chunks from one on, for ever.

        Args:
            number: of the first.
            cursors: where each set stands before it.
        """
        places = list(cursors)
        reading = [one.items(place) for one, place in zip(self.sets, places, strict=True)]
        while True:
            before, items = tuple(places), []
            for choice in self._choices(number):
                item, places[choice] = next(reading[choice])
                items.append(item)
            yield Chunk(number, before, items)
            number += 1

    def _choices(self, number: int) -> list[int]:
        """The set of each item of a chunk."""
        if not self.bounds:
            return [0] * CHUNK
        generator = torch.Generator().manual_seed(mix(self.seed, SETS, number))
        drawn = torch.rand(CHUNK, generator=generator, dtype=torch.float64).tolist()
        return [bisect_right(self.bounds, place) for place in drawn]
