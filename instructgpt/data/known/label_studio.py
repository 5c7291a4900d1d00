"""Exports of Label Studio: JSON, with several annotations a task, and JSON-MIN, with one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from instructgpt.data.columns import Columns
from instructgpt.data.errors import bad
from instructgpt.data.labeled import SIDES, LabelingTool, Pick, labeled_row, shown
from instructgpt.data.row_format import Made

CANCELLED = "of tasks with cancelled annotations: left out"
PREDICTED = "of tasks with predictions of a model: not read"
ORDERED = "whose left and right response are the first and the second column of responses"


class LabelStudio(LabelingTool):
    """Rows ``{"data": {…}, "annotations": [{"result": […], "completed_by": …}]}``."""

    name, title = "label_studio", "Label Studio"
    needs = ("data",)

    def recognises(self, row: Mapping[str, Any]) -> str:
        """By data and annotations, which may be none."""
        fine = isinstance(row["data"], dict) and isinstance(row.get("annotations"), list)
        results = fine and all(isinstance(one, dict) for one in row["annotations"])
        return "data, annotations" if results else ""

    def convert(self, row: Columns) -> Made:
        """A row for each annotation."""
        fields = row.take("data", "prompt and responses")
        made = []
        for annotation in row.take("annotations", "answers of labelers") or []:
            if annotation.get("was_cancelled"):
                row.notes.append(CANCELLED)
                continue
            answers = _answers(row, annotation.get("result"), fields)
            if one := labeled_row(row.where, fields, answers):
                made.append({**one, "labeler": _name(annotation.get("completed_by"))})
        if row.row.get("predictions"):
            row.take("predictions", "nothing")
            row.uses["predictions"] = "not used"
            row.notes.append(PREDICTED)
        row.notes[:] = dict.fromkeys(row.notes)
        return made


class LabelStudioMin(LabelingTool):
    """Rows with the fields of a task, the answers to its questions, and ``annotator``."""

    name, title = "label_studio_min", "Label Studio JSON-MIN"
    needs = ("annotator", "annotation_id", "lead_time")

    def convert(self, row: Columns) -> Made:
        """The row of the annotation."""
        about = {*self.needs, "id", "created_at", "updated_at"}
        fields = {key: value for key, value in row.row.items() if key not in about}
        judged = {key: _value(value) for key, value in fields.items() if _is_answer(value)}
        labeler = {"labeler": _name(row.take("annotator", "labeler"))}
        if not judged:
            return labeler  # the question is called as a column of a public format
        rest = {key: value for key, value in fields.items() if key not in judged}
        task = shown(row.where, rest)
        for key in task:
            row.take(key, "prompt and responses")
        for key, value in judged.items():
            row.take(key, "answer of the labeler")
            if value in SIDES:
                row.notes.append(ORDERED)
        return [{**one, **labeler}] if (one := labeled_row(row.where, task, judged)) else []


def _answers(row: Columns, result: Any, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Question -> answer; ratings of one response are called by it, too."""
    if not isinstance(result, list) or not all(isinstance(one, dict) for one in result):
        raise bad(row.where, "annotations[].result", "must be a list of objects", result)
    answers = {}
    for one in result:
        name = str(one.get("from_name"))
        if one.get("type") == "rating":
            name = f"{name} {one.get('to_name')}"
        answer = _value(one.get("value"))
        if answer in SIDES:
            answer = _sided(row, answer, str(one.get("to_name")).split(","), fields)
        answers[name] = answer
    return answers


def _sided(row: Columns, side: str, shown: list[str], fields: Mapping[str, Any]) -> str:
    """The response on a side: the task says which stood there, if it calls them as its fields."""
    if len(shown) == len(SIDES) and all(name in fields for name in shown):
        return shown[SIDES.index(side)]
    row.notes.append(ORDERED)
    return side


def _is_answer(value: Any) -> bool:
    """Whether a column of JSON-MIN can be nothing but an answer."""
    return value in SIDES or (isinstance(value, dict) and not value.keys().isdisjoint(_KINDS))


_KINDS = ("selected", "ranker", "choices", "rating", "text")


def _value(value: Any) -> Any:
    """What was answered, whatever control it was given with."""
    if not isinstance(value, dict):
        return value
    said = next((value[kind] for kind in _KINDS if kind in value), value)
    if isinstance(said, dict):  # the buckets of a ranker
        lists = [one for one in said.values() if isinstance(one, list) and one]
        said = lists[0] if len(lists) == 1 else said
    said = said[0] if isinstance(said, list) and len(said) == 1 else said
    return Pick(said) if isinstance(said, str) and "choices" in value else said


def _name(labeler: Any) -> str:
    """A labeler, who may be an object."""
    if isinstance(labeler, dict):
        labeler = labeler.get("email") or labeler.get("id")
    return "" if labeler is None else str(labeler)
