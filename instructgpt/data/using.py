"""Rows that one item gives, of which only some fit what they are read for."""

from __future__ import annotations

from typing import Any

from instructgpt.data.conversation import Wanted
from instructgpt.data.row_format import Made, Without


def fitting(made: Made, wanted: Wanted) -> Made | Without:
    """The rows that can be used, or why there are none.

    Args:
        made: of one item, in public formats.
        wanted: what they are for.
    """
    rows: list[dict[str, Any]] = made if isinstance(made, list) else [made]
    if wanted == "prompt":
        return rows[:1] or Without("without an answer")  # the same prompt for all labelers
    compared = wanted in ("comparison", "candidates", "responses")
    fit = [row for row in rows if not compared or "responses" in row]
    reason = "without a comparison" if compared and rows else "without an answer"
    return fit or Without(reason)
