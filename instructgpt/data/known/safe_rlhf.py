"""PKU-SafeRLHF: two responses, judged for help and for harm."""

from __future__ import annotations

from typing import Any, Literal

from instructgpt.data.columns import Columns
from instructgpt.data.numbers import whole_of
from instructgpt.data.row_format import PairFormat


class SafeRLHF(PairFormat):
    """Rows ``{"prompt", "response_0", "response_1", "better_response_id", "safer_response_id"}``.

    Args:
        by: which of the two judgements ranks: ``better`` (the more helpful one) or ``safer``.
    """

    name, title = "pku_saferlhf", "PKU-SafeRLHF"
    needs = ("prompt", "response_0", "response_1", "better_response_id")

    def __init__(self, by: Literal["better", "safer"] = "better") -> None:
        self.by = by

    def judged(self, row: Columns) -> dict[str, Any]:
        """By one of the judgements."""
        best = whole_of(row, f"{self.by}_response_id", "ranking", 0, 1)
        if "safer_response_id" in row:
            row.notes.append(f"ranked by {self.by}_response_id (--data.format.by chooses)")
        return {"ranking": [2, 1] if best else [1, 2]}
