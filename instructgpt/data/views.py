"""Sequences of rows that are made when they are asked for: at rest there are numbers only."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Generic, NamedTuple, TypeVar, overload

import numpy as np

from instructgpt.data.rows import AnyRow
from instructgpt.data.store import Records

R = TypeVar("R", bound=AnyRow, covariant=True)


class Picked(NamedTuple):
    """Some rows of a store, or of what is in memory."""

    store: Records
    rows: np.ndarray  # [n] int64: their numbers in it

    @classmethod
    def all(cls, store: Records) -> Picked:
        """Every row."""
        return cls(store, np.arange(len(store)))

    def numbers(self, name: str) -> np.ndarray:
        """A column of numbers."""
        return self.store.numbers(name)[self.rows]

    def where(self, mask: np.ndarray) -> Picked:
        """Those of the rows for which a mask is true."""
        return Picked(self.store, self.rows[mask])

    @property
    def names(self) -> np.ndarray:
        """What each row is known by, so that other rows are noticed."""
        return self.numbers("content")


def all_numbers(name: str, parts: Sequence[Picked]) -> np.ndarray:
    """A column of numbers of all parts, uint64."""
    return np.concatenate([np.zeros(0, np.uint64), *(part.numbers(name) for part in parts)])


class Rows(Sequence[R], Generic[R]):
    """Rows of a split."""

    @abstractmethod
    def row(self, place: int) -> R:
        """A row, made now."""

    @property
    @abstractmethod
    def lengths(self) -> np.ndarray:
        """Tokens of each row; of several sequences those of the longest."""

    @property
    @abstractmethod
    def names(self) -> Sequence[np.ndarray]:
        """Numbers that name the rows and their order, so that others are noticed."""

    @overload
    def __getitem__(self, place: int) -> R: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[R]: ...

    def __getitem__(self, place: int | slice) -> R | Sequence[R]:
        """A row, or a part of the rows."""
        if isinstance(place, slice):
            return Chosen(self, np.arange(len(self))[place])
        return self.row(range(len(self))[place])

    @property
    def told(self) -> str:
        """How many there are, in words."""
        return f"{len(self):,} rows"

    @cached_property
    def longest(self) -> int:
        """Tokens of the longest row."""
        return int(self.lengths.max(initial=0))


class Chosen(Rows[R]):
    """Some of other rows.

    Args:
        rows: to choose from.
        places: of those that are chosen.
    """

    def __init__(self, rows: Rows[R], places: np.ndarray) -> None:
        self.rows, self.places = rows, places

    def __len__(self) -> int:
        """How many there are."""
        return len(self.places)

    def row(self, place: int) -> R:
        """A row, made now."""
        return self.rows.row(int(self.places[place]))

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each row."""
        return self.rows.lengths[self.places]

    @property
    def names(self) -> Sequence[np.ndarray]:
        """Of all rows, and which they are."""
        return [*self.rows.names, self.places]


class Joined(Rows[R]):
    """Rows behind each other.

    Args:
        parts: in order.
    """

    def __init__(self, parts: Sequence[Rows[R]]) -> None:
        self.parts = parts
        self.starts = np.cumsum([0, *map(len, parts)]).tolist()

    def __len__(self) -> int:
        """How many there are."""
        return int(self.starts[-1])

    def row(self, place: int) -> R:
        """A row, made now."""
        part, place = self._part(place)
        return part.row(place)

    def _part(self, place: int) -> tuple[Any, int]:
        number = bisect_right(self.starts, place) - 1
        return self.parts[number], place - self.starts[number]

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each row."""
        return self._all("lengths")

    @property
    def targets(self) -> np.ndarray:
        """Trained tokens of each row, where they are rows of language."""
        return self._all("targets")

    @property
    def response_tokens(self) -> np.ndarray:
        """Tokens of all responses of each row, where they are comparisons."""
        return self._all("response_tokens")

    def sizes(self, place: int) -> tuple[int, list[int]]:
        """Tokens of the prompt of a comparison, and of its responses."""
        part, place = self._part(place)
        sizes: tuple[int, list[int]] = part.sizes(place)
        return sizes

    def _all(self, name: str) -> np.ndarray:
        return np.concatenate([np.zeros(0, np.int64), *(getattr(one, name) for one in self.parts)])

    @property
    def names(self) -> Sequence[np.ndarray]:
        """Of each part."""
        return [name for part in self.parts for name in part.names]


def together(kind: Callable[[Picked, int], Rows[R]], parts: Sequence[Picked]) -> Sequence[R]:
    """Rows of several parts behind each other, numbered from 0; a list where there are none.

    Args:
        kind: of rows.
        parts: in order.
    """
    starts = np.cumsum([0, *(len(part.rows) for part in parts)]).tolist()
    rows = [kind(part, start) for part, start in zip(parts, starts, strict=False)]
    return Joined(rows) if starts[-1] else []


def rows_digest(*names: Sequence[np.ndarray] | int) -> str:
    """Name rows by what a stage sees of them, and by their order.

    Names of files and of labelers play no part: files may move.

    Args:
        names: of rows, and numbers between them.
    """
    digest = hashlib.sha256()
    for part in names:
        for one in [np.int64(part)] if isinstance(part, int) else part:
            digest.update(f"{np.shape(one)}".encode())
            digest.update(np.ascontiguousarray(one).tobytes())
    return digest.hexdigest()[:16]


def names_of(rows: Sequence[Any]) -> Sequence[np.ndarray]:
    """What names rows; nothing where there are none."""
    return rows.names if isinstance(rows, Rows) else []
