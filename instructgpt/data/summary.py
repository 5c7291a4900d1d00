"""What happened to the data on its way to the model, told before training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from operator import attrgetter
from typing import Any

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from instructgpt.data.columns import EMPTY
from instructgpt.data.formats import Told
from instructgpt.data.rows import AnyRow, ComparisonRow, LanguageRow, PromptRow
from instructgpt.data.tallies import Count, First, Lengths, Limit, Named, Noted
from instructgpt.types import Diagnosis

FILES, LISTED_FILES = 1000, 20
"""How many files are told apart, and how many of them have lines of their own."""

COLUMNS, LISTED_COLUMNS = 100, 20
"""How many columns of one use are told apart in a file, and how many of them a line names."""

REASONS = 100
"""How many notes, reasons, and names of lengths are told apart."""

NOTES = 100
"""How many notes of no row are kept from the beginning, and as many from the end."""

WARNING = "warning: "
"""How a note begins that should be looked at."""

EXAMPLE = 700
"""Longer examples are shown without their middle (characters)."""


class ReadFile:
    """What was read of a file."""

    def __init__(self) -> None:
        self.formats: Counter[str] = Counter()
        self.columns: Named[Named[Count]] = Named(partial(Named, Count, COLUMNS), REASONS)  # by use

    def merge(self, other: ReadFile) -> None:
        """Take in what the part behind has counted."""
        self.formats.update(other.formats)
        self.columns.merge(other.columns)

    def to_json(self) -> dict[str, Any]:
        """All of it in types of JSON."""
        columns = self.columns.to_json(lambda use: use.to_json(attrgetter("count")))
        return {"formats": self.formats, "columns": columns}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> ReadFile:
        """What ``to_json`` has written."""
        seen = cls()
        seen.formats.update(found["formats"])
        seen.columns.fill(found["columns"], lambda use: Named(Count, COLUMNS).fill(use, Count))
        return seen


class Summary:
    """Collects counts while data are read, and writes them down as lines.

    Parts of the data may be counted apart, in any process: merged in their order they make the
    same summary as the whole.
    """

    def __init__(self) -> None:
        self.formats: Counter[str] = Counter()  # of all files
        self.files: Named[ReadFile] = Named(ReadFile, FILES)
        self.noted: Named[Noted] = Named(Noted, REASONS)  # by what was noted
        self.skipped = Noted()  # bad rows, with their messages
        self.dropped: Named[Noted] = Named(Noted, REASONS)  # by reason
        self.cut: Named[Noted] = Named(Noted, REASONS)  # by what was cut
        self.lengths: Named[Lengths] = Named(Lengths, REASONS)  # token counts by name
        self.told: Named[First] = Named(First, REASONS)  # notes, by what is told once
        self.notes: list[str] = []  # the first ones
        self.last_notes: list[str] = []
        self.notes_between = 0
        self.example = ""

    def read(self, origin: str, format_name: str, where: str, told: Told) -> None:
        """Count a row of a file, and what has happened to it."""
        seen = self.files.at(origin)
        seen.formats[format_name] += 1
        self.formats[format_name] += 1
        for column, use in told.columns.items():
            seen.columns.at(use).at(column).count += 1
        for note in dict.fromkeys(told.notes):
            self.noted.at(note).add(where)
        if told.left_out:
            self.drop(told.left_out, where)

    def skip(self, origin: str, message: str) -> None:
        """Count a bad row."""
        self.files.at(origin).formats["bad"] += 1
        self.formats["bad"] += 1
        self.skipped.add(message)

    def drop(self, reason: str, where: str) -> None:
        """Count a row that is left out."""
        self.dropped.at(reason).add(where)

    def shorten(self, what: str, where: str) -> None:
        """Count a text that loses tokens."""
        self.cut.at(what).add(where)

    def measure(self, name: str, tokens: int, limit: Limit | None = None) -> None:
        """Count the tokens of a text, of which there may be so many."""
        self.lengths.at(name).add(tokens, limit)

    def note(self, line: str) -> None:
        """Add a line."""
        if len(self.notes) < NOTES:
            self.notes.append(line)
            return
        self.last_notes.append(line)
        if len(self.last_notes) > NOTES:
            del self.last_notes[0]
            self.notes_between += 1

    def tell(self, line: str) -> None:
        """Add a line, unless there is one that differs only in where something was first."""
        self.told.at(line.partition(" (first: ")[0]).merge(First(line))

    def merge(self, other: Summary) -> None:
        """Take in what the part behind has counted."""
        self.formats.update(other.formats)
        for name in NAMED:
            getattr(self, name).merge(getattr(other, name))
        self.skipped.merge(other.skipped)
        for line in (*other.notes, *other.last_notes):
            self.note(line)
        self.notes_between += other.notes_between
        self.example = self.example or other.example

    def to_json(self) -> dict[str, Any]:
        """All of it in types of JSON."""
        named = {name: getattr(self, name).to_json(write) for name, (write, _) in NAMED.items()}
        return {**vars(self), **named, "skipped": vars(self.skipped)}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Summary:
        """What ``to_json`` has written, also as JSON gives it back."""
        summary = cls()
        vars(summary).update({name: found[name] for name in PLAIN})
        summary.formats, summary.skipped = Counter(found["formats"]), Noted(**found["skipped"])
        for name, (_, read) in NAMED.items():
            getattr(summary, name).fill(found[name], read)
        return summary

    def losses(self) -> str:
        """Why rows are missing, in one line."""
        reasons = [
            f"{noted.count:,} {reason} ({noted.places()})" for reason, noted in self.dropped.items()
        ]
        if rest := _uncounted(self.dropped):
            reasons.append(f"{rest:,} for other reasons")
        if self.skipped.count:
            reasons.append(f"{self.skipped.count:,} bad ({self.skipped.first[0]})")
        return "; ".join(reasons) or "none were read"

    def uses(self) -> set[str]:
        """What columns are used as."""
        return {use for seen in self.files.values() for use in seen.columns}

    def all_notes(self) -> list[str]:
        """Lines that were added, with a word for those there was no room for."""
        told = [first.line for first in self.told.values()]
        told += ["… more such notes …"] if self.told.full else []
        between = [f"… {self.notes_between:,} more notes …"] if self.notes_between else []
        return [*told, *self.notes, *between, *self.last_notes]

    def reading(self) -> list[str]:
        """What was read: formats, what columns are used as, what happened to rows."""
        lines = []
        listed, rest = 0, ReadFile()
        rest.formats.update(self.formats)
        for origin, seen in self.files.items():
            if listed < LISTED_FILES:
                listed += 1
                rest.formats.subtract(seen.formats)
                lines += _read(origin, seen)
            else:
                rest.columns.merge(seen.columns)
        if further := self.files.more(listed):
            lines += _read(f"{further} further files", rest)
        if self.skipped.count:
            lines.append(f"skipped {self.skipped.count:,} bad rows, the first:")
            lines += [f"  {message}" for message in self.skipped.first]
        for note, noted in self.noted.items():
            what = note.removeprefix(WARNING)
            start = WARNING if what != note else ""
            rows = "row" if noted.count == 1 else "rows"
            lines.append(f"{start}{noted.count:,} {rows} {what} (first: {noted.places()})")
        if rest_of_notes := _uncounted(self.noted):
            lines.append(f"{rest_of_notes:,} times something else was to be said of a row")
        return lines

    def lines(self) -> list[str]:
        """Everything, to print."""
        lines = self.reading()
        for verb, table in (("dropped", self.dropped), ("cut", self.cut)):
            for reason, noted in table.items():
                lines.append(f"{verb} {noted.count:,}: {reason} (first: {noted.places()})")
            if rest := _uncounted(table):
                lines.append(f"{verb} {rest:,}: for other reasons")
        lines += self.all_notes()
        lines += [f"{name}: {lengths.quantiles()}" for name, lengths in self.lengths.items()]
        if self.example:
            marked = ", the trained part in ⟦ ⟧" if "⟦" in self.example else ""
            lines.append(f"example{marked}:")
            lines += [f"  | {line}" for line in self.example.split("\n")]
        return lines + [f"{WARNING}doctor: {one.name}: {one}" for one in self.findings()]

    def findings(self) -> list[Diagnosis]:
        """What a user should look at of the lengths."""
        found = (lengths.finding() for lengths in self.lengths.values())
        return [one for one in found if one is not None]


PLAIN = ("notes", "last_notes", "notes_between", "example")
NAMED: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "files": (ReadFile.to_json, ReadFile.from_json),
    "noted": (vars, lambda found: Noted(**found)),
    "dropped": (vars, lambda found: Noted(**found)),
    "cut": (vars, lambda found: Noted(**found)),
    "told": (attrgetter("line"), First),
    "lengths": (Lengths.to_json, Lengths.from_json),
}
"""What of a summary is by name, and how it is written as JSON and read."""


def _uncounted(table: Named[Noted]) -> int:
    """How often something happened whose name found no room."""
    return table.total - sum(noted.count for noted in table.values())


def _read(what: str, seen: ReadFile) -> list[str]:
    counts = [f"{count:,} {name}" for name, count in seen.formats.items() if count]
    return [f"read {what}: {', '.join(counts)}", *_columns(seen.columns)]


def _columns(uses: Named[Named[Count]]) -> list[str]:
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
            hidden = len(columns) - len(names)  # cells that are empty in some rows only
            more = columns.more(hidden + min(len(names), LISTED_COLUMNS))
            end = f" and {more} more" if more else ""
            parts.append(f"{', '.join(names[:LISTED_COLUMNS])}{end} {use}")
    return [f"  columns: {'; '.join(parts)}"] if parts else []


def show(row: AnyRow, tokenizer: PreTrainedTokenizerBase) -> str:
    """A row as the model sees it, special tokens included."""

    def text(tokens: Tensor) -> str:
        decoded = str(tokenizer.decode(tokens))
        if len(decoded) <= EXAMPLE:
            return decoded
        return f"{decoded[: EXAMPLE // 2]} […] {decoded[-EXAMPLE // 2 :]}"

    if isinstance(row, LanguageRow):
        return f"{text(row.tokens[: row.trained])}⟦{text(row.tokens[row.trained :])}⟧"
    if isinstance(row, PromptRow):
        return text(row.tokens)
    assert isinstance(row, ComparisonRow)
    responses = zip(row.ranking, row.responses, strict=True)
    return "\n".join(
        [text(row.prompt), *(f"rank {rank}: {text(tokens)}" for rank, tokens in responses)]
    )
