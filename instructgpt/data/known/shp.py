"""Stanford Human Preferences: two comments on a post, one with more votes."""

from __future__ import annotations

from typing import Any

from instructgpt.data.columns import Columns
from instructgpt.data.numbers import number_of, whole_of
from instructgpt.data.row_format import KnownFormat, Made


class SHP(KnownFormat):
    """Rows ``{"history", "human_ref_A", "human_ref_B", "labels"}``; labels: 1 = A is better."""

    name, title = "shp", "SHP"
    needs = ("history", "human_ref_A", "human_ref_B", "labels")

    def convert(self, row: Columns) -> Made:
        """A comparison, checked by the votes where they are there."""
        first = whole_of(row, "labels", "ranking", 0, 1)
        made: dict[str, Any] = {
            "prompt": row.text("history", "prompt"),
            "responses": [row.text(f"human_ref_{side}", "response") for side in "AB"],
            "ranking": [1, 2] if first else [2, 1],
        }
        if "score_A" in row and "score_B" in row:
            votes = [number_of(row, f"score_{side}", "a check of the ranking") for side in "AB"]
            made["ratings"] = votes
        return made
