"""One-line complaints about data: place, key, rule, value."""

from __future__ import annotations

from typing import Any

from instructgpt.types import UserError

SKIP = "; --data.on_error skip counts bad rows instead"
"""Stands behind what is wrong with a row that ends a run."""

SHOWN = 60
"""How many characters of a wrong value a message shows."""


def shorten(value: Any) -> str:
    """Show a value on one line of about 60 characters.

    >>> len(shorten("a" * 100))
    62
    """
    if isinstance(value, str | bytes):
        text = repr(value[: SHOWN + 1])
        return text if len(value) <= SHOWN else f"{text[:SHOWN]}…{text[-1]}"
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


class RefusedColumnError(UserError):
    """A row has a column that matters and that its format cannot use."""


def bad(where: str, key: str, rule: str, value: Any) -> UserError:
    """Build the error for a wrong value.

    Args:
        where: file and line.
        key: of the row.
        rule: what the value breaks, such as "must be a string".
        value: what was given.
    """
    return UserError(f'{where}: "{key}" {rule}, got {shorten(value)}')
