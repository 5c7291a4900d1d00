"""What happened to the data on its way to the model, told before training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from instructgpt.data.columns import EMPTY
from instructgpt.data.formats import Told
from instructgpt.data.rows import AnyRow, ComparisonRow, LanguageRow, PromptRow

LISTED = 3
"""How many places a line of the summary names."""

COLUMNS = 20
"""How many columns of one use a line of the summary names."""

WARNING = "warning: "
"""How a note begins that should be looked at."""

EXAMPLE = 700
"""Longer examples are shown without their middle (characters)."""

QUANTILES = (5, 25, 50, 75, 95, 100)

LOUD = 0.05
"""Where a limit cuts a greater share than this, a warning says which one would not."""


class Limit(NamedTuple):
    """How many tokens a text may have."""

    texts: str  # what they are called
    loss: str  # what happens to longer ones
    option: str
    tokens: int


@dataclass
class Noted:
    """How often something happened, and where first."""

    count: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, where: str) -> None:
        """Count one."""
        self.count += 1
        if len(self.first) < LISTED and where not in self.first:
            self.first.append(where)


class Summary:
    """Collects counts while data are read, and writes them down as lines."""

    def __init__(self) -> None:
        self.formats: dict[str, Counter[str]] = {}  # by file
        self.columns: dict[str, dict[str, dict[str, None]]] = {}  # by file and use
        self.noted: dict[str, Noted] = {}  # by what was noted
        self.skipped = Noted()  # bad rows, with their messages
        self.dropped: dict[str, Noted] = {}  # by reason
        self.cut: dict[str, Noted] = {}  # by what was cut
        self.lengths: dict[str, list[int]] = {}  # token counts by name
        self.limits: dict[str, Limit] = {}  # by the same names
        self.notes: list[str] = []
        self.example = ""

    def read(self, origin: str, format_name: str, where: str, told: Told) -> None:
        """Count a row of a file, and what has happened to it."""
        self.formats.setdefault(origin, Counter())[format_name] += 1
        uses = self.columns.setdefault(origin, {})
        for column, use in told.columns.items():
            uses.setdefault(use, {})[column] = None
        for note in dict.fromkeys(told.notes):
            self.noted.setdefault(note, Noted()).add(where)
        if told.left_out:
            self.drop(told.left_out, where)

    def skip(self, origin: str, message: str) -> None:
        """Count a bad row."""
        self.formats.setdefault(origin, Counter())["bad"] += 1
        self.skipped.add(message)

    def drop(self, reason: str, where: str) -> None:
        """Count a row that is left out."""
        self.dropped.setdefault(reason, Noted()).add(where)

    def shorten(self, what: str, where: str) -> None:
        """Count a text that loses tokens."""
        self.cut.setdefault(what, Noted()).add(where)

    def measure(self, name: str, tokens: int, limit: Limit | None = None) -> None:
        """Count the tokens of a text, of which there may be so many."""
        self.lengths.setdefault(name, []).append(tokens)
        if limit is not None:
            self.limits[name] = limit

    def note(self, line: str) -> None:
        """Add a line."""
        self.notes.append(line)

    def losses(self) -> str:
        """Why rows are missing, in one line."""
        reasons = [
            f"{noted.count:,} {reason} ({', '.join(noted.first)})"
            for reason, noted in self.dropped.items()
        ]
        if self.skipped.count:
            reasons.append(f"{self.skipped.count:,} bad ({self.skipped.first[0]})")
        return "; ".join(reasons) or "none were read"

    def reading(self) -> list[str]:
        """What was read: formats, what columns are used as, what happened to rows."""
        lines = []
        for origin, formats in self.formats.items():
            names = ", ".join(f"{count:,} {name}" for name, count in formats.items())
            lines.append(f"read {origin}: {names}")
            lines += _columns(self.columns.get(origin, {}))
        if self.skipped.count:
            lines.append(f"skipped {self.skipped.count:,} bad rows, the first:")
            lines += [f"  {message}" for message in self.skipped.first]
        for note, noted in self.noted.items():
            what = note.removeprefix(WARNING)
            start = WARNING if what != note else ""
            rows = "row" if noted.count == 1 else "rows"
            places = ", ".join(noted.first)
            lines.append(f"{start}{noted.count:,} {rows} {what} (first: {places})")
        return lines

    def lines(self) -> list[str]:
        """Everything, to print."""
        lines = self.reading()
        for verb, table in (("dropped", self.dropped), ("cut", self.cut)):
            for reason, noted in table.items():
                lines.append(f"{verb} {noted.count:,}: {reason} (first: {', '.join(noted.first)})")
        lines += self.notes
        lines += [f"{name}: {quantiles(values)}" for name, values in self.lengths.items()]
        if self.example:
            marked = ", the trained part in ⟦ ⟧" if "⟦" in self.example else ""
            lines.append(f"example{marked}:")
            lines += [f"  | {line}" for line in self.example.split("\n")]
        warnings = (warning(limit, self.lengths[name]) for name, limit in self.limits.items())
        return lines + [line for line in warnings if line is not None]


def warning(limit: Limit, lengths: Sequence[int]) -> str | None:
    """A line about a limit that cuts more than a few texts.

    >>> warning(Limit("prompts", "lose their beginning", "--max", 8), [6, 7, 8, 9, 12])
    'warning: 2 of 5 prompts (40 %) lose their beginning: --max 12 would keep all'
    """
    longer = sum(length > limit.tokens for length in lengths)
    if longer <= LOUD * len(lengths):
        return None
    share, most = f"{longer / len(lengths):.0%}".replace("%", " %"), max(lengths)
    usual = nearest_rank(sorted(lengths), 95)
    less = f", {usual} 95 % of them" if usual < most else ""
    return (
        f"warning: {longer:,} of {len(lengths):,} {limit.texts} ({share}) {limit.loss}: "
        f"{limit.option} {most} would keep all{less}"
    )


def _columns(uses: dict[str, dict[str, None]]) -> list[str]:
    """What each column of a file is used as, in one line; empty cells only where all are."""
    filled = {column for use, columns in uses.items() if use != EMPTY for column in columns}
    parts = []
    for use, columns in uses.items():
        names = [
            name if name and name == name.strip() else repr(name)
            for name in columns
            if use != EMPTY or name not in filled
        ]
        if names:
            more = f" and {len(names) - COLUMNS:,} more" if len(names) > COLUMNS else ""
            parts.append(f"{', '.join(names[:COLUMNS])}{more} {use}")
    return [f"  columns: {'; '.join(parts)}"] if parts else []


def quantiles(values: Sequence[int]) -> str:
    """Nearest-rank quantiles.

    >>> quantiles(range(1, 101))
    '5% 5 · 25% 25 · 50% 50 · 75% 75 · 95% 95 · max 100'
    """
    ordered = sorted(values)
    shown = [nearest_rank(ordered, q) for q in QUANTILES]
    names = [f"{q}%" for q in QUANTILES[:-1]] + ["max"]
    return " · ".join(f"{name} {value:,}" for name, value in zip(names, shown, strict=True))


def nearest_rank(ordered: Sequence[int], percent: int) -> int:
    """The smallest value that so many percent do not exceed."""
    return ordered[max(0, -(-percent * len(ordered) // 100) - 1)]


def show(row: AnyRow, tokenizer: PreTrainedTokenizerBase) -> str:
    """A row as the model sees it, special tokens included."""

    def text(tokens: Tensor) -> str:
        decoded = str(tokenizer.decode(tokens))
        if len(decoded) <= EXAMPLE:
            return decoded
        return f"{decoded[: EXAMPLE // 2]} […] {decoded[-EXAMPLE // 2 :]}"

    if isinstance(row, LanguageRow):
        return "\n".join(
            f"{text(row.tokens[start:trained])}⟦{text(row.tokens[trained:end])}⟧"
            for start, trained, end in row.spans[:2]
        )
    if isinstance(row, PromptRow):
        return text(row.tokens)
    assert isinstance(row, ComparisonRow)
    split = len(row.sequences[0]) - row.response_lengths[0]
    responses = zip(row.sequences, row.response_lengths, row.ranking, strict=True)
    return "\n".join(
        [text(row.sequences[0][:split])]
        + [f"rank {rank}: {text(tokens[-length:])}" for tokens, length, rank in responses]
    )
