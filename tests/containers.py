"""Rows written as the files that people have."""

from __future__ import annotations

import csv
import gzip
import io
import json

import datasets
import pyarrow
from pyarrow import parquet

JSON = ("a.jsonl", "a.ndjson.gz", "a.jsonl.zst", "a.json", "a.json.gz")
TABLES = ("a.csv", "a.tsv", "a.csv.gz", "excel.csv")
ARROW = ("a.parquet", "a.arrow", "stream.arrow", "saved")


def write_container(folder, name, rows):
    """Write rows into a file, or a folder for ``saved``, and return its path.

    Args:
        folder: where.
        name: one of those above.
        rows: with the same columns in tables and in Arrow.
    """
    path = folder / name
    if name in JSON:
        data = _json(name, rows)
    elif name in TABLES:
        data = _table(name, rows)
    else:
        _write_arrow(path, rows)
        return path
    if name.endswith(".gz"):
        data = gzip.compress(data)
    elif name.endswith(".zst"):
        data = pyarrow.compress(data, codec="zstd", asbytes=True)
    path.write_bytes(data)
    return path


def _json(name, rows):
    lines = [json.dumps(row, default=str) for row in rows]
    text = f"[{', '.join(lines)}]" if ".json" in name and "jsonl" not in name else "\n".join(lines)
    return text.encode()


def _table(name, rows):
    """Cells that are no texts are JSON; half a surrogate pair is a byte that is not UTF-8."""
    file = io.StringIO(newline="")
    excel = name == "excel.csv"
    separator = "\t" if ".tsv" in name else ";" if excel else ","
    table = csv.writer(file, delimiter=separator)
    header = list(rows[0])
    table.writerow(header)
    for row in rows:
        cells = [row[key] for key in header]
        table.writerow(
            "" if c is None else c if isinstance(c, str) else json.dumps(c, default=str)
            for c in cells
        )
    text = file.getvalue().replace("\ud83d", "\udcff")
    return b"\xef\xbb\xbf" * excel + text.encode(errors="surrogateescape")


def _write_arrow(path, rows):
    """Column by column, as bytes where Arrow has no type for all values, some not UTF-8."""
    columns = {}
    for key in rows[0]:
        cells = [row[key] for row in rows]
        name = key.encode(errors="replace").decode()
        try:
            columns[name] = pyarrow.array(cells)
            table = pyarrow.table({name: columns[name]})
            parquet.write_table(table, pyarrow.BufferOutputStream())  # not all can be written
            with pyarrow.ipc.new_stream(pyarrow.BufferOutputStream(), table.schema) as writer:
                writer.write_table(table)
        except (pyarrow.ArrowException, OverflowError, ValueError, TypeError):
            raw = [
                json.dumps(cell, default=str).encode() + b"\xff" * (i % 9 == 8)
                for i, cell in enumerate(cells)
            ]
            columns[name] = pyarrow.array(raw).view(pyarrow.string())
    table = pyarrow.table(columns)
    if path.name == "a.parquet":
        parquet.write_table(table, path)
    elif path.name == "saved":
        datasets.Dataset(table).save_to_disk(path)
    else:
        stream = path.name == "stream.arrow"
        new = pyarrow.ipc.new_stream if stream else pyarrow.ipc.new_file
        with new(str(path), table.schema) as writer:
            writer.write_table(table, max_chunksize=3)
