"""Rows of Parquet files and of folders that ``datasets`` has saved."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instructgpt.data.errors import shorten
from instructgpt.data.opening import Item, check_file
from instructgpt.types import UserError

if TYPE_CHECKING:
    import pyarrow

STATE = "state.json"
"""Names the files of a data set that ``save_to_disk`` has written."""

_ROWS, _SIZE = 1024, 2**24
"""How many rows are converted at once, and how large they may be together (bytes)."""

_BUFFER = 2**20
_INDEXED = b"ARROW1"
"""How an Arrow file with an index begins."""

_UNREADABLE = (ValueError, ArithmeticError, LookupError, TypeError, RecursionError)
"""What conversions raise: Arrow's own errors, dates out of range, unknown time zones, …"""


def read_parquet(path: Path) -> Iterator[Item]:
    """Rows of a .parquet file.

    Args:
        path: of the file.
    """
    import pyarrow  # here because it takes a moment to load
    from pyarrow import parquet

    check_file(path)
    try:
        # So no more than a buffer is held of each column, however large the row groups are.
        with parquet.ParquetFile(path, buffer_size=_BUFFER, pre_buffer=False) as file:
            _check_names(path, file.schema_arrow)
            size = sum(
                file.metadata.row_group(i).total_byte_size for i in range(file.num_row_groups)
            )
            count = _count(size, file.metadata.num_rows)
            yield from _rows(path, file.iter_batches(count))
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: must be a parquet file, got: {_line(error)}") from None


def read_arrow(path: Path) -> Iterator[Item]:
    """Rows of an .arrow file, as a stream (``datasets``) or with an index at its end.

    Args:
        path: of the file.
    """
    import pyarrow

    check_file(path)
    try:
        with path.open("rb") as file:
            indexed = file.read(len(_INDEXED)) == _INDEXED
        # What is mapped stays in memory while there is room: good for batches of any size only.
        opener = pyarrow.memory_map if indexed else pyarrow.OSFile
        with opener(os.fsencode(path)) as source:
            reader = (pyarrow.ipc.open_file if indexed else pyarrow.ipc.open_stream)(source)
            _check_names(path, reader.schema)
            batches = map(reader.get_batch, range(reader.num_record_batches)) if indexed else reader
            yield from _rows(path, _sound(batches))
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: must be an Arrow file, got: {_line(error)}") from None


def read_saved(folder: Path) -> Iterator[Item]:
    """Rows of a folder that ``save_to_disk`` of ``datasets`` has written.

    Args:
        folder: with ``state.json`` in it.
    """
    check_file(folder / STATE)
    try:
        files = json.loads((folder / STATE).read_text(encoding="utf-8"))["_data_files"]
        paths = [folder / Path(file["filename"]).name for file in files]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        raise UserError(f"{folder / STATE}: must be as save_to_disk writes it") from None
    for path in paths:
        yield from read_arrow(path)


def _sound(batches: Iterable[pyarrow.RecordBatch]) -> Iterator[pyarrow.RecordBatch]:
    """Small batches whose offsets lie inside them: others would end the process."""
    import pyarrow

    for batch in batches:
        for column in batch.columns:
            try:
                column.validate(full=True)
            except pyarrow.ArrowInvalid as error:
                if "UTF8" not in str(error):  # which its row is refused for
                    raise
        count = _count(batch.nbytes, batch.num_rows)
        yield from (batch.slice(i, count) for i in range(0, batch.num_rows, count))


def _count(size: int, rows: int) -> int:
    """How many rows are converted at once, by their mean size (bytes)."""
    return max(1, min(_ROWS, _SIZE * rows // max(size, 1)))


def _check_names(path: Path, schema: pyarrow.Schema) -> None:
    twice = [name for name, count in Counter(schema.names).items() if count > 1]
    if twice:
        raise UserError(f"{path}: column names must differ, got {shorten(twice[0])} twice")


def _rows(path: Path, batches: Iterable[pyarrow.RecordBatch]) -> Iterator[Item]:
    number = 0
    for batch in batches:
        for index, row in enumerate(_values(batch)):
            number += 1
            where = f"{path}:{number}"
            yield Item(where, str(path), _row(where, batch, index) if row is None else row)


def _values(batch: pyarrow.RecordBatch) -> list[dict[str, Any] | None]:
    """The rows of a batch; None for each where one of them cannot be converted."""
    try:
        return batch.to_pylist()
    except (
        ValueError,
        ArithmeticError,
        LookupError,
        TypeError,
        RecursionError,
        NotImplementedError,
    ):
        return [None] * batch.num_rows


def _row(where: str, batch: pyarrow.RecordBatch, index: int) -> dict[str, Any] | UserError:
    """One row, value by value, or which of them cannot be converted."""
    row = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            row[name] = column[index].as_py()
        except UnicodeDecodeError as error:
            got = shorten(error.object[error.start : error.start + 8])
            return UserError(f'{where}: "{name}" must be UTF-8, got {got}')
        except _UNREADABLE as error:
            kind = shorten(str(column.type))
            return UserError(f'{where}: "{name}" must be readable, got a {kind}: {_line(error)}')
    return row


def _line(error: Exception) -> str:
    return shorten(next(iter(str(error).splitlines()), type(error).__name__))
