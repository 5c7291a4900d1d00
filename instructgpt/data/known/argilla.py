"""Exports of Argilla: records with the answers of several users, nested or as a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from instructgpt.data.columns import Columns
from instructgpt.data.conversation import Wanted
from instructgpt.data.errors import bad
from instructgpt.data.labeled import labeled_row
from instructgpt.data.row_format import KnownFormat, Made, Without
from instructgpt.data.using import fitting

UNSENT = "of records with answers that were not submitted: left out"
SUGGESTED = "of records with suggestions of a model: not read"
USERS, STATES = ".responses.users", ".responses.status"

Answers = dict[str, dict[str, Any]]
"""User -> question -> answer."""


class Argilla(KnownFormat):
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

    def rows(self, row: Columns, wanted: Wanted) -> Made | Without:
        """Those for one use."""
        return fitting(self.convert(row), wanted)


class ArgillaTable(KnownFormat):
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
            values, users, states = (row.take(key, "answers of labelers") or [] for key in keys)
            for user, value, state in zip(users, values, states, strict=False):
                _add(row, answers, user, question, value, state)
        for key in row:
            if ".suggestion" in key and key.partition(".")[0] in questions:
                row.uses[key] = "not used"
        about = {"id", *self.needs, *row.uses}
        fields = {key: value for key, value in row.row.items() if key not in about}
        made = _made(row, fields, answers)
        for key, value in fields.items():
            if isinstance(value, str | list):
                row.take(key, "prompt and responses")
        return made

    def rows(self, row: Columns, wanted: Wanted) -> Made | Without:
        """Those for one use."""
        return fitting(self.convert(row), wanted)


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
