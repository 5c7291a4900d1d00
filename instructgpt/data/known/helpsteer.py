"""HelpSteer2 and HelpSteer3: ratings and preferences."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from instructgpt.data.checks import missing, read_json
from instructgpt.data.columns import Columns
from instructgpt.data.conversation import Wanted
from instructgpt.data.errors import bad
from instructgpt.data.numbers import number_of, number_or_none
from instructgpt.data.row_format import KnownFormat, Made, PairFormat, Without

SPEAKER = re.compile(r"\n?<extra_id_1>(User|Assistant)\n")


class HelpSteer2(KnownFormat):
    """Rows ``{"prompt", "response", "helpfulness", "correctness", "coherence", …}``.

    Several to one prompt, which follow one another, are a comparison, whose columns are lists. One
    alone is a demonstration of any quality, whose ratings are kept as metadata.

    Args:
        rating: the column that comparisons are ranked by.
    """

    name, title = "helpsteer2", "HelpSteer2"
    needs = ("prompt", "response", "helpfulness", "correctness", "coherence")

    def __init__(self, rating: str = "helpfulness") -> None:
        self.rating = rating

    def convert(self, row: Columns) -> Made:
        """A comparison of several, or a demonstration."""
        if not _is_several(row):
            return {**asked(row), "response": row.text("response", "response")}
        if self.rating not in row:
            raise missing(row.where, row.row, self.rating, ", which --data.format.rating names")
        row.notes.append(f"ranked by {self.rating} (--data.format.rating chooses)")
        given = read_json(row.take(self.rating, "ranking"))
        ratings = [number_or_none(one) for one in given] if isinstance(given, list) else [None]
        if None in ratings:
            raise bad(row.where, self.rating, "must be finite numbers", given)
        return {
            **asked(row),
            "responses": read_json(row.take("response", "responses")),
            "ratings": ratings,
        }

    def rows(self, row: Columns, wanted: Wanted) -> Made | Without:
        """Those for one use."""
        compared = wanted in ("comparison", "candidates", "responses")
        if compared and not _is_several(row):
            return Without("alone with a prompt, so nothing to compare with")
        return self.convert(row)


def _is_several(row: Columns) -> bool:
    """Whether the columns are lists, which are JSON in tables."""
    return isinstance(read_json(row.row["helpfulness"]), list)


class HelpSteer2Preference(PairFormat):
    """Rows ``{"prompt", "response_1", "response_2", "preference_strength"}``, -3 = the first."""

    name, title = "helpsteer2_preference", "HelpSteer2 preference"
    needs = ("prompt", "response_1", "response_2", "preference_strength")

    def asked(self, row: Columns) -> dict[str, Any]:
        """The prompt, whose marks are turns."""
        return asked(row)

    def judged(self, row: Columns) -> dict[str, Any]:
        """By the strength."""
        return ranked(row, "preference_strength")


class HelpSteer3(PairFormat):
    """Rows ``{"context": turns, "response1", "response2", "overall_preference"}``: -3 to 3."""

    name, title = "helpsteer3", "HelpSteer3"
    needs = ("context", "response1", "response2", "overall_preference")

    def recognises(self, row: Mapping[str, Any]) -> str:
        """By a context of turns."""
        return ", ".join(self.needs) if isinstance(row["context"], list) else ""

    def asked(self, row: Columns) -> dict[str, Any]:
        """The turns."""
        return {"messages": row.turns("context", "prompt")}

    def judged(self, row: Columns) -> dict[str, Any]:
        """By the preference."""
        return ranked(row, "overall_preference")


def ranked(row: Columns, key: str) -> dict[str, Any]:
    """The ranking of two responses by a number that is negative where the first is better."""
    number = number_of(row, key, "ranking")
    return {"ranking": [1, 1] if number == 0 else [1, 2] if number < 0 else [2, 1]}


def asked(row: Columns) -> dict[str, Any]:
    """A prompt, with the marks of its speakers read as turns."""
    text = row.text("prompt", "prompt")
    first, *parts = SPEAKER.split(text)
    if not parts:
        return {"prompt": text}
    said = [("User", first), *zip(parts[::2], parts[1::2], strict=True)]
    turns = [{"role": who.lower(), "content": what.strip()} for who, what in said]
    if turns[-1] == {"role": "assistant", "content": ""}:  # the mark that the response follows
        turns.pop()
    return {"messages": turns}
