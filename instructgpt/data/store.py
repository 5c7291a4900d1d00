"""Rows of one set on disk: an Arrow stream that is memory-mapped, and never read as a whole."""

from __future__ import annotations

import json
import mmap
from bisect import bisect_right
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from instructgpt.data.arrow_arrays import to_numpy

if TYPE_CHECKING:  # takes a while to load
    import pyarrow

ROWS_FILE, SUMMARY_FILE = "rows.arrow", "summary.json"

LOOKS = 500
"""After so many looks into the file, it is let go of."""

NARROW = 2**16
"""Smaller vocabularies have ids of two bytes."""


def token_type(ids: int) -> type[np.unsignedinteger[Any]]:
    """The numbers that tokens are stored as.

    Args:
        ids: how many different ones there are.
    """
    return np.uint16 if ids <= NARROW else np.uint32


@cache
def schema_of(text: bool, token: np.dtype[Any]) -> pyarrow.Schema:
    """Columns of documents, or of prompts with their responses.

    Args:
        text: whether rows are sections of documents.
        token: what a token is stored as.
    """
    import pyarrow as pa

    tokens = pa.list_(pa.from_numpy_dtype(token))
    columns: dict[str, Any] = {
        "where": pa.string(),  # file:line
        "key": pa.uint64(),  # names the prompt, or the text
        "party": pa.uint64(),  # names the user, else the same: what splits go by
        "content": pa.uint64(),  # names what a stage sees of the row
    }
    if text:
        columns |= {"tokens": tokens, "ends": pa.bool_()}  # whether its document does
    else:
        columns |= {name: pa.string() for name in ("id", "labeler", "source", "prompt")}
        columns |= {"prompt_tokens": tokens, "responses": pa.list_(tokens)}
        columns |= {"ranking": pa.list_(pa.int64())}
    return pa.schema(list(columns.items()))


class Lists:
    """A column of lists: each is a view of the file.

    Args:
        parts: (where lists begin and the last one ends, their members), a pair for each part.
    """

    def __init__(self, parts: Sequence[tuple[np.ndarray, np.ndarray]]) -> None:
        self.parts = parts
        self.starts = np.cumsum([0, *(len(offsets) - 1 for offsets, _ in parts)]).tolist()

    def __getitem__(self, row: int) -> np.ndarray:
        """The members of a list."""
        number = bisect_right(self.starts, row) - 1
        offsets, values = self.parts[number]
        row -= self.starts[number]
        return values[offsets[row] : offsets[row + 1]]

    @property
    def lengths(self) -> np.ndarray:
        """How many members each list has, int64."""
        return _all([np.diff(offsets) for offsets, _ in self.parts])

    @property
    def members(self) -> np.ndarray:
        """The members of all lists behind each other, in memory."""
        return np.concatenate([values[: offsets[-1]] for offsets, values in self.parts])


class Nested:
    """A column of lists of lists.

    Args:
        outer: where the inner lists of each row are, among those of its part.
        inner: a column of the inner lists for each part.
    """

    def __init__(self, outer: Sequence[np.ndarray], inner: Sequence[Lists]) -> None:
        self.outer, self.inner = outer, inner
        self.starts = np.cumsum([0, *(len(offsets) - 1 for offsets in outer)]).tolist()

    def __getitem__(self, row: int) -> list[np.ndarray]:
        """The lists of a row."""
        number = bisect_right(self.starts, row) - 1
        offsets, lists = self.outer[number], self.inner[number]
        row -= self.starts[number]
        return [lists[one] for one in range(offsets[row], offsets[row + 1])]

    @property
    def counts(self) -> np.ndarray:
        """How many lists each row has, int64."""
        return _all([np.diff(offsets) for offsets in self.outer])

    @property
    def lengths(self) -> np.ndarray:
        """How many members each inner list has, row by row, int64."""
        return _all([lists.lengths for lists in self.inner])


class Records:
    """Rows in memory, column by column.

    Args:
        schema: their columns.
        batches: in order.
    """

    def __init__(self, schema: pyarrow.Schema, batches: Sequence[pyarrow.RecordBatch]) -> None:
        self._schema, self._batches = schema, batches
        self._lists: dict[str, Lists] = {}
        self._nested: dict[str, Nested] = {}

    @classmethod
    def of(cls, schema: pyarrow.Schema, messages: Sequence[bytes]) -> Records:
        """Rows as they stand in an Arrow stream.

        Args:
            schema: of the stream.
            messages: its record batches.
        """
        import pyarrow as pa

        return cls(schema, [pa.ipc.read_record_batch(pa.py_buffer(m), schema) for m in messages])

    def __len__(self) -> int:
        """How many rows there are."""
        return sum(batch.num_rows for batch in self._batches)

    def look(self, all_of_it: bool) -> None:
        """Be told that a column is looked at.

        Args:
            all_of_it: not only at single rows.
        """

    def numbers(self, name: str) -> np.ndarray:
        """A column of numbers, in memory."""
        columns = [batch.column(name) for batch in self._batches]
        empty = np.zeros(0, self._schema.field(name).type.to_pandas_dtype())
        found = np.concatenate([empty, *map(to_numpy, columns)])
        self.look(all_of_it=True)
        return found

    def lists(self, name: str) -> Lists:
        """A column of lists."""
        self.look(all_of_it=False)
        if name not in self._lists:
            columns = [batch.column(name) for batch in self._batches]
            self._lists[name] = Lists([(_offsets(one), _values(one)) for one in columns])
        return self._lists[name]

    def nested(self, name: str) -> Nested:
        """A column of lists of lists."""
        self.look(all_of_it=False)
        if name not in self._nested:
            columns = [batch.column(name) for batch in self._batches]
            inner = [Lists([(_offsets(one.values), _values(one.values))]) for one in columns]
            self._nested[name] = Nested([_offsets(one) for one in columns], inner)
        return self._nested[name]

    def text(self, name: str, row: int) -> str:
        """A cell of a column of texts."""
        return self.lists(name)[row].tobytes().decode()


class Store(Records):
    """The rows that a folder of the cache holds; opening it reads next to nothing.

    Args:
        folder: with ``rows.arrow`` and ``summary.json``.
    """

    def __init__(self, folder: Path) -> None:
        import pyarrow as pa

        self.folder = folder
        with (folder / ROWS_FILE).open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        reader = pa.ipc.open_stream(pa.py_buffer(self._map))
        super().__init__(reader.schema, list(reader))
        self._looks = 0
        self._let_go()

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process opens the same folder."""
        return Store, (self.folder,)

    def _let_go(self) -> None:
        """Have no more of the file in this process's memory than what is looked at now.

        The system maps 64 kB around every look, and never takes them back while there is room.
        """
        if hasattr(mmap, "MADV_DONTNEED"):  # not on all systems
            self._map.madvise(mmap.MADV_DONTNEED)
        self._looks = 0

    def look(self, all_of_it: bool) -> None:
        """Let go of the file now and then."""
        self._looks += 1
        if all_of_it or self._looks > LOOKS:
            self._let_go()

    @property
    def summary(self) -> Any:
        """What was counted when the rows were written, as JSON."""
        return json.loads((self.folder / SUMMARY_FILE).read_text(encoding="utf-8"))


def _all(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.zeros(0, np.int64), *parts]).astype(np.int64, copy=False)


def _offsets(column: pyarrow.Array) -> np.ndarray:
    """Where the rows of a column begin, and where the last one ends."""
    buffer = column.buffers()[1]
    found = np.frombuffer(buffer, np.int32) if buffer else np.zeros(1, np.int32)
    return found[: len(column) + 1] if len(column) else np.zeros(1, np.int32)


def _values(column: pyarrow.Array) -> np.ndarray:
    """The members of all rows; of texts their bytes."""
    import pyarrow as pa

    if pa.types.is_string(column.type):
        buffer = column.buffers()[2]
        return np.frombuffer(buffer, np.uint8) if buffer else np.zeros(0, np.uint8)
    return to_numpy(column.values)
