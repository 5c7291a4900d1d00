"""Stanford Human Preferences: two comments on a post, one with more votes."""

from __future__ import annotations

from typing import Any

from instructgpt.data.columns import Columns
from instructgpt.data.numbers import number_of, whole_of
from instructgpt.data.row_format import PairFormat


class SHP(PairFormat):
    """Rows ``{"history", "human_ref_A", "human_ref_B", "labels"}``; labels: 1 = A is better."""

    name, title = "shp", "SHP"
    needs = ("history", "human_ref_A", "human_ref_B", "labels")

    def judged(self, row: Columns) -> dict[str, Any]:
        """By the label, checked by the votes where they are there."""
        ranking = [1, 2] if whole_of(row, "labels", "ranking", 0, 1) else [2, 1]
        if "score_A" not in row or "score_B" not in row:
            return {"ranking": ranking}
        votes = [number_of(row, f"score_{side}", "a check of the ranking") for side in "AB"]
        return {"ranking": ranking, "ratings": votes}
