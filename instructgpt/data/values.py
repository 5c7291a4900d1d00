"""Values of rows as JSON can hold them, so that whatever is read can be compared and written."""

from __future__ import annotations

import datetime
import decimal
import json
import math
import re
import uuid
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

from instructgpt.data.columns import ASKING, JUDGING, NAMES, TAILS, TURNS
from instructgpt.data.errors import bad, shorten
from instructgpt.data.opening import Item
from instructgpt.types import UserError

DEPTH_LIMIT = 100
"""Values that are nested deeper are refused: writing them would fail."""

LISTS = (*TURNS, "responses", "ranking", "ratings", "scores", "finished", "history")
"""Keys that hold lists: a text there is JSON."""

SAID = ("prompt", "chosen", "rejected", "completion", "context", "conversation_a", "conversation_b")
"""Keys that hold a text or chat turns: a text there that is nothing but turns in JSON is turns."""

_LISTED = {*LISTS, *SAID}
_MATTERS = {*ASKING, *TAILS, *JUDGING, *NAMES, "text", "finished"}

_UNFIT = "must be what JSON can hold (remove or rename the column), not"
_SPEAKER, _SAID = ("role", "from"), ("content", "value")
_PYTHON = re.compile(r"(?=.*'(role|from)'\s*:)(?=.*'(content|value)'\s*:)\[?\s*\{\s*'", re.DOTALL)


class Twice(NamedTuple):
    """Takes the place of an object that has a key twice."""

    key: str
    rest: dict[str, Any]


class _LeftOutError(Exception):
    """A column that JSON cannot hold; the reason."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any] | Twice:
    made = dict(pairs)
    if len(made) < len(pairs):
        ((key, _),) = Counter(key for key, _ in pairs).most_common(1)
        return Twice(key, made)
    return made


DECODER = json.JSONDecoder(object_pairs_hook=_object)
"""Reads JSON; objects with a key twice become ``Twice``."""


def tidy(item: Item, left_out: Callable[[str, str], None]) -> Item:
    """A row with plain values, or what is wrong with one of them.

    Dates, decimals and bytes become text, NaN becomes null, texts in place of lists are parsed.

    Args:
        item: as read.
        left_out: told the column and the reason where a value cannot be kept.
    """
    if isinstance(item.value, UserError):
        return item
    try:
        if not isinstance(item.value, dict):
            return item._replace(value=_plain(item.where, "", item.value, 0))
        row: dict[str, Any] = {}
        for name, value in item.value.items():
            key = name if _is_plain(name, 0) else _plain(item.where, "", str(name), 0)
            try:
                value = parse_list(item.where, key, value)
                row[key] = value if _is_plain(value, 1) else _plain(item.where, key, value, 1)
            except _LeftOutError as reason:
                if key in _MATTERS:
                    raise bad(item.where, key, f"{_UNFIT} {reason}", value) from None
                left_out(key, str(reason))
        return item._replace(value=row)
    except UserError as error:
        return item._replace(value=error)


def parse_list(where: str, key: str, value: Any) -> Any:
    """A list that was written as a text, in CSV or as JSON inside JSON."""
    if isinstance(value, float) and math.isnan(value):  # how pandas says that there is nothing
        return None
    if not isinstance(value, str) or key not in _LISTED:
        return value
    text = value.strip()
    if text[:1] + text[-1:] not in ("[]", "{}"):
        return value
    if _PYTHON.match(text):
        raise bad(where, key, "must be a text or JSON, not Python's notation for turns", value)
    try:
        parsed = DECODER.decode(text)
    except (ValueError, RecursionError):
        return value
    turns = parsed if isinstance(parsed, list) else [parsed]
    said = bool(turns) and all(map(_is_turn, turns))
    return parsed if said or (key in LISTS and isinstance(parsed, list)) else value


def _is_turn(value: Any) -> bool:
    fields = value.rest if isinstance(value, Twice) else value
    return (
        isinstance(fields, dict)
        and any(name in fields for name in _SPEAKER)
        and any(name in fields for name in _SAID)
    )


def _is_plain(value: Any, depth: int) -> bool:
    """Whether a value is made of what JSON has already, as nearly all are: found in less time."""
    kind = type(value)
    if kind is str:
        return value.isascii() or _is_unicode(value)
    if kind is dict:
        return depth <= DEPTH_LIMIT and all(
            type(key) is str and _is_plain(key, depth) and _is_plain(one, depth + 1)
            for key, one in value.items()
        )
    if kind is list:
        return depth <= DEPTH_LIMIT and all(_is_plain(one, depth + 1) for one in value)
    return value is None or kind is int or kind is float or kind is bool


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _plain(where: str, path: str, value: Any, depth: int) -> Any:
    """A value made of what JSON has."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return value if value.isascii() else _unicode(where, path, value)
    if isinstance(value, Twice):
        inside = f'"{path}.{value.key}"' if path else shorten(value.key)
        raise UserError(f"{where}: {inside} must be there once, got it twice in one object")
    if isinstance(value, dict | list | tuple) and depth > DEPTH_LIMIT:
        top = re.split(r"[.\[]", path)[0]
        named = f'"{top}" ' if top else ""
        raise UserError(f"{where}: {named}must be nested at most {DEPTH_LIMIT} deep, got more")
    if isinstance(value, dict):
        return {
            _plain(where, path, str(key), depth): _plain(where, f"{path}.{key}", one, depth + 1)
            for key, one in value.items()
        }
    if isinstance(value, list | tuple):
        return [_plain(where, f"{path}[{i}]", one, depth + 1) for i, one in enumerate(value)]
    return _text(value)


def _unicode(where: str, path: str, value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        rule = (
            "must be valid Unicode (half a surrogate pair, or bytes that are not UTF-8: save the "
            "file as UTF-8)"
        )
        got = value[max(0, error.start - 10) : error.start + 10]
        raise bad(where, path or "a key", rule, got) from None
    return value


def _text(value: Any) -> str:
    """Values of Parquet and Arrow that JSON has no type for."""
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise _LeftOutError("bytes that are not UTF-8") from None
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, datetime.timedelta | decimal.Decimal | uuid.UUID):
        return str(value)
    raise _LeftOutError(f"of type {type(value).__name__}")
