"""Chatbot Arena: two conversations that began alike, and a vote."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from instructgpt.data.columns import Columns
from instructgpt.data.errors import bad
from instructgpt.data.row_format import KnownFormat, Made
from instructgpt.data.turns import split_response

RANKINGS = {"model_a": [1, 2], "model_b": [2, 1], "tie": [1, 1], "tie (bothbad)": [1, 1]}


class Arena(KnownFormat):
    """Rows ``{"conversation_a", "conversation_b", "winner"}`` of one exchange."""

    name, title = "chatbot_arena", "Chatbot Arena"
    needs = ("conversation_a", "conversation_b", "winner")

    def recognises(self, row: Mapping[str, Any]) -> str:
        """By conversations that are lists of turns."""
        both = (row["conversation_a"], row["conversation_b"])
        return ", ".join(self.needs) if all(isinstance(one, list) for one in both) else ""

    def convert(self, row: Columns) -> Made:
        """A comparison of the last turns."""
        answers = []
        for key in ("conversation_a", "conversation_b"):
            answers.append(split_response(row.where, key, row.turns(key, "prompt and responses")))
        (before, first), (other, second) = answers
        if before != other:
            rule = "must be conversation_a up to the last turn, which is compared"
            raise bad(row.where, "conversation_b", rule, row.row["conversation_b"])
        winner = row.take("winner", "ranking")
        ranking = RANKINGS.get(winner) if isinstance(winner, str) else None
        if ranking is None:
            raise bad(row.where, "winner", f"must be one of {', '.join(RANKINGS)}", winner)
        return {"messages": before, "responses": [first, second], "ranking": ranking}
