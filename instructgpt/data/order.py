"""The order of rows as a function of (seed, pass), never of hidden state."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from instructgpt.seeds import permutation

Rows = NDArray[np.int64]
S = TypeVar("S", list[Any], Rows)

PIECE = 1 << 20
"""Rows that are shuffled at once."""


class Group(NamedTuple):
    """Rows that are drawn together: ``size`` from ``start`` on, ``share`` of them a pass."""

    start: int
    size: int
    share: int


def text_hash(text: str) -> int:
    """Hash a text to 64 bits, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def cycle(size: int, start: int, count: int, *names: int) -> Rows:
    """Places ``start`` to ``start + count`` of one permutation of ``range(size)`` after another."""
    rows = np.empty(count, np.int64)
    done = 0
    while done < count:
        turn, offset = divmod(start + done, size)
        part = permutation(size, *names, turn).numpy()[offset : offset + count - done]
        rows[done : done + len(part)] = part
        done += len(part)
    return rows


def one_pass(groups: Sequence[Group], seed: int, index: int) -> Rows:
    """Row numbers of a pass (an epoch): each group's share, shuffled together.

    A group of weight 1 gives each row once; of weight 0.5 half its rows, and the other half in the
    next pass.
    """
    rows = np.empty(sum(group.share for group in groups), np.int64)
    done = 0
    for number, group in enumerate(groups):
        part = rows[done : done + group.share]
        part[:] = cycle(group.size, index * group.share, group.share, seed, number)
        part += group.start
        done += group.share
    shuffled = permutation(len(rows), seed, -1, index).numpy()
    for start in range(0, len(rows), PIECE):  # in place: a third array would be the largest cost
        shuffled[start : start + PIECE] = rows[shuffled[start : start + PIECE]]
    return shuffled


def nth_pass(groups: Sequence[Group], seed: int, fixed: bool, epoch: int) -> Rows:
    """The pass of an epoch; where it is fixed, the first for each."""
    return one_pass(groups, seed, 0 if fixed else epoch)


def straight(count: int, epoch: int) -> range:
    """The same order in every epoch: as they are."""
    return range(count)


@lru_cache(maxsize=2)  # an update needs a few rows of a pass of prompts, and as few of text
def _kept_pass(groups: tuple[Group, ...], seed: int, index: int) -> Rows:
    return one_pass(groups, seed, index)


def stream(groups: Sequence[Group], seed: int, start: int, count: int) -> Rows:
    """Places ``start`` to ``start + count`` of all passes, one after another."""
    size = sum(group.share for group in groups)
    rows = np.empty(count, np.int64)
    done = 0
    while done < count:
        index, offset = divmod(start + done, size)
        part = _kept_pass(tuple(groups), seed, index)[offset : offset + count - done]
        rows[done : done + len(part)] = part
        done += len(part)
    return rows


def chunk(rows: S, rank: int, world_size: int) -> S:
    """A rank's contiguous equal share of a list or an array."""
    if len(rows) % world_size:
        raise ValueError(f"{len(rows)} rows do not divide by {world_size} processes")
    share = len(rows) // world_size
    return rows[rank * share : (rank + 1) * share]
