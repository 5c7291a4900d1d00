"""UltraFeedback, as it was rated: K completions of an instruction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from instructgpt.data.checks import first_of
from instructgpt.data.columns import Columns
from instructgpt.data.errors import bad
from instructgpt.data.numbers import number_or_none
from instructgpt.data.row_format import KnownFormat, Made

UNRATED = "with responses that have no rating: these are left out"


class UltraFeedback(KnownFormat):
    """Rows ``{"instruction", "completions": [{"response", "annotations", "overall_score"}]}``.

    Args:
        rating: what completions are ranked by: ``mean`` (of the aspects in ``annotations``), one of
            these aspects (``helpfulness``, ``honesty``, ``instruction_following``,
            ``truthfulness``), or a number beside them (``overall_score``).
    """

    name, title = "ultrafeedback", "UltraFeedback"
    needs = ("instruction", "completions")

    def __init__(self, rating: str = "mean") -> None:
        self.rating = rating

    def recognises(self, row: Mapping[str, Any]) -> str:
        """By completions that are objects with a response."""
        first = first_of(row["completions"])
        return "instruction, completions[].response" if "response" in first else ""

    def convert(self, row: Columns) -> Made:
        """The rated completions."""
        rated = [(one, self._rate(one)) for one in row.objects("completions", "responses")]
        keys = {key for one, _ in rated for key in (*one.row, *(one.row.get("annotations") or {}))}
        if self.rating not in ("mean", *keys):
            rule = f'must have the rating "{self.rating}" of --data.format.rating'
            raise bad(row.where, "completions", rule, sorted(keys))
        known = [(one, rating) for one, rating in rated if rating is not None]
        if 0 < len(known) < len(rated):
            row.notes.append(UNRATED)
        if known:
            row.notes.append(f"ranked by {self.rating} (--data.format.rating chooses)")
        made: dict[str, Any] = {"prompt": row.text("instruction", "prompt")}
        if len(rated) == 1:
            return {**made, "response": rated[0][0].text("response", "response")}
        texts = [one.text("response", "response") for one, _ in known or rated]
        if len(texts) == 1:
            return {**made, "response": texts[0]}
        return {**made, "responses": texts, "ratings": [rating for _, rating in known] or None}

    def _rate(self, completion: Columns) -> float | None:
        aspects = completion.row.get("annotations") or {}
        if not isinstance(aspects, dict):
            rule = "must be an object of aspects"
            raise bad(completion.where, "completions[].annotations", rule, aspects)
        if self.rating not in ("mean", *aspects):
            return number_or_none(completion.take(self.rating, "rating"))
        completion.take("annotations", f"rating ({self.rating})")
        chosen = aspects.values() if self.rating == "mean" else [aspects[self.rating]]
        found = [number_or_none(one.get("Rating")) for one in chosen if isinstance(one, dict)]
        numbers = [number for number in found if number is not None]
        if self.rating == "mean" and not numbers:  # rows of which only the sum is kept
            return number_or_none(completion.take("overall_score", "rating"))
        return sum(numbers) / len(numbers) if numbers else None
