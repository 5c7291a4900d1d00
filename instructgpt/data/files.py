"""Rows of files, each with the place it came from, so that every complaint names file and line."""

from __future__ import annotations

import csv
import gzip
import json
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

from instructgpt.data.errors import bad, shorten
from instructgpt.types import UserError

LINE_LIMIT = 8 * 2**20
"""Longer rows are refused: they are a wrong file more often than a row (bytes)."""

SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".csv", ".csv.gz", ".parquet")

_MARKS = {b"\xef\xbb\xbf": "UTF-8", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}
_SPACE = re.compile(r"[ \t\n\r]*")
_LISTS = ("messages", "responses", "ranking", "ratings")


class Item(NamedTuple):
    """A row as read, or what is wrong with its line."""

    where: str  # file:line
    origin: str  # the file or data set
    value: Any  # a parsed value, or a UserError


def is_known(path: Path) -> bool:
    """Whether the name ends like a file we can read."""
    return path.name.lower().endswith(SUFFIXES)


def read_file(path: Path) -> Iterator[Item]:
    """Read a file row by row.

    Args:
        path: ending in one of ``SUFFIXES``.

    Yields:
        Rows in order; a row that cannot be parsed is an item with a ``UserError``.

    Raises:
        UserError: the file as a whole cannot be read: missing, unknown extension, broken gzip,
            byte order mark, no rows.
    """
    name = path.name.lower().removesuffix(".gz")
    if not is_known(path):
        raise UserError(f"{path}: extension must be one of {', '.join(SUFFIXES)}")
    readers = {".jsonl": _read_lines, ".json": _read_array, ".csv": _read_table}
    reader = next((r for end, r in readers.items() if name.endswith(end)), _read_parquet)
    empty = True
    for item in reader(path):
        empty = False
        yield item
    if empty:
        raise UserError(f"{path}: must hold at least one row, got an empty file")


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    try:
        with gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb") as file:
            yield file  # type: ignore[misc]
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{path}: must be a whole gzip file, got: {error}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None


def _check_mark(path: Path, start: bytes) -> None:
    for mark, encoding in _MARKS.items():
        if start.startswith(mark):
            raise UserError(
                f"{path}:1: must be UTF-8 without byte order mark, got the mark of {encoding}"
            )


def _raw_lines(path: Path) -> Iterator[tuple[str, bytes | UserError]]:
    """Lines by line feed alone: other Unicode separators may stand inside a JSON string."""
    with _opened(path) as file:
        number = 0
        while raw := file.readline(LINE_LIMIT + 1):
            number += 1
            where = f"{path}:{number}"
            if number == 1:
                _check_mark(path, raw)
            if len(raw) <= LINE_LIMIT:
                yield where, raw
                continue
            while raw and not raw.endswith(b"\n"):
                raw = file.readline(LINE_LIMIT)
            yield where, UserError(f"{where}: must be at most 8 MiB long, got a longer line")


def _decode(where: str, raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        got = shorten(raw[error.start : error.start + 8])
        raise UserError(f"{where}: must be UTF-8, got {got} at byte {error.start + 1}") from None


def _parse(where: str, text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = f"{error.msg} at column {error.colno}"
    except RecursionError:
        place = "nested too deeply"
    except ValueError as error:
        place = str(error).split(";")[0]
    raise UserError(f"{where}: malformed JSON: {place}, got {shorten(text.strip())}")


def _read_lines(path: Path) -> Iterator[Item]:
    for where, raw in _raw_lines(path):
        value: Any
        try:
            if isinstance(raw, UserError):
                raise raw
            if not raw.strip():
                continue
            value = _parse(where, _decode(where, raw))
        except UserError as error:
            value = error
        yield Item(where, str(path), value)


def _read_array(path: Path) -> Iterator[Item]:
    with _opened(path) as file:
        raw = file.read()
    _check_mark(path, raw)
    if not raw.strip():
        return
    text = _decode(str(path), raw)
    position = _skip(text, 0)
    if not text.startswith("[", position):
        raise UserError(
            f"{path}:1: a .json file must hold one list of objects (one object a line is .jsonl), "
            f"got {shorten(text[position : position + 80])}"
        )
    decoder, line, counted, number = json.JSONDecoder(), 1, 0, 0
    position = _skip(text, position + 1)
    while not (number == 0 and text.startswith("]", position)):
        line, counted, number = line + text.count("\n", counted, position), position, number + 1
        where = f"{path}:{line} (item {number})"
        try:
            value, end = decoder.raw_decode(text, position)
        except (ValueError, RecursionError):
            got = shorten(text[position : position + 80])
            raise UserError(f"{where}: malformed JSON, got {got}") from None
        if end - position > LINE_LIMIT:
            value = UserError(f"{where}: must be at most 8 MiB long, got a longer row")
        yield Item(where, str(path), value)
        position = _skip(text, end)
        if text.startswith("]", position):
            break
        if not text.startswith(",", position):
            got = shorten(text[position : position + 80])
            raise UserError(f'{where}: malformed JSON: must be followed by "," or "]", got {got}')
        position = _skip(text, position + 1)
    if rest := text[position + 1 :].strip():
        raise UserError(f"{path}: malformed JSON: nothing may follow the list, got {shorten(rest)}")


def _skip(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    return match.end() if match else position


def _text_lines(path: Path) -> Iterator[str]:
    for where, raw in _raw_lines(path):
        if isinstance(raw, UserError):
            raise raw
        yield _decode(where, raw)


def _read_table(path: Path) -> Iterator[Item]:
    csv.field_size_limit(LINE_LIMIT)
    reader = csv.reader(_text_lines(path), strict=True)
    header: list[str] = []
    while True:
        where = f"{path}:{reader.line_num + 1}"
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise UserError(f"{where}: malformed CSV: {error}") from None
        if cells is None:
            return
        if not cells:
            continue
        if not header:
            if len(set(cells)) < len(cells):
                raise UserError(f"{where}: column names must differ, got {shorten(cells)}")
            header = cells
            continue
        yield Item(where, str(path), _table_row(where, header, cells))


def _table_row(where: str, header: list[str], cells: list[str]) -> dict[str, Any] | UserError:
    """One row; the cells of keys that hold lists are JSON."""
    if len(cells) != len(header):
        return UserError(f"{where}: must have {len(header)} cells as the header, got {len(cells)}")
    row: dict[str, Any] = dict(zip(header, cells, strict=True))
    for key in _LISTS:
        if key in row:
            try:
                row[key] = json.loads(row[key]) if row[key].strip() else None
            except ValueError:
                return bad(where, key, "must be JSON in a CSV cell", row[key])
    return row


def _read_parquet(path: Path) -> Iterator[Item]:
    import pyarrow  # here because it takes a second to load and few runs read parquet
    from pyarrow import parquet

    if not path.exists():
        raise UserError(f"{path}: no such file")
    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches():
                for row in batch.to_pylist():
                    number += 1
                    yield Item(f"{path}:{number}", str(path), row)
    except (pyarrow.ArrowException, OSError) as error:
        line = str(error).splitlines()[0]
        raise UserError(f"{path}: must be a parquet file, got: {shorten(line)}") from None
