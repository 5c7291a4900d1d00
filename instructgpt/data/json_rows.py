"""Rows of files with one JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from instructgpt.data.errors import shorten
from instructgpt.data.json_window import limit_of
from instructgpt.data.opening import Item, raw_lines, text_of
from instructgpt.data.values import DECODER
from instructgpt.types import UserError


def parse(where: str, text: str) -> Any:
    """A value from its JSON.

    Args:
        where: file and line.
        text: JSON.
    """
    try:
        return DECODER.decode(text)
    except json.JSONDecodeError as error:
        place = f"{error.msg} at column {error.colno}"
    except (RecursionError, ValueError) as error:
        place = limit_of(error)
    raise UserError(f"{where}: malformed JSON: {place}, got {shorten(text.strip())}")


def read_lines(path: Path) -> Iterator[Item]:
    """Rows of a .jsonl file.

    Args:
        path: of the file.
    """
    for where, raw in raw_lines(path):
        value: Any
        try:
            if isinstance(raw, UserError):
                raise raw
            if not raw.strip():
                continue
            value = parse(where, text_of(where, raw))
        except UserError as error:
            value = error
        yield Item(where, str(path), value)
