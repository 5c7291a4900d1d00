"""Columns of Arrow from numbers and texts, and back: pyarrow's own ways import pandas.

That takes most of a second, once in every process.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:  # takes a while to load
    import pyarrow


def numbers(values: np.ndarray) -> pyarrow.Array:
    """A column of numbers, or of bits where they are bool.

    >>> numbers(np.array([True, False, True])).to_pylist()
    [True, False, True]
    """
    import pyarrow as pa

    kind, bits = pa.from_numpy_dtype(values.dtype), values.dtype == bool
    held = np.packbits(values, bitorder="little") if bits else np.ascontiguousarray(values)
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(held)])


def texts(values: Sequence[str | None]) -> pyarrow.Array:
    """A column of texts.

    >>> texts(["one", None, ""]).to_pylist()
    ['one', None, '']
    """
    import pyarrow as pa

    builder = pa.lib.StringBuilder()
    builder.append_values(values)
    return builder.finish()


def lists(lengths: Sequence[int], members: pyarrow.Array) -> pyarrow.Array:
    """A column of lists.

    >>> lists([1, 0, 2], numbers(np.array([7, 8, 9]))).to_pylist()
    [[7], [], [8, 9]]
    """
    import pyarrow as pa

    starts = np.cumsum([0, *lengths], dtype=np.int32)
    return pa.ListArray.from_arrays(numbers(starts), members)


def to_numpy(column: pyarrow.Array) -> np.ndarray:
    """The numbers of a column without gaps; those of a file stay there.

    >>> to_numpy(numbers(np.array([3, 1], np.uint16)))
    array([3, 1], dtype=uint16)
    >>> to_numpy(numbers(np.array([True, False, False]))[1:]).tolist()
    [False, False]
    """
    import pyarrow as pa

    kind: Any = column.type.to_pandas_dtype()  # of numpy
    buffer = column.buffers()[1]
    if buffer is None or not len(column):
        return np.zeros(0, kind)
    end = column.offset + len(column)
    if pa.types.is_boolean(column.type):
        bits = np.frombuffer(buffer, np.uint8)
        held = np.unpackbits(bits, count=end, bitorder="little").astype(bool)
    else:
        held = np.frombuffer(buffer, kind)
    return held[column.offset : end]
