"""Rows of tables as text: comma, semicolon or tab between the cells."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from instructgpt.data.errors import bad, shorten
from instructgpt.data.opening import LINE_LIMIT, Item, raw_lines
from instructgpt.data.values import DECODER
from instructgpt.types import UserError

SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab"}

HEADER_LIMIT = 2**20
"""Longer headers have a quote that does not end (characters)."""

_LISTS = ("messages", "conversations", "responses", "ranking", "ratings")
_QUOTED = re.compile(r'(^|[,;\t])"(?:[^"]|"")*+"', re.MULTILINE)


def read_table(path: Path, tell: Callable[[str], None]) -> Iterator[Item]:
    """Rows of a .csv or .tsv file.

    Args:
        path: of the file.
        tell: told about a separator that the extension does not name.
    """
    csv.field_size_limit(LINE_LIMIT)
    usual = "\t" if path.name.lower().removesuffix(".gz").endswith(".tsv") else ","
    separator = _separator(path, usual)
    if separator != usual:
        tell(f"{path}: separator {separator!r}")
    reader = csv.reader(_text_lines(path), delimiter=separator, strict=True)
    header: list[str] = []
    while True:
        where = f"{path}:{reader.line_num + 1}"
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
        yield Item(where, str(path), _table_row(where, header, cells))


def _separator(path: Path, usual: str) -> str:
    """The separator that stands in the header, outside of quotes."""
    bare = _QUOTED.sub(r"\1", _header(path))
    found = [one for one in SEPARATORS if one in bare]
    if len(found) > 1:
        names = " and ".join(SEPARATORS[one] for one in found)
        raise UserError(
            f"{path}:1: the header must have one separator (comma, semicolon or tab; names that "
            f"hold another stand in quotes), got {names}: {shorten(bare.strip())}"
        )
    return found[0] if found else usual


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
