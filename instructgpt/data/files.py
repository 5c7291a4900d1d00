"""Rows of files, each with the place it came from, so that every complaint names file and line."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from instructgpt.data.arrow_rows import STATE, read_parquet, read_saved
from instructgpt.data.csv_rows import read_table
from instructgpt.data.json_rows import read_array, read_lines
from instructgpt.data.opening import Item, check_file
from instructgpt.data.values import tidy
from instructgpt.terminal import note, printable
from instructgpt.types import UserError

SUFFIXES = (
    *(".jsonl", ".jsonl.gz", ".json", ".json.gz"),
    *(".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet"),
)


def is_known(path: Path) -> bool:
    """Whether the name ends like a file we can read."""
    return path.name.lower().endswith(SUFFIXES)


def is_saved(path: Path) -> bool:
    """Whether ``save_to_disk`` of ``datasets`` has written a data set here."""
    return (path / STATE).is_file() and (path / "dataset_info.json").is_file()


def read_file(path: Path, tell: Callable[[str], None] = note) -> Iterator[Item]:
    """Read a file row by row.

    Args:
        path: ending in one of ``SUFFIXES``, or a folder that ``save_to_disk`` has written.
        tell: told what is particular about the file, such as its separator.

    Yields:
        Rows in order, of plain values; a row that cannot be parsed is an item with a
        ``UserError``.

    Raises:
        UserError: the file as a whole cannot be read: missing, no ordinary file, unknown
            extension, broken gzip, UTF-16, no rows.
    """
    empty = True
    for item in plain_rows(_reader(path, tell), tell):
        empty = False
        yield item
    if empty:
        raise UserError(f"{path}: must hold at least one row, got an empty file")


def _reader(path: Path, tell: Callable[[str], None]) -> Iterator[Item]:
    if is_saved(path):
        return read_saved(path)
    if not is_known(path):
        check_file(path)
        raise UserError(f"{path}: extension must be one of {', '.join(SUFFIXES)}")
    name = path.name.lower().removesuffix(".gz")
    if name.endswith((".csv", ".tsv")):
        return read_table(path, tell)
    readers = {".jsonl": read_lines, ".json": read_array, ".parquet": read_parquet}
    return readers[Path(name).suffix](path)


def plain_rows(items: Iterable[Item], tell: Callable[[str], None]) -> Iterator[Item]:
    """Rows with values that JSON can hold; columns with others are left out, and told.

    Args:
        items: as read.
        tell: told the name of a column and why it is left out, once.
    """
    told = set()
    for item in items:
        if not item.where.isprintable():  # the name of the file becomes part of ids and sources
            where, origin = printable(item.where), printable(item.origin)
            item = item._replace(where=where, origin=origin)

        def left_out(key: str, reason: str, item: Item = item) -> None:
            if key not in told:
                told.add(key)
                tell(f'{item.origin}: column "{key}" is left out: {reason} (first: {item.where})')

        yield tidy(item, left_out)
