"""Rows of ``generate`` with their grades: what ``label`` and ``evaluate`` start from."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from instructgpt.data.errors import bad, shorten
from instructgpt.data.files import Item, read_file
from instructgpt.data.formats import parse_prompt
from instructgpt.evaluation.judges import Answer
from instructgpt.evaluation.measures import Answers, Question
from instructgpt.types import Prompt, UserError

GENERAL = "general"
"""The set of prompts that belong to no other."""

SETS = r"closed|truth|toxic_(none|respectful|rude)|nlp_\w+"
"""The sets of graded prompts that have a section of their own in the report."""


class AnswersRow(NamedTuple):
    """A prompt and what a model said to it."""

    where: str  # file:line
    prompt: Prompt
    responses: list[str]  # may be empty texts
    finished: list[bool]  # one a response

    @property
    def optional(self) -> dict[str, Any]:
        """The other keys of the row: category, set, meta, ..."""
        return {key: value for key, value in self.prompt.meta.items() if key != "finished"}


def read_answers(path: str, least: int = 1) -> list[AnswersRow]:
    """Rows as ``generate`` writes them, checked.

    Args:
        path: JSONL file.
        least: how many responses a row must have.
    """
    return [_answers_row(item, least) for item in read_file(Path(path))]


def _answers_row(item: Item, least: int) -> AnswersRow:
    prompt = parse_prompt(item).row.prompt
    row, where = item.value, item.where
    responses = row.get("responses")
    if not isinstance(responses, list) or not all(isinstance(one, str) for one in responses):
        raise bad(where, "responses", "must be a list of strings", responses)
    if len(responses) < least:
        rule = f"must hold at least {least} response{'s' * (least > 1)}"
        raise bad(where, "responses", f"{rule}, got {len(responses)}", responses)
    return AnswersRow(where, prompt, responses, finished_of(where, row, len(responses)))


def finished_of(where: str, row: Mapping[str, Any], count: int) -> list[bool]:
    """Whether each response ended by itself; all did where a row does not say.

    Args:
        where: file and line.
        row: with ``finished``, or without.
        count: of responses.
    """
    finished = row.get("finished")
    if finished is None:
        return [True] * count
    fine = isinstance(finished, list) and all(isinstance(one, bool) for one in finished)
    if not fine or len(finished) != count:
        raise bad(where, "finished", "must be a list of true and false, one a response", finished)
    return list(finished)


def grade_row(row: AnswersRow) -> list[Answer]:
    """A row's responses with their grades; a row that is not of the world is an error.

    Args:
        row: with ``meta``.
    """
    meta = row.prompt.meta.get("meta")
    if meta is None:
        raise UserError(
            f'{row.where}: "meta" is missing, which the world\'s grader needs, got the keys '
            f"{shorten(sorted(row.prompt.meta))}"
        )
    return grade_all(row.where, row.prompt, meta, row.responses, row.finished)


def grade_all(
    where: str, prompt: Prompt, meta: Any, responses: list[str], finished: list[bool]
) -> list[Answer]:
    """Responses to one prompt with their grades.

    Args:
        where: file and line, for messages.
        prompt: that is answered.
        meta: what the grader needs to know about the prompt.
        responses: texts.
        finished: whether each ended by itself.
    """
    from instructgpt.miniature.world.grader import grade, utility

    known: dict[tuple[str, bool], Answer] = {}
    for text, ended in zip(responses, finished, strict=True):
        if (text, ended) in known:
            continue
        try:
            attributes, metadata = grade(meta, text, ended)
        except UserError as error:
            raise UserError(f"{where}: {error}") from None
        except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError) as error:
            rule = f"must be what the world has written ({type(error).__name__}: {error})"
            raise bad(where, "meta", rule, meta) from error
        value = utility(attributes) if attributes else float("nan")
        known[text, ended] = Answer(prompt, text, ended, attributes, metadata, value)
    return [known[key] for key in zip(responses, finished, strict=True)]


def ungraded(row: AnswersRow, prompt: Prompt) -> list[Answer]:
    """A row's responses without grades.

    Args:
        row: of a model.
        prompt: that is answered.
    """
    return [
        Answer(prompt, text, ended, {}, {}, float("nan"))
        for text, ended in zip(row.responses, row.finished, strict=True)
    ]


def load_answers(paths: Mapping[str, str], baseline: str) -> Answers:
    """The answers of several models to the same prompts.

    Args:
        paths: model -> JSONL of ``generate``.
        baseline: the model whose file says what the prompts are; others may have seen them with
            something in front, such as examples.
    """
    files = {model: by_id(path) for model, path in paths.items()}
    asked = files[baseline]
    graded = is_graded(list(asked.values()))
    models: dict[str, list[list[Answer]]] = {}
    for model, rows in files.items():
        check_same(rows, asked, paths[model], paths[baseline])
        models[model] = [
            grade_all(
                row.where, first.prompt, first.prompt.meta["meta"], row.responses, row.finished
            )
            if graded
            else ungraded(row, first.prompt)
            for first, row in ((first, rows[name]) for name, first in asked.items())
        ]
    return Answers([question(name, row) for name, row in asked.items()], models)


def is_graded(rows: Sequence[AnswersRow]) -> bool:
    """Whether the world's grader knows the prompts: all of them, or none.

    Args:
        rows: of one file.
    """
    known = ["meta" in row.prompt.meta for row in rows]
    if any(known) and not all(known):
        first = rows[known.index(not known[0])]
        rule = '"meta" must be in all rows (prompts of the world) or in none'
        raise UserError(f"{first.where}: {rule}, got the keys {shorten(sorted(first.prompt.meta))}")
    return all(known)


def by_id(path: str) -> dict[str, AnswersRow]:
    """The rows of a file by the id of their prompt, or by its text where a row has no id."""
    rows: dict[str, AnswersRow] = {}
    for row in read_answers(path):
        named = row.prompt.id != Path(row.where).name
        name = row.prompt.id if named else row.prompt.text
        if (earlier := rows.setdefault(name, row)) is not row:
            rule = f"must be there once, but {earlier.where} has it too"
            raise bad(row.where, "id" if named else "prompt", rule, name)
    return rows


def check_same(
    rows: Mapping[str, AnswersRow], asked: Mapping[str, AnswersRow], path: str, baseline: str
) -> None:
    """Refuse answers that are not to the same prompts, or not as many to each.

    Args:
        rows: of a model.
        asked: of the baseline.
        path: of the model's file.
        baseline: path of the baseline's file.
    """
    for name, first in asked.items():
        row = rows.get(name)
        if row is None:
            raise UserError(
                f"{path}: must answer the same prompts as {baseline}, got no answer to "
                f"{shorten(name)} ({first.where})"
            )
        meta, same = first.prompt.meta.get("meta"), row.prompt.text == first.prompt.text
        if row.prompt.meta.get("meta") != meta or (meta is None and not same):
            rule = f"must be the prompt of this id in {first.where}"
            raise bad(row.where, "prompt", rule, row.prompt.text)
        if len(row.responses) != len(first.responses):
            rule = f"must hold as many responses as {first.where}, which has {len(first.responses)}"
            raise bad(row.where, "responses", rule, row.responses)
    extra = next((row for name, row in rows.items() if name not in asked), None)
    if extra is not None:
        rule = f"must be that of a prompt in {baseline}"
        raise bad(extra.where, "id", rule, extra.prompt.id)


def question(name: str, row: AnswersRow) -> Question:
    """What sections need to know about a prompt.

    Args:
        name: that tells it from others.
        row: with the prompt.
    """
    about = row.prompt.meta
    meta = about.get("meta")
    fact = json.dumps(meta.get("fact")) if isinstance(meta, Mapping) else ""
    category = str(about.get("category") or "all")
    group = str(about.get("set"))
    group = group if meta is not None and re.fullmatch(SETS, group) else GENERAL
    return Question(name, row.prompt, category, group, fact)
