"""Rows as Parquet: columns whose values are of several types hold JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

JSON = "json"
"""Metadata of a column of texts that are JSON."""


def write_parquet(parts: Sequence[Path], path: Path) -> None:
    """Write JSON lines as one table.

    Args:
        parts: files of lines, in order.
        path: of the table.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = _schema(parts)
    with pq.ParquetWriter(path, schema) as writer:
        for rows in map(_rows, parts):
            columns = []
            for field in schema:
                values = [row.get(field.name) for row in rows]
                if (field.metadata or {}).get(b"format") == JSON.encode():
                    values = [None if v is None else json.dumps(v) for v in values]
                columns.append(pa.array(values, field.type))
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))


def _rows(part: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in part.read_bytes().splitlines()]


def _schema(parts: Sequence[Path]) -> Any:
    """One type a column, over all parts; text where there is none."""
    import pyarrow as pa

    found: dict[str, Any] = {}
    for rows in map(_rows, parts):
        for name, values in _columns(rows):
            try:
                kind = pa.array(values).type
                before = pa.schema([(name, found.get(name, kind))])
                after = pa.unify_schemas(
                    [before, pa.schema([(name, kind)])], promote_options="permissive"
                )
                found[name] = None if _is_empty(after.field(name).type) else after.field(name).type
            except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, TypeError):
                found[name] = None
    text = {"format": JSON}
    return pa.schema(
        pa.field(name, pa.string(), metadata=text) if kind is None else pa.field(name, kind)
        for name, kind in found.items()
    )


def _columns(rows: Sequence[dict[str, Any]]) -> Iterator[tuple[str, list[Any]]]:
    for name in dict.fromkeys(name for row in rows for name in row):
        yield name, [row.get(name) for row in rows]


def _is_empty(kind: Any) -> bool:
    """Whether there is an object without keys in a type, which Parquet cannot hold."""
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return kind.num_fields == 0 or any(
            _is_empty(kind.field(i).type) for i in range(kind.num_fields)
        )
    return pa.types.is_list(kind) and _is_empty(kind.value_type)
