"""The order of rows as a function of (seed, pass), never of hidden state."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import NamedTuple, TypeVar

from instructgpt.seeds import permutation

T = TypeVar("T")


class Group(NamedTuple):
    """Rows that are drawn together: ``size`` from ``start`` on, ``share`` of them a pass."""

    start: int
    size: int
    share: int


def text_hash(text: str) -> int:
    """Hash a text to 64 bits, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def cycle(size: int, start: int, count: int, *names: int) -> list[int]:
    """Places ``start`` to ``start + count`` of one permutation of ``range(size)`` after another."""
    rows: list[int] = []
    while len(rows) < count:
        turn, offset = divmod(start + len(rows), size)
        rows += permutation(size, *names, turn)[offset : offset + count - len(rows)].tolist()
    return rows


def one_pass(groups: list[Group], seed: int, index: int) -> list[int]:
    """Row numbers of a pass (an epoch): each group's share, shuffled together.

    A group of weight 1 gives each row once; of weight 0.5 half its rows, and the other half in the
    next pass.
    """
    rows: list[int] = []
    for number, group in enumerate(groups):
        drawn = cycle(group.size, index * group.share, group.share, seed, number)
        rows += [group.start + row for row in drawn]
    shuffled = permutation(len(rows), seed, -1, index).tolist()
    return [rows[i] for i in shuffled]


@lru_cache(maxsize=4)  # an update needs a few rows of a pass, and the next update the rows after
def _kept_pass(groups: tuple[Group, ...], seed: int, index: int) -> list[int]:
    return one_pass(list(groups), seed, index)


def stream(groups: list[Group], seed: int, start: int, count: int) -> list[int]:
    """Places ``start`` to ``start + count`` of all passes, one after another."""
    size = sum(group.share for group in groups)
    rows: list[int] = []
    while len(rows) < count:
        index, offset = divmod(start + len(rows), size)
        rows += _kept_pass(tuple(groups), seed, index)[offset : offset + count - len(rows)]
    return rows


def chunk(rows: list[T], rank: int, world_size: int) -> list[T]:
    """A rank's contiguous equal share."""
    if len(rows) % world_size:
        raise ValueError(f"{len(rows)} rows do not divide by {world_size} processes")
    share = len(rows) // world_size
    return rows[rank * share : (rank + 1) * share]


def hold_out(names: list[str], fraction: float, seed: int) -> list[bool]:
    """Choose rows for validation by the hash of their names; equal names stay together.

    Args:
        names: of each row, such as its user or its prompt.
        fraction: of the names to hold out, in (0, 1); at least one, where there are two.
        seed: of the hash.

    Returns:
        For each row whether it is held out.
    """
    place = {name: text_hash(f"{seed} {name}") / 2**64 for name in names}
    chosen = {name for name in place if place[name] < fraction}
    if not chosen and len(place) > 1:
        chosen = {min(place, key=lambda name: place[name])}
    return [name in chosen for name in names]
