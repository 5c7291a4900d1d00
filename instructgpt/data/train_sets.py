"""Sets to train on, of each of which a share is drawn in a pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from instructgpt.data.order import Group
from instructgpt.data.summary import Summary
from instructgpt.data.views import Joined, Rows, rows_digest


class TrainSets:
    """Rows of several sets behind each other."""

    def __init__(self) -> None:
        self.groups: list[Group] = []
        self.parts: list[Rows[Any]] = []  # one for each group
        self.told: list[tuple[str, int]] = []  # what each set is called and how many rows it has

    def __len__(self) -> int:
        """How many rows there are."""
        return sum(map(len, self.parts))

    def add(self, rows: Rows[Any], weight: float, seen: str, summary: Summary) -> None:
        """Add a set, unless it is empty.

        Args:
            rows: of the set.
            weight: rows of a pass as a multiple of the set's size.
            seen: what the set is called in the summary.
            summary: to tell.
        """
        self.told.append((seen, len(rows)))
        if rows:
            count = max(1, round(weight * len(rows)))
            self.groups.append(Group(len(self), len(rows), count))
            self.parts.append(rows)
            drawn = f", {count:,} drawn a pass" if count != len(rows) else ""
            summary.note(f"{seen}: {rows.told}{drawn}")

    @property
    def rows(self) -> Sequence[Any]:
        """All rows; a list where there are none."""
        return Joined(self.parts) if self.parts else []

    def digest(self, start: int = 0, stop: int | None = None) -> str:
        """Name the rows of some sets, and how many of them are drawn a pass.

        Args:
            start: number of the first set.
            stop: number of the first behind them.
        """
        shares = zip(self.groups[start:stop], self.parts[start:stop], strict=True)
        return rows_digest(*(one for group, rows in shares for one in (group.share, rows.names)))
