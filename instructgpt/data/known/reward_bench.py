"""RewardBench and RewardBench 2: what reward models are tested on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from instructgpt.data.checks import read_json
from instructgpt.data.columns import Columns
from instructgpt.data.errors import bad
from instructgpt.data.row_format import KnownFormat, Made


class RewardBench(KnownFormat):
    """Rows ``{"prompt", "chosen", "rejected", "chosen_model", "rejected_model", "subset"}``."""

    name, title = "rewardbench", "RewardBench"
    needs = ("prompt", "chosen", "rejected", "chosen_model", "rejected_model", "subset")

    def convert(self, row: Columns) -> Made:
        """A pair, of the source that is its subset."""
        return {
            "prompt": row.take("prompt", "prompt"),
            "chosen": row.take("chosen", "response"),
            "rejected": row.take("rejected", "response"),
            **subset(row),
        }


class RewardBench2(KnownFormat):
    """Rows ``{"prompt", "chosen": [str], "rejected": [str]}``, any number of each."""

    name, title = "rewardbench2", "RewardBench 2"
    needs = ("prompt", "chosen", "rejected")

    def recognises(self, row: Mapping[str, Any]) -> str:
        """By lists of texts."""
        lists = [_listed(row, key) for key in ("chosen", "rejected")]
        texts = all(isinstance(one, list) and one and isinstance(one[0], str) for one in lists)
        return "prompt, lists of chosen and rejected texts" if texts else ""

    def convert(self, row: Columns) -> Made:
        """A comparison in which the right answers tie, and the wrong ones."""
        good, wrong = (_texts(row, key) for key in ("chosen", "rejected"))
        return {
            "prompt": row.text("prompt", "prompt"),
            "responses": good + wrong,
            "ranking": [1] * len(good) + [2] * len(wrong),
            **subset(row),
        }


def _listed(row: Mapping[str, Any], key: str) -> Any:
    """A column, which is JSON in tables; the count of right answers tells those from others."""
    return read_json(row[key]) if "num_correct" in row else row[key]


def _texts(row: Columns, key: str) -> list[str]:
    row.take(key, "responses")
    value = _listed(row.row, key)
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise bad(row.where, key, "must be a list of strings", value)
    return value


def subset(row: Columns) -> dict[str, Any]:
    """The subset of a row as its source, where it has no other."""
    there = "subset" in row and "source" not in row
    return {"source": row.take("subset", "source")} if there else {}
