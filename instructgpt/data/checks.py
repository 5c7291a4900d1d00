"""Checks of single values of a row."""

from __future__ import annotations

from typing import Any

from instructgpt.data.errors import bad, shorten
from instructgpt.data.opening import Item
from instructgpt.types import UserError

KEYS = 300
"""How many characters of a row's keys a message shows."""


def object_of(item: Item) -> dict[str, Any]:
    """The row, which must be an object."""
    if isinstance(item.value, UserError):
        raise item.value
    if not isinstance(item.value, dict):
        raise UserError(f"{item.where}: a row must be an object, got {shorten(item.value)}")
    return item.value


def missing(where: str, row: dict[str, Any], key: str, why: str = "") -> UserError:
    """Build the error for a column that a row lacks."""
    keys = repr(sorted(map(str, row)))
    shown = keys if len(keys) <= KEYS else f"{keys[:KEYS]}…"
    return UserError(f'{where}: "{key}" is missing{why}, got the keys {shown}')


def check_text(where: str, key: str, value: Any) -> str:
    """The value, which must be a text that is not empty."""
    if not isinstance(value, str):
        raise bad(where, key, "must be a string", value)
    if not value.strip():
        raise bad(where, key, "must not be empty", value)
    try:
        value.encode()
    except UnicodeEncodeError as error:
        got = value[max(0, error.start - 10) : error.start + 10]
        raise bad(where, key, "must be valid Unicode (half a surrogate pair)", got) from None
    return value


def text_of(where: str, row: dict[str, Any], key: str) -> str:
    """The text of a column that must be there."""
    if row.get(key) is None:
        raise missing(where, row, key)
    return check_text(where, key, row[key])


def name_of(value: Any) -> str:
    """A name, "" where there is none."""
    return "" if value is None else str(value)
