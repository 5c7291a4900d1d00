"""Rows of .json files: one list of objects, alone or in an object, and the tables of pandas."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from instructgpt.data.columns import ASKING, JUDGING, NAMES, TAILS
from instructgpt.data.errors import shorten
from instructgpt.data.json_rows import read_lines
from instructgpt.data.json_window import JsonWindow
from instructgpt.data.opening import Item, opened, raw_lines
from instructgpt.types import UserError

TABLE_LIMIT = 2**28
"""A table that is written column by column has to be read whole; longer columns are refused
(characters)."""

COLUMNS_LIMIT = 10_000
"""More columns than that are rows with names, which are not read whole either."""

NUMBERED = "called by numbers"

_KNOWN = {*ASKING, *TAILS, *JUDGING, *NAMES, "text"}
"""Keys of rows: a list of objects under one of them is a part of a row, not a list of rows."""


def read_document(path: Path, tell: Callable[[str], None]) -> Iterator[Item]:
    """Rows of a .json file.

    Args:
        path: of the file.
        tell: told where the rows are, if not in one list.
    """
    with opened(path) as file:
        text = JsonWindow(path, file)
        first = text.next()
        if first == "[":
            text.step()
            yield from _rows(text)
        elif first == "{" and not _is_lines(path):
            yield from _Object(text, tell).rows()
        elif first == "{":
            tell(f"{path}: one object a line, as in .jsonl")
            yield from read_lines(path)
            return
        elif first:
            raise refused(text)
        if text.next():
            rule = "malformed JSON: nothing may follow the list"
            raise UserError(f"{path}: {rule}, got {text.seen()}")


def refused(text: JsonWindow) -> UserError:
    """What a .json file must be, with what it holds at the position."""
    return UserError(
        f"{text.path}:{text.line()}: a .json file must hold one list of objects, alone or in an "
        "object, or what pandas writes with the orient records, table, split, index or columns "
        f"(one object a line is .jsonl), got {text.seen()}"
    )


def _is_lines(path: Path) -> bool:
    """Whether there is one object a line, and more than one."""
    with closing(raw_lines(path)) as lines:
        full = (raw for _, raw in lines if isinstance(raw, UserError) or raw.strip())
        first = next(full, b"")
        try:
            whole = isinstance(first, bytes) and isinstance(json.loads(first), dict)
        except (ValueError, RecursionError):
            return False
        return whole and next(full, None) is not None


def _rows(text: JsonWindow, names: list[Any] | None = None) -> Iterator[Item]:
    """The elements of a list, whose bracket is behind us, and its end.

    Args:
        text: at the first of them.
        names: of the columns, where each row is a list of cells.
    """
    number = 0
    while not (text.next() == "]" and number == 0):
        number += 1
        where = f"{text.path}:{text.line()} (item {number})"
        value = text.value(where)
        if names and isinstance(value, list):
            value = _named(where, names, value)
        yield Item(where, str(text.path), value)
        end = text.next()
        if end == "]":
            break
        if end != ",":
            rule = 'malformed JSON: must be followed by "," or "]"'
            raise UserError(f"{where}: {rule}, got {text.seen()}")
        text.step()
        text.next()
    text.step()


def _named(where: str, names: list[Any], cells: list[Any]) -> dict[str, Any] | UserError:
    if len(cells) != len(names):
        return UserError(f"{where}: must have {len(names)} cells as the columns, got {len(cells)}")
    return dict(zip(map(str, names), cells, strict=True))


class _Object:
    """An object that holds one list of rows, or a table of pandas.

    Args:
        text: at its bracket.
        tell: told where the rows are.
    """

    def __init__(self, text: JsonWindow, tell: Callable[[str], None]) -> None:
        self.text = text
        self.path = text.path
        self.tell = tell
        self.problem = refused(text)  # where there are no rows
        text.step()
        self.found = ""  # where the rows are
        self.names: list[Any] = []  # of the columns, where rows are lists
        self.tables: dict[str, dict[str, Any]] = {}
        self.others: list[str] = []  # what is there beside rows

    def rows(self) -> Iterator[Item]:
        """The rows, up to the end of the object."""
        while self.text.next() != "}":
            key = self._key()
            start = self.text.next()
            if start == "[":
                self.text.step()
                yield from self._list(key)
            elif start == "{":
                yield from self._inner(key)
            else:
                self._value(key)
                self.others.append(key)
            end = self.text.next()
            if end not in (",", "}"):
                rule = 'malformed JSON: must be followed by "," or "}"'
                raise UserError(f"{self._where(key)}: {rule}, got {self.text.seen()}")
            if end == ",":
                self.text.step()
        self.text.step()
        if self.found:
            others = [*self.tables, *self.others]
            rest = f"; not read: {', '.join(map(shorten, others))}" if others else ""
            self.tell(f"{self.path}: the rows are {self.found}{rest}")
        else:
            yield from self._table()

    def _where(self, key: str) -> str:
        return f"{self.path}:{self.text.line()} ({shorten(key)})"

    def _key(self) -> str:
        where = f"{self.path}:{self.text.line()}"
        key = self.text.value(where) if self.text.next() == '"' else None
        if not isinstance(key, str) or self.text.next() != ":":
            raise UserError(f"{where}: malformed JSON: must be a key, got {self.text.seen()}")
        self.text.step()
        return key

    def _value(self, key: str, limit: int = TABLE_LIMIT) -> Any:
        value = self.text.value(self._where(key), limit)
        if isinstance(value, UserError):
            rule = "write the rows with orient='records', lines=True"
            raise UserError(f"{value}: {rule}") from None
        return value

    def _list(self, key: str) -> Iterator[Item]:
        """Rows, or names of columns."""
        start = self.text.next()
        table = start == "[" and bool(self.names)
        if (start == "{" and key not in _KNOWN) or table:
            if self.found:
                rule = f"must hold one list of rows, got {self.found} too"
                raise UserError(f"{self._where(key)}: {rule}")
            self.found = f'the list "{key}"'
            yield from _rows(self.text, self.names if table else None)
        elif key == "columns":
            self.names = [item.value for item in _rows(self.text)]
        else:
            for _ in _rows(self.text):  # no rows: the index of a table, maybe
                pass
            self.others.append(key)

    def _inner(self, key: str) -> Iterator[Item]:
        """A row that is called by a number, or one column or row of a table."""
        where = self._where(key)
        value = self._value(key)
        labelled = isinstance(value, dict) and all(map(str.isdecimal, value))
        first = not (self.found or self.tables) and key.isdecimal() and not labelled
        if first or self.found == NUMBERED:
            self.found = NUMBERED
            yield Item(where, str(self.path), value)
        elif len(self.tables) == COLUMNS_LIMIT:
            raise self.problem
        else:
            self.tables[key] = value

    def _table(self) -> Iterator[Item]:
        """The rows of a table that was read whole."""
        tables = list(self.tables.values())
        labels = list(tables[0]) if tables and isinstance(tables[0], dict) else []
        alike = all(isinstance(table, dict) and list(table) == labels for table in tables)
        if not (labels and alike) or self.others or self.names:
            raise self.problem
        rows: Iterable[Any]
        if not _KNOWN.isdisjoint(self.tables) or all(map(str.isdecimal, labels)):
            self.tell(f"{self.path}: a table that is written column by column, as by pandas")
            rows = ({key: table[label] for key, table in self.tables.items()} for label in labels)
        elif not _KNOWN.isdisjoint(labels):
            self.tell(f"{self.path}: the rows have names, which are not read")
            rows = tables
        else:
            raise self.problem
        for number, row in enumerate(rows, 1):
            yield Item(f"{self.path}:1 (item {number})", str(self.path), row)
