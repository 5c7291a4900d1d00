"""Rows of JSON files: an object a line, or one list of objects."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from instructgpt.data.errors import shorten
from instructgpt.data.opening import LINE_LIMIT, Item, all_bytes, raw_lines, text_of
from instructgpt.data.values import DECODER
from instructgpt.types import UserError

_SPACE = re.compile(r"[ \t\n\r]*")
_BRACKET = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[\]{}]', re.DOTALL)


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
        place = _limit(error)
    raise UserError(f"{where}: malformed JSON: {place}, got {shorten(text.strip())}")


def _limit(error: Exception) -> str:
    """What is right by JSON's grammar and still cannot be read."""
    return "nested too deeply" if isinstance(error, RecursionError) else str(error).split(";")[0]


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


def read_array(path: Path) -> Iterator[Item]:
    """Rows of a .json file.

    Args:
        path: of the file.
    """
    # What is not UTF-8 becomes half surrogates, for which the row it stands in is refused.
    text = all_bytes(path).decode(errors="surrogateescape")
    position = _skip(text, 0)
    if position == len(text):
        return
    if not text.startswith("[", position):
        raise UserError(
            f"{path}:1: a .json file must hold one list of objects (one object a line is .jsonl), "
            f"got {shorten(text[position : position + 80])}"
        )
    line, counted, number = 1, 0, 0
    position = _skip(text, position + 1)
    while not (number == 0 and text.startswith("]", position)):
        line, counted, number = line + text.count("\n", counted, position), position, number + 1
        where = f"{path}:{line} (item {number})"
        value, end = _value(where, text, position)
        if end - position > LINE_LIMIT:
            value = UserError(f"{where}: must be at most 8 MiB long, got a longer row")
        yield Item(where, str(path), value)
        position = _skip(text, end)
        if text.startswith("]", position):
            break
        if not text.startswith(",", position):
            got = shorten(text[position : position + 80])
            raise UserError(f'{where}: malformed JSON: must be followed by "," or "]", got {got}')
        position = _skip(text, position + 1)
    if rest := text[position + 1 :].strip():
        raise UserError(f"{path}: malformed JSON: nothing may follow the list, got {shorten(rest)}")


def _value(where: str, text: str, position: int) -> tuple[Any, int]:
    """The value at a position, or what is wrong with it, and where it ends."""
    got = shorten(text[position : position + 80])
    try:
        return DECODER.raw_decode(text, position)
    except json.JSONDecodeError:
        raise UserError(f"{where}: malformed JSON, got {got}") from None
    except (RecursionError, ValueError) as error:
        depth = 0
        for found in _BRACKET.finditer(text, position):
            depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(found[0], 0)
            if depth == 0:
                problem = UserError(f"{where}: malformed JSON: {_limit(error)}, got {got}")
                return problem, found.end()
        raise UserError(f"{where}: malformed JSON: {_limit(error)}, got {got}") from None


def _skip(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    return match.end() if match else position
