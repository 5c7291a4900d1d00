"""Exports of Argilla: records with the answers of several users, nested or as a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from instructgpt.data.checks import read_json
from instructgpt.data.columns import Columns, is_empty
from instructgpt.data.errors import bad
from instructgpt.data.labeled import LabelingTool, labeled_row, shown
from instructgpt.data.row_format import Made

UNSENT = "of records with answers that were not submitted: left out"
SUGGESTED = "of records with suggestions of a model: not read"
USERS, STATES = ".responses.users", ".responses.status"

Answers = dict[str, dict[str, Any]]
"""User -> question -> answer."""


class Argilla(LabelingTool):
    """Records ``{"fields": {…}, "responses": {question: [{"value", "user_id"}]}}``.

    Also as version 1 has them: ``"responses": [{"user_id", "values": {question: {"value"}}}]``.
    """

    name, title = "argilla", "Argilla"
    needs = ("fields",)

    def recognises(self, row: Mapping[str, Any]) -> str:
        """By fields that are an object."""
        fine = isinstance(row["fields"], dict) and isinstance(row.get("responses"), dict | list)
        return "fields, responses" if fine else ""

    def convert(self, row: Columns) -> Made:
        """A row for each user."""
        fields = row.take("fields", "prompt and responses")
        given = row.take("responses", "answers of labelers") or {}
        if row.row.get("suggestions"):
            row.take("suggestions", "nothing")
            row.uses["suggestions"] = "not used"
            row.notes.append(SUGGESTED)
        answers = _old(row, given) if isinstance(given, list) else _new(row, given)
        return _made(row, fields, answers)


class ArgillaTable(LabelingTool):
    """The same as a table: ``question.responses``, ``question.responses.users``."""

    name, title = "argilla_table", "Argilla table"
    needs = ("_server_id", "status")

    def recognises(self, row: Mapping[str, Any]) -> str:
        """By a column of users."""
        return next((key for key in row if key.endswith(USERS)), "")

    def convert(self, row: Columns) -> Made:
        """A row for each user."""
        questions = [key.removesuffix(USERS) for key in row if key.endswith(USERS)]
        answers: Answers = {}
        for question in questions:
            keys = (f"{question}.responses", f"{question}{USERS}", f"{question}{STATES}")
            values, users, states = (_list(row, key) for key in keys)
            for user, value, state in zip(users, values, states, strict=False):
                _add(row, answers, user, question, value, state)
        for key in row:
            if ".suggestion" in key and key.partition(".")[0] in questions:
                row.uses[key] = "not used"
        return _flat(row, answers, {"id", *self.needs})


class ArgillaHub(LabelingTool):
    """The same as version 1 puts it on the hub: a column for each field and for each question."""

    name, title = "argilla_hub", "Argilla on the hub"
    needs, may_be_empty = ("external_id", "metadata"), True

    def recognises(self, row: Mapping[str, Any]) -> str:
        """By a column of answers with their users."""
        key = next((key for key, value in row.items() if _listed(value)), "")
        return f"{key}[].user_id, {key}[].value, {key}[].status" if key else ""

    def convert(self, row: Columns) -> Made:
        """A row for each user."""
        answers: Answers = {}
        questions = [key for key, value in row.row.items() if _listed(value)]
        for question in questions:
            for one in _listed(row.take(question, "answers of labelers")):
                value = _listed(one["value"], "rank", "value") or one["value"]
                _add(row, answers, one["user_id"], question, value, one["status"])
        for key in row:
            if "-suggestion" in key:
                if not is_empty(row.row[key]) and not key.endswith("-metadata"):
                    row.notes.append(SUGGESTED)
                row.uses[key] = "not used"
        return _flat(row, answers, set(self.needs))


ANSWER = ("user_id", "value", "status")


def _listed(value: Any, *keys: str) -> list[dict[str, Any]]:
    """Objects with some keys, which tables may hold as one object of lists; nothing of others."""
    keys = keys or ANSWER
    if isinstance(value, dict) and value.keys() >= {*keys}:
        columns = [value[key] for key in keys]
        lists = all(isinstance(one, list) and len(one) == len(columns[0]) for one in columns)
        return (
            [dict(zip(keys, one, strict=True)) for one in zip(*columns, strict=True)]
            if lists
            else []
        )
    fine = isinstance(value, list) and all(
        isinstance(one, dict) and one.keys() >= {*keys} for one in value
    )
    return value if fine else []


def _list(row: Columns, key: str) -> list[Any]:
    value = read_json(row.take(key, "answers of labelers")) or []
    if not isinstance(value, list):
        raise bad(row.where, key, "must be a list, with an answer of each user", value)
    return value


def _flat(row: Columns, answers: Answers, about: set[str]) -> Made:
    """The rows of a table whose columns are fields, but for those about the record."""
    fields = {
        key: value for key, value in row.row.items() if key not in about and key not in row.uses
    }
    fields = shown(row.where, fields)
    for key in fields:
        row.take(key, "prompt and responses")
    return _made(row, fields, answers)


def _made(row: Columns, fields: Mapping[str, Any], answers: Answers) -> Made:
    row.notes[:] = dict.fromkeys(row.notes)
    made = [(user, labeled_row(row.where, fields, given)) for user, given in answers.items()]
    return [{**one, "labeler": user} for user, one in made if one]


def _new(row: Columns, given: dict[str, Any]) -> Answers:
    answers: Answers = {}
    for question, listed in given.items():
        for one in listed if isinstance(listed, list) else [listed]:
            if not isinstance(one, dict) or "value" not in one:
                raise bad(row.where, f"responses.{question}", 'must have a "value"', one)
            _add(row, answers, one.get("user_id"), question, one["value"], one.get("status"))
    return answers


def _old(row: Columns, given: list[Any]) -> Answers:
    answers: Answers = {}
    for one in given:
        values = one.get("values") if isinstance(one, dict) else None
        if not isinstance(values, dict):
            raise bad(row.where, "responses", 'must be objects with "values"', one)
        for question, answer in values.items():
            value = answer.get("value") if isinstance(answer, dict) else answer
            _add(row, answers, one.get("user_id"), question, value, one.get("status"))
    return answers


def _add(row: Columns, answers: Answers, user: Any, question: str, value: Any, state: Any) -> None:
    """Note an answer, unless it is a draft or was discarded."""
    if state not in (None, "submitted"):
        row.notes.append(UNSENT)
    elif value is not None:
        answers.setdefault("" if user is None else str(user), {})[question] = value
