"""What a rule did, counted so that the accounts of parts add up to that of the whole."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from instructgpt.hygiene.base import Verdict
from instructgpt.hygiene.clean_row import CleanRow

EXAMPLES = 3
"""How many examples of one reason are shown."""

EXAMPLE_LENGTH = 400
"""Longer examples lose their end (characters)."""

REASONS = 100
"""More reasons than that are counted as one."""

OTHERS = "other reasons"


def shown(text: str, mask: Callable[[str], str]) -> str:
    """A text as a report may show it.

    Args:
        text: of a row.
        mask: takes personal data out; it sees more than is shown, so that none is cut in two.
    """
    text = mask(text[: 4 * EXAMPLE_LENGTH])
    return text if len(text) <= EXAMPLE_LENGTH else text[: EXAMPLE_LENGTH - 1] + "…"


def beginning(row: CleanRow) -> str:
    """What stands for a row in a report."""
    return "\n\n".join([row.asked if row.kind != "text" else row.text, *row.responses[:1]])


@dataclass(frozen=True)
class Example:
    """A row that was dropped or changed; ``place`` and ``text`` of the row that stays, if any."""

    place: str
    text: str
    stays: str = ""
    instead: str = ""


@dataclass
class Account:
    """What became of the rows that came to a rule; splits are "" before they are decided on."""

    came: dict[str, int] = field(default_factory=dict)  # split -> rows
    dropped: dict[str, int] = field(default_factory=dict)
    changed: dict[str, int] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[Example]] = field(default_factory=dict)  # by reason
    notes: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)  # of rules on all rows

    def add(self, row: CleanRow, verdict: Verdict, mask: Callable[[str], str]) -> None:
        """Count what was said of a row.

        Args:
            row: as it came.
            verdict: of the rule.
            mask: takes personal data out of examples.
        """
        count(self.came, row.split)
        left = verdict.row
        if left is row and not verdict.reasons:
            return
        if left is None:
            count(self.dropped, row.split)
        elif left is not row:
            count(self.changed, row.split)
        for reason in verdict.reasons or ("no reason given",):
            reason = self._known(reason)
            count(self.reasons, reason)
            examples = self.examples.setdefault(reason, [])
            if len(examples) < EXAMPLES:
                text = verdict.example or beginning(row)
                instead = "" if left is None or left is row else shown(beginning(left), mask)
                examples.append(Example(row.where, shown(text, mask), "", instead))

    def _known(self, reason: str) -> str:
        known = reason in self.reasons or len(self.reasons) < REASONS
        return reason if known else OTHERS

    def merge(self, other: Account) -> None:
        """Add the account of the rows that come next."""
        for mine, theirs in (
            (self.came, other.came),
            (self.dropped, other.dropped),
            (self.changed, other.changed),
        ):
            for split, n in theirs.items():
                count(mine, split, n)
        for reason, n in other.reasons.items():
            mine_named = self._known(reason)
            count(self.reasons, mine_named, n)
            examples = self.examples.setdefault(mine_named, [])
            examples += other.examples.get(reason, [])[: EXAMPLES - len(examples)]
        self.notes += other.notes

    def to_json(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Account:
        """What ``to_json`` has made."""
        examples = {
            reason: [Example(**one) for one in some] for reason, some in found["examples"].items()
        }
        return cls(**{**found, "examples": examples})


def count(table: dict[str, int], key: str, n: int = 1) -> None:
    """Add to a table of counts."""
    table[key] = table.get(key, 0) + n


def merged(parts: Iterable[Mapping[str, Any]]) -> Account:
    """The account of the whole."""
    whole = Account()
    for part in parts:
        whole.merge(Account.from_json(part))
    return whole


NAMES = 200
"""How many use cases or sources are told apart."""


@dataclass
class Outcome:
    """What is in the files at the end."""

    rows: dict[str, int] = field(default_factory=dict)  # split -> rows
    characters: dict[str, int] = field(default_factory=dict)  # split -> of all texts
    use_cases: dict[str, int] = field(default_factory=dict)  # of all splits
    sources: dict[str, int] = field(default_factory=dict)  # of training rows
    lengths: dict[str, dict[str, int]] = field(default_factory=dict)  # what -> tokens' power of 2

    def add(self, row: CleanRow, use_case: str, tokens: Callable[[str], int]) -> None:
        """Count a row that is written."""
        count(self.rows, row.split)
        count(self.characters, row.split, sum(map(len, row.texts)))
        if use_case:
            _count_named(self.use_cases, use_case)
        if row.split == "train":
            _count_named(self.sources, row.source)
        texts = {"text": [row.text]} if row.kind == "text" else {}
        if not texts:
            texts = {"prompts": ["\n\n".join(row.texts[: len(row.messages)])]}
            texts |= {"responses": row.responses} if row.responses else {}
        for what, some in texts.items():
            table = self.lengths.setdefault(what, {})
            for one in some:
                count(table, str(max(tokens(one), 1).bit_length() - 1))

    def merge(self, other: Outcome) -> None:
        """Add what comes next."""
        for key in ("rows", "characters"):
            for name, n in getattr(other, key).items():
                count(getattr(self, key), name, n)
        for key in ("use_cases", "sources"):
            for name, n in getattr(other, key).items():
                _count_named(getattr(self, key), name, n)
        for what, table in other.lengths.items():
            for size, n in table.items():
                count(self.lengths.setdefault(what, {}), size, n)


def _count_named(table: dict[str, int], name: str, n: int = 1) -> None:
    name = name if name in table or len(table) < NAMES else "…"
    count(table, name, n)
