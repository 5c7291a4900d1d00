"""Checks of single values of a row."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from instructgpt.data.errors import bad, shorten
from instructgpt.data.opening import Item
from instructgpt.types import UserError, require

KEYS = 300
"""How many characters of a row's keys a message shows."""


def object_of(item: Item) -> dict[str, Any]:
    """The row, which must be an object."""
    if isinstance(item.value, UserError):
        raise item.value
    if not isinstance(item.value, dict):
        raise UserError(f"{item.where}: a row must be an object, got {shorten(item.value)}")
    return item.value


class MissingColumnError(UserError):
    """A row lacks a column: which one, and why it would be needed."""

    def __init__(self, message: str, key: str, why: str) -> None:
        super().__init__(message, key, why)  # all of them, so that it can be pickled
        self.key, self.why = key, why

    def __str__(self) -> str:
        """The message."""
        return str(self.args[0])


def missing(
    where: str, row: Mapping[str, Any], key: str, why: str = "", more: str = ""
) -> MissingColumnError:
    """Build the error for a column that a row lacks.

    Args:
        where: file and line.
        row: the keys are shown.
        key: what it lacks.
        why: stands behind the key.
        more: stands behind the keys.
    """
    keys = repr(sorted(map(str, row)))
    shown = keys if len(keys) <= KEYS else f"{keys[:KEYS]}…"
    message = f'{where}: "{key}" is missing{why}, got the keys {shown}{more}'
    return MissingColumnError(message, key, why)


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


def read_json(value: Any) -> Any:
    """What a text is in JSON, as in the cells of tables; what is none as it is."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        return value


def first_of(value: Any) -> Mapping[str, Any]:
    """The first object of a list, which may be JSON; an empty one where there is none."""
    value = read_json(value)
    first = value[0] if isinstance(value, list) and value else None
    return first if isinstance(first, dict) else {}


def check_counts(**options: int | None) -> None:
    """Refuse options of the data that must be at least 1."""
    for name, value in options.items():
        require(value is None or value >= 1, f"--data.{name}", ">= 1", value)
