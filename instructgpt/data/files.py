"""Rows of files, each with the place it came from, so that every complaint names file and line."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from instructgpt.data.arrow_rows import STATE, read_arrow, read_parquet, read_saved
from instructgpt.data.csv_rows import read_table
from instructgpt.data.json_document import read_document
from instructgpt.data.json_rows import decoded, read_lines
from instructgpt.data.opening import COMPRESSED, Item, check_file, plain_name
from instructgpt.data.trees import with_trees
from instructgpt.data.values import tidy
from instructgpt.terminal import note, printable
from instructgpt.types import UserError

LINES, TEXTS = (".jsonl", ".ndjson", ".jsonlines"), (".json", ".csv", ".tsv")
TABLES = {".parquet": read_parquet, ".arrow": read_arrow}

KINDS = f"{', '.join(LINES + TEXTS)} (also with {' or '.join(COMPRESSED)}), {', '.join(TABLES)}"
"""How the names of files that can be read end, in words."""

SUFFIXES = (*(kind + packed for kind in LINES + TEXTS for packed in ("", *COMPRESSED)), *TABLES)


def stem_of(name: str) -> str:
    """The name of a file without what its kind adds to it.

    >>> stem_of("A.JSONL.gz"), stem_of("a.b"), stem_of("owner/name")
    ('A', 'a.b', 'owner/name')
    """
    ends = (len(suffix) for suffix in SUFFIXES if name.lower().endswith(suffix))
    return name[: len(name) - max(ends, default=0)]


def is_known(path: Path) -> bool:
    """Whether the name ends like a file we can read."""
    return path.name.lower().endswith(SUFFIXES)


def is_saved(path: Path) -> bool:
    """Whether ``save_to_disk`` of ``datasets`` has written a data set here."""
    return (path / STATE).is_file() and (path / "dataset_info.json").is_file()


def read_file(path: Path, tell: Callable[[str], None] = note) -> Iterator[Item]:
    """Read a file row by row.

    Args:
        path: of one of the ``KINDS``, or a folder that ``save_to_disk`` has written.
        tell: told what is particular about the file, such as its separator.

    Yields:
        Rows in order, of plain values; a row that cannot be parsed is an item with a
        ``UserError``.

    Raises:
        UserError: the file as a whole cannot be read: missing, no ordinary file, unknown
            extension, broken gzip or zstd, UTF-16, no rows.
    """
    return plain_rows(raw_rows(path, tell), tell)


def raw_rows(path: Path, tell: Callable[[str], None] = note) -> Iterator[Item]:
    """Read a file row by row, and leave it to ``plain_rows`` to make values of them.

    Args:
        path: as for ``read_file``, which raises the same.
        tell: told what is particular about the file.
    """
    empty = True
    for item in with_trees(_reader(path, tell), tell):
        empty = False
        yield item
    if empty:
        raise UserError(f"{path}: must hold at least one row, got an empty file")


def _reader(path: Path, tell: Callable[[str], None]) -> Iterator[Item]:
    if is_saved(path):
        return read_saved(path)
    if not is_known(path):
        check_file(path)
        raise UserError(f"{path}: extension must be one of {KINDS}")
    kind = Path(plain_name(path)).suffix
    if kind in TABLES:
        return TABLES[kind](path)
    if kind in LINES:
        return read_lines(path)
    return read_document(path, tell) if kind == ".json" else read_table(path, tell)


def plain_rows(items: Iterable[Item], tell: Callable[[str], None]) -> Iterator[Item]:
    """Rows with values that JSON can hold; columns with others are left out, and told.

    Args:
        items: as read.
        tell: told the name of a column and why it is left out, once.
    """
    told = set()
    for item in items:
        item = decoded(item)
        if not item.where.isprintable():  # the name of the file becomes part of ids and sources
            where, origin = printable(item.where), printable(item.origin)
            item = item._replace(where=where, origin=origin)

        def left_out(key: str, reason: str, item: Item = item) -> None:
            if key not in told:
                told.add(key)
                tell(f'{item.origin}: column "{key}" is left out: {reason} (first: {item.where})')

        yield tidy(item, left_out)
