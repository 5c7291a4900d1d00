"""What rankings say: which rows decide something, and by which pairs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from instructgpt.data.views import Picked

AT_ONCE = 2**16
"""Rows whose pairs are in memory together, so that long rankings take no more than short ones."""


class Rankings(NamedTuple):
    """Rankings of some rows."""

    ranks: np.ndarray  # of all responses of a store, row by row
    starts: np.ndarray  # [n] of the rows in them
    counts: np.ndarray  # [n] responses of each row

    def __len__(self) -> int:
        """How many rows there are."""
        return len(self.starts)

    def where(self, mask: np.ndarray) -> Rankings:
        """Those of the rows for which a mask is true."""
        return Rankings(self.ranks, self.starts[mask], self.counts[mask])

    @property
    def decided(self) -> np.ndarray:
        """Whether each row says that a response is better than another, or good or bad."""
        found = self.counts == 1
        for rows, ranks in self.by_count():
            found[rows] |= ranks.min(1) < ranks.max(1)
        return found

    def pairs(self) -> np.ndarray:
        """Every decided pair: row, better and worse response; -1 for worse where one was judged.

        [pairs, 3], in the order of the rows.
        """
        found = [np.zeros((0, 3), np.int64)]
        for rows, ranks in self.by_count():
            if ranks.shape[1] == 1:
                found.append(np.stack([rows, np.zeros_like(rows), np.full_like(rows, -1)], 1))
                continue
            row, better, worse = np.nonzero(ranks[:, :, None] < ranks[:, None, :])
            found.append(np.stack([rows[row], better, worse], 1))
        pairs = np.concatenate(found)
        return pairs[np.argsort(pairs[:, 0], kind="stable")]

    def decided_pairs(self) -> int:
        """How many there are."""
        every = (ranks[:, :, None] < ranks[:, None, :] for _, ranks in self.by_count())
        return sum(int(pairs.sum()) for pairs in every)

    def by_count(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Rows with as many responses, and their ranks, [rows, K]."""
        for count in np.unique(self.counts[self.counts > 0]).tolist():
            every = np.flatnonzero(self.counts == count)
            for start in range(0, len(every), AT_ONCE):
                rows = every[start : start + AT_ONCE]
                yield rows, self.ranks[self.starts[rows, None] + np.arange(count)]


def rankings_of(picked: Picked) -> Rankings:
    """Rankings of rows of a store.

    Args:
        picked: comparisons.
    """
    column = picked.store.lists("ranking")
    counts = column.lengths
    starts = np.cumsum(counts) - counts
    return Rankings(column.members, starts[picked.rows], counts[picked.rows])


def described(rankings: Sequence[Rankings]) -> list[str]:
    """Lines about all rankings together.

    Args:
        rankings: of all sets.
    """
    counts = np.concatenate([np.zeros(0, np.int64), *(one.counts for one in rankings)])
    sizes, numbers = np.unique(counts, return_counts=True)
    decided = sum(one.decided_pairs() for one in rankings)
    ties = int((sizes * (sizes - 1) // 2 * numbers).sum()) - decided
    undecided = sum(int((~one.decided).sum()) for one in rankings)
    shown = ", ".join(f"K={k} {n:,}" for k, n in zip(sizes.tolist(), numbers.tolist(), strict=True))
    lines = [f"rankings: {shown}; {decided:,} decided pairs, {ties:,} ties"]
    alone = [one.ranks[one.starts[one.counts == 1]] for one in rankings]
    judged = np.concatenate([np.zeros(0, np.int64), *alone])
    if len(judged):
        good, bad = int((judged == 1).sum()), int((judged == 2).sum())
        lines.append(f"judged alone: {good:,} good, {bad:,} bad")
    if undecided:
        rows = f"{undecided:,} rows, those of validation counted,"
        lines.append(f"warning: {rows} are all tied: nothing is learned or measured of them")
    return lines
