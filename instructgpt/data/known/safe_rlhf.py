"""PKU-SafeRLHF: two responses, judged for help and for harm."""

from __future__ import annotations

from typing import Literal

from instructgpt.data.columns import Columns
from instructgpt.data.numbers import whole_of
from instructgpt.data.row_format import KnownFormat, Made


class SafeRLHF(KnownFormat):
    """Rows ``{"prompt", "response_0", "response_1", "better_response_id", "safer_response_id"}``.

    Args:
        by: which of the two judgements ranks: ``better`` (the more helpful one) or ``safer``.
    """

    name, title = "pku_saferlhf", "PKU-SafeRLHF"
    needs = ("prompt", "response_0", "response_1", "better_response_id")

    def __init__(self, by: Literal["better", "safer"] = "better") -> None:
        self.by = by

    def convert(self, row: Columns) -> Made:
        """A comparison."""
        best = whole_of(row, f"{self.by}_response_id", "ranking", 0, 1)
        if "safer_response_id" in row:
            row.notes.append(f"ranked by {self.by}_response_id (--data.format.by chooses)")
        return {
            "prompt": row.text("prompt", "prompt"),
            "responses": [row.text(f"response_{i}", "response") for i in (0, 1)],
            "ranking": [2, 1] if best else [1, 2],
        }
