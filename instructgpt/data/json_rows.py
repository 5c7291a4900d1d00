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
        place = f"{error.msg.removesuffix(' at')} at column {error.pos + 1}"  # some end so
    except (RecursionError, ValueError) as error:
        place = limit_of(error)
    raise UserError(f"{where}: malformed JSON: {place}, got {shorten(text.strip())}")


def read_lines(path: Path) -> Iterator[Item]:
    """Rows of a .jsonl file, as they stand there: ``decoded`` makes values of them.

    Args:
        path: of the file.
    """
    for where, raw in raw_lines(path):
        if isinstance(raw, UserError) or raw.strip():
            yield Item(where, str(path), raw)


def decoded(item: Item) -> Item:
    """A row whose value is read from its JSON, in whichever process.

    Args:
        item: of ``read_lines``, or of a reader that gives values.
    """
    if not isinstance(item.value, bytes):
        return item
    try:
        return item._replace(value=parse(item.where, text_of(item.where, item.value)))
    except UserError as error:
        return item._replace(value=error)
