"""Rows of tables as text: comma, semicolon or tab between the cells."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from instructgpt.data.errors import bad, shorten
from instructgpt.data.opening import LINE_LIMIT, Item, plain_name, raw_lines
from instructgpt.data.rankings import SCORES
from instructgpt.data.values import DECODER
from instructgpt.types import UserError

SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab"}

HEADER_LIMIT = 2**20
"""Longer headers have a quote that does not end (characters)."""

_LISTS = ("messages", "conversations", "responses", "ranking", "ratings")
_SAID = re.compile(r'"?sep=(.)"?', re.IGNORECASE)
_DECIMAL = re.compile(r"[-+]?\d+,\d+")
_QUOTED = re.compile(r'(^|[,;\t])"(?:[^"]|"")*+"', re.MULTILINE)


def read_table(path: Path, tell: Callable[[str], None]) -> Iterator[Item]:
    """Rows of a .csv or .tsv file.

    Args:
        path: of the file.
        tell: told about a separator that the extension does not name.
    """
    csv.field_size_limit(LINE_LIMIT)
    usual = "\t" if plain_name(path).endswith(".tsv") else ","
    dialect = _dialect(path, usual)
    if dialect.separator != usual:
        tell(f"{path}: separator {dialect.separator!r}")
    lines = _text_lines(path)
    skipped = _skip_first(lines) if dialect.is_said else 0
    reader = csv.reader(lines, delimiter=dialect.separator, strict=True)
    header: list[str] = []
    decimal: set[str] = set()  # columns with a comma where others have a point
    while True:
        where = f"{path}:{reader.line_num + skipped + 1}"
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise UserError(f"{where}: malformed CSV: {error}") from None
        if cells is None:
            return
        if not any(cell.strip() for cell in cells) and len(cells) != 1:  # as spreadsheets end
            continue
        if not header:
            header = _without_end(cells, 0)
            if len(set(header)) < len(header):
                raise UserError(f"{where}: column names must differ, got {shorten(header)}")
            continue
        row = _table_row(where, header, cells)
        if dialect.separator == ";" and isinstance(row, dict):
            for key in _with_points(row) - decimal:
                decimal.add(key)
                tell(f'{path}: column "{key}" has decimal commas (first: {where})')
        yield Item(where, str(path), row)


class _Dialect(NamedTuple):
    """How a table is written."""

    separator: str
    is_said: bool  # by a first line of its own, as Excel writes it


def _dialect(path: Path, usual: str) -> _Dialect:
    """The separator that stands in the header, outside of quotes, or is said before it."""
    header = _header(path)
    said = _SAID.fullmatch(header.strip("\r\n"))
    bare = said[1] if said else _QUOTED.sub(r"\1", header)
    found = [one for one in SEPARATORS if one in bare]
    if len(found) > 1:
        names = " and ".join(SEPARATORS[one] for one in found)
        raise UserError(
            f"{path}:1: the header must have one separator (comma, semicolon or tab; names that "
            f"hold another stand in quotes), got {names}: {shorten(bare.strip())}"
        )
    if said and not found:
        rule = "the separator must be a comma, a semicolon or a tab"
        raise UserError(f"{path}:1: {rule}, got {shorten(header.strip())}")
    return _Dialect(found[0] if found else usual, bool(said))


def _skip_first(lines: Iterator[str]) -> int:
    """Go behind the first line that is not empty; how many lines that were."""
    return next(number for number, line in enumerate(lines, 1) if line.strip())


def _header(path: Path) -> str:
    """The first line that is not empty, with those after it where a name in quotes goes on."""
    first = text = ""
    with closing(_text_lines(path)) as lines:
        for line in lines:
            text += line
            first = first or line.strip("\r\n")
            if (first and text.count('"') % 2 == 0) or len(text) > HEADER_LIMIT:
                break
    return text if text.count('"') % 2 == 0 else first


def _text_lines(path: Path) -> Generator[str, None, None]:
    """Lines; what is not UTF-8 becomes half surrogates, for which its row is refused."""
    for _, raw in raw_lines(path):
        if isinstance(raw, UserError):
            raise raw
        yield raw.decode(errors="surrogateescape")


def _without_end(cells: list[str], least: int) -> list[str]:
    """Cells without the empty ones that spreadsheets leave behind the last column."""
    count = len(cells)
    while count > least and not cells[count - 1].strip():
        count -= 1
    return cells[:count]


def _with_points(row: dict[str, Any]) -> set[str]:
    """Give numbers with a comma a point, in columns of scores; the columns where that was so."""
    changed = set()
    for key, cell in row.items():
        scored = any(word in key.lower() for word in (*SCORES, "margin"))
        if scored and isinstance(cell, str) and _DECIMAL.fullmatch(cell.strip()):
            row[key] = cell.strip().replace(",", ".")
            changed.add(key)
    return changed


def _table_row(where: str, header: list[str], cells: list[str]) -> dict[str, Any] | UserError:
    """One row; the cells of keys that hold lists are JSON."""
    cells = _without_end(cells, len(header))
    if len(cells) != len(header):
        return UserError(f"{where}: must have {len(header)} cells as the header, got {len(cells)}")
    row: dict[str, Any] = dict(zip(header, cells, strict=True))
    for key in _LISTS:
        if key in row:
            try:
                row[key] = DECODER.decode(row[key].strip()) if row[key].strip() else None
            except (ValueError, RecursionError):
                return bad(where, key, "must be JSON in a CSV cell", row[key])
    return row
