"""JSONL of the tests: written, and read."""

import json
from pathlib import Path


def write_rows(path, rows):
    """Write rows and return the path as an option has it."""
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def read_rows(path):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]
