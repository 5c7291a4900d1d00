"""What a rule is: it looks at one row, or at compact keys of all rows at once.

A rule is a frozen dataclass; its fields are options of ``prepare``, with the paper's values as
defaults. It is a function of what it reads: the same rows give the same verdicts, in any process,
and rows that a rule has let pass pass it again.
"""

from __future__ import annotations

import hashlib
from abc import ABCMeta, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from instructgpt.hygiene.clean_row import CleanRow


class Verdict(NamedTuple):
    """What a rule says of a row: kept as it is, changed, or dropped (``row`` is None).

    ``reasons`` are counted in the report, such as ``("e-mail", "phone")``; a row may be kept
    unchanged and still have some ("reported"). ``example`` is what the report shows of it, such as
    the words around what was found; personal data in it are masked before it is written. "": the
    beginning of the row.
    """

    row: CleanRow | None
    reasons: tuple[str, ...] = ()
    example: str = ""


@dataclass(frozen=True)
class Rule(metaclass=ABCMeta):  # no ABC, which is no dataclass: options would be of a class
    """A rule of either kind."""

    name: ClassVar[str]
    """The option of ``prepare`` that the rule's own options stand under."""

    title: ClassVar[str]
    """What it is called in the report."""

    def check_options(self, kind: str) -> None:  # noqa: B027 - most rules have nothing to refuse
        """Refuse options that cannot be, and what is missing (an extra, a file); before any work.

        Args:
            kind: of the rows.

        Raises:
            UserError: in one line.
        """

    def is_on(self, kind: str) -> bool:
        """Whether it has anything to do, with these options and rows of this kind."""
        return True

    def options(self) -> dict[str, Any]:
        """Its options as plain values, for the report and to know an output that is up to date."""
        return asdict(self)  # type: ignore[call-overload, no-any-return]

    def made_from(self) -> list[str]:
        """Files and folders that its verdicts depend on besides its options and the rows."""
        return []


@dataclass(frozen=True)
class RowRule(Rule):
    """Looks at one row at a time."""

    @abstractmethod
    def check(self, row: CleanRow) -> Verdict:
        """What becomes of a row.

        Args:
            row: as the rules before have left it; ``row.split`` is known.
        """

    def check_all(self, rows: Sequence[CleanRow]) -> list[Verdict]:
        """The same for many rows, for rules that are faster so; never depends on which they are."""
        return [self.check(row) for row in rows]


Keys = Mapping[str, np.ndarray]
"""Names -> arrays with one entry (or one row of entries) for each row, in their order."""


class Decision(NamedTuple):
    """What a rule over all rows says; arrays have one entry for each row that came to it."""

    dropped: np.ndarray  # bool
    because: np.ndarray  # int64: the row that stays in its place, -1 where none does
    reasons: tuple[str, ...]  # what may be counted
    reason: np.ndarray  # uint8: place in ``reasons`` of why a row is dropped
    notes: tuple[str, ...] = ()  # lines for the report
    split: np.ndarray | None = None  # uint8: place in SPLITS, of the rule that decides on them
    counts: tuple[tuple[str, int], ...] = ()  # numbers for the report, such as rows of a class


@dataclass(frozen=True)
class GlobalRule(Rule):
    """Looks at all rows at once, but only at compact keys of them (some hundred bytes a row)."""

    @abstractmethod
    def keys(self, rows: Sequence[CleanRow]) -> dict[str, np.ndarray]:
        """Compact keys of some rows: a function of each row alone, computed in any process.

        Args:
            rows: at least one.
        """

    @abstractmethod
    def decide(self, keys: Keys, splits: np.ndarray) -> Decision:
        """Which rows are dropped, in one process.

        Args:
            keys: of all rows that the rules before have left, in their order; an array is read
                when it is asked for.
            splits: uint8: place of each row's split in SPLITS (all 0 before splits are decided on).
        """


def keep_all(count: int, notes: tuple[str, ...] = ()) -> Decision:
    """Nothing is dropped.

    Args:
        count: of rows.
        notes: lines for the report.
    """
    nothing = np.zeros(count, bool)
    return Decision(nothing, np.full(count, -1), (), nothing.astype(np.uint8), notes)


def digest(texts: Sequence[str]) -> np.ndarray:
    """64 bits of each text, the same on every machine.

    Args:
        texts: any.
    """
    raw = b"".join(
        hashlib.blake2b(one.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        for one in texts
    )
    return np.frombuffer(raw, dtype=">u8").astype(np.uint64)
