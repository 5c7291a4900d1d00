"""Numbers in rows, which are texts in the cells of tables."""

from __future__ import annotations

import math
from typing import Any

from instructgpt.data.columns import Columns
from instructgpt.data.errors import bad


def number_or_none(value: Any) -> float | None:
    """A finite number; None for others, such as "N/A"."""
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def number_of(row: Columns, key: str, use: str) -> float:
    """The finite number in a column."""
    value = row.take(key, use)
    number = number_or_none(value)
    if number is None:
        raise bad(row.where, f"{row.path}{key}", "must be a finite number", value)
    return number


def whole_of(row: Columns, key: str, use: str, least: int, most: int | None = None) -> int:
    """The whole number in a column, also where it is written as 1.0.

    Args:
        row: has the column.
        key: of the column.
        use: of the column.
        least: smallest number there may be.
        most: largest, None for any.
    """
    number = number_of(row, key, use)
    if not number.is_integer() or number < least or (most is not None and number > most):
        rule = f"from {least} to {most}" if most is not None else f">= {least}"
        raise bad(row.where, f"{row.path}{key}", f"must be a whole number {rule}", row.row[key])
    return int(number)
