"""Class balance over use cases, and mixtures of sources (FLAN, arXiv:2301.13688)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from instructgpt.hygiene.base import Decision, GlobalRule, Keys, digest, keep_all
from instructgpt.hygiene.clean_row import SPLITS, CleanRow
from instructgpt.hygiene.use_cases import PAPER, of_paper, use_case_of
from instructgpt.hygiene.words import mixed
from instructgpt.types import require

NAME_BYTES = 120
"""Longer names of classes and sources are told apart by so much of their beginning."""


@dataclass(frozen=True)
class ClassBalance(GlobalRule):
    """Training rows in given shares of use cases: as many as there are without repeating one.

    The use case is the row's column use_case, category, task_type or task; rows without stay.

    Args:
        towards: "uniform", "paper" (the shares of Table 1), or null: as the data are (the paper
            does not balance).
        least: use cases with fewer rows are kept whole and do not decide how many others keep.
    """

    towards: Literal["uniform", "paper"] | None = None
    least: int = 20

    name: ClassVar[str] = "balance"
    title: ClassVar[str] = "class balance over use cases"

    def check_options(self, kind: str) -> None:
        """Refuse a size that is none."""
        require(self.least >= 1, "--balance.least", ">= 1", self.least)

    def is_on(self, kind: str) -> bool:
        """Off by default."""
        return self.towards is not None

    def keys(self, rows: Sequence[CleanRow]) -> dict[str, np.ndarray]:
        """The use case, and what chooses."""
        names = [use_case_of(row) for row in rows]
        if self.towards == "paper":
            names = [of_paper(name) or (name and "Other") for name in names]
        return {"name": encoded(names), "choice": chosen_by(rows)}

    def decide(self, keys: Keys, splits: np.ndarray) -> Decision:
        """Shares of the paper or equal ones; the scarcest class decides on the size."""
        known = keys["name"] != b""
        counts = counted(keys["name"], known & (splits == 0))
        if not counts:
            note = "no training row says what it is for (use_case, category, task_type, task)"
            return keep_all(len(splits), (note,))
        shares = {one: PAPER[one] if self.towards == "paper" else 1.0 for one in counts}
        big = {one: n for one, n in counts.items() if n >= self.least}
        sizes = scaled(counts, shares, big)
        reason = f"more rows of its use case than its share ({self.towards})"
        return thinned(keys["name"], keys["choice"], splits, counts, sizes, reason)


@dataclass(frozen=True)
class SourceMixture(GlobalRule):
    """Training rows of several sources in a mixture, without repeating any.

    A source with n rows gets a share in proportion to min(n, cap) ^ (1 / temperature); as many rows
    as possible are kept in these shares.

    Args:
        temperature: 1: in proportion to the sizes; larger: more equal (T5's multilingual mixtures
            use 2 to 5).
        cap: a source counts as at most so many rows, and keeps no more (FLAN: 3,000); null: no cap.
        sizes: source -> rows that its share is computed from; default: its training rows, or of
            rows that were mixed by ``prepare`` before: those before that.
    """

    temperature: float = 1.0
    cap: int | None = None
    sizes: dict[str, int] | None = None

    name: ClassVar[str] = "mixture"
    title: ClassVar[str] = "mixture of sources"

    def check_options(self, kind: str) -> None:
        """Refuse temperatures below 1, which would starve small sources, and a cap of none."""
        rule = self.temperature >= 1 and np.isfinite(self.temperature)
        require(bool(rule), "--mixture.temperature", ">= 1", self.temperature)
        require(self.cap is None or self.cap >= 1, "--mixture.cap", ">= 1", self.cap)
        for source, size in (self.sizes or {}).items():
            require(size >= 1, f"--mixture.sizes of {source}", ">= 1", size)

    def is_on(self, kind: str) -> bool:
        """Off by default."""
        return self.temperature != 1 or self.cap is not None

    def keys(self, rows: Sequence[CleanRow]) -> dict[str, np.ndarray]:
        """The source, and what chooses."""
        return {"name": encoded([row.source for row in rows]), "choice": chosen_by(rows)}

    def decide(self, keys: Keys, splits: np.ndarray) -> Decision:
        """Shares by temperature and cap; the source that runs out first decides on the size."""
        counts = counted(keys["name"], splits == 0)
        if not counts:
            return keep_all(len(splits), ("no training rows",))
        before = counts | {one: n for one, n in (self.sizes or {}).items() if one in counts}
        shares = {one: min(n, self.cap or n) ** (1 / self.temperature) for one, n in before.items()}
        sizes = scaled(counts, shares, counts)
        if self.cap is not None:
            sizes = {one: min(n, self.cap) for one, n in sizes.items()}
        reason = "more rows of its source than its share of the mixture"
        return thinned(keys["name"], keys["choice"], splits, counts, sizes, reason)


def encoded(names: Sequence[str]) -> np.ndarray:
    """Names as bytes of one width."""
    return np.array(
        [one.encode("utf-8", "surrogatepass")[:NAME_BYTES] for one in names], dtype=f"S{NAME_BYTES}"
    )


def chosen_by(rows: Sequence[CleanRow]) -> np.ndarray:
    """What decides which rows of a class stay: a hash of what they say."""
    return mixed(digest([f"{row.key}\n{row.responses}" for row in rows]), 3)


def counted(names: np.ndarray, counts: np.ndarray) -> dict[str, int]:
    """How many rows have each name, among those that count."""
    found, sizes = np.unique(names[counts], return_counts=True)
    return {
        one.decode(errors="surrogateescape"): int(n) for one, n in zip(found, sizes, strict=True)
    }


def scaled(
    counts: Mapping[str, int], shares: Mapping[str, float], deciding: Mapping[str, int]
) -> dict[str, int]:
    """The largest sizes in these shares that no deciding class is too small for.

    Rounded up, so that rows in these shares already stay as they are; other classes are kept whole
    where they are smaller than that.

    >>> scaled({"a": 100, "b": 10}, {"a": 1.0, "b": 1.0}, {"a": 100, "b": 10})
    {'a': 10, 'b': 10}
    """
    if not deciding:
        return dict(counts)
    most = min(n / shares[one] for one, n in deciding.items())
    return {one: min(n, int(np.ceil(most * shares[one] - 1e-9))) for one, n in counts.items()}


def thinned(
    names: np.ndarray,
    choice: np.ndarray,
    splits: np.ndarray,
    counts: Mapping[str, int],
    sizes: Mapping[str, int],
    reason: str,
) -> Decision:
    """Keep so many training rows of each name, chosen by their hash.

    Args:
        names: of all rows.
        choice: lowest stay.
        splits: only training rows are dropped.
        counts: rows of each name.
        sizes: how many stay.
        reason: why others are dropped.
    """
    dropped = np.zeros(len(names), bool)
    for one, size in sizes.items():
        if size < counts[one]:
            rows = np.flatnonzero((names == one.encode(errors="surrogateescape")) & (splits == 0))
            dropped[rows[np.argsort(choice[rows], kind="stable")[size:]]] = True
    total = sum(sizes.values())
    notes = tuple(
        f"{one or 'not named'}: {sizes[one]:,} of {n:,} {SPLITS[0]} rows stay "
        f"({100 * sizes[one] / total:.1f} % of {total:,})"
        for one, n in sorted(counts.items(), key=lambda pair: -pair[1])
    )
    zeros = np.zeros(len(names), np.uint8)
    none = np.full(len(names), -1)
    return Decision(dropped, none, (reason,), zeros, notes, counts=tuple(counts.items()))
