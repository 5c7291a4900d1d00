"""Nectar: seven answers to a prompt, ranked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from instructgpt.data.checks import first_of
from instructgpt.data.columns import Columns
from instructgpt.data.numbers import whole_of
from instructgpt.data.row_format import KnownFormat, Made


class Nectar(KnownFormat):
    """Rows ``{"prompt", "answers": [{"answer", "rank"}]}``, 1 = best."""

    name, title = "nectar", "Nectar"
    needs = ("prompt", "answers")

    def recognises(self, row: Mapping[str, Any]) -> str:
        """By answers that are objects with a rank."""
        first = first_of(row["answers"])
        ranked = "answer" in first and "rank" in first
        return "prompt, answers[].answer, answers[].rank" if ranked else ""

    def convert(self, row: Columns) -> Made:
        """A comparison."""
        answers = row.objects("answers", "responses")
        sources = row.take("source", "source") if "source" in row else ""
        named = isinstance(sources, list)
        return {
            "source": ", ".join(map(str, sources)) if named else sources,
            "prompt": row.text("prompt", "prompt"),
            "responses": [one.text("answer", "response") for one in answers],
            "ranking": [whole_of(one, "rank", "ranking", 1) for one in answers],
        }
