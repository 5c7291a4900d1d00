"""Rows of ``generate`` with their grades: what ``label`` and ``evaluate`` start from."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

from instructgpt.data.errors import bad, shorten
from instructgpt.data.files import Item, read_file
from instructgpt.data.formats import parse_item
from instructgpt.evaluation.judges import Answer
from instructgpt.evaluation.measures import Answers, Question
from instructgpt.types import Prompt, UserError

GENERAL = "general"
"""The set of prompts that belong to no other."""


Grade = Callable[[str, Prompt, list[str], list[bool]], list[Answer]]
"""Grades responses to a prompt: (file and line, prompt, texts, whether each ended) -> answers."""


class Grader(NamedTuple):
    """What somebody knows of prompts, so that answers to them can be graded."""

    grade: Grade  # by what the row of a prompt says beside its text: ``meta``
    sets: str  # a regular expression: the sets of prompts that are not general
    knows: Callable[[Prompt], bool]  # by the same


class AnswersRow(NamedTuple):
    """A prompt and what a model said to it."""

    where: str  # file:line
    prompt: Prompt
    responses: list[str]  # may be empty texts
    finished: list[bool]  # one a response
    kl: Sequence[float] = ()  # from a reference, nats; one a response, or none: not measured

    @property
    def optional(self) -> dict[str, Any]:
        """The other keys of the row: category, set, meta, ..."""
        return {
            key: value for key, value in self.prompt.meta.items() if key not in ("finished", "kl")
        }


def read_answers(path: str, least: int = 1) -> list[AnswersRow]:
    """Rows as ``generate`` writes them, checked.

    Args:
        path: JSONL file.
        least: how many responses a row must have.
    """
    return [_answers_row(item, least) for item in read_file(Path(path))]


def _answers_row(item: Item, least: int) -> AnswersRow:
    first, *_ = parse_item(item, "prompt")
    prompt, row, where = first.row.prompt, item.value, item.where
    responses = row.get("responses")
    if not isinstance(responses, list) or not all(isinstance(one, str) for one in responses):
        raise bad(where, "responses", "must be a list of strings", responses)
    if len(responses) < least:
        rule = f"must hold at least {least} response{'s' * (least > 1)}"
        raise bad(where, "responses", f"{rule}, got {len(responses)}", responses)
    count = len(responses)
    return AnswersRow(
        where, prompt, responses, finished_of(where, row, count), kl_of(where, row, count)
    )


def kl_of(where: str, row: Mapping[str, Any], count: int) -> list[float]:
    """How far each response is from a reference; none where a row does not say.

    Args:
        where: file and line.
        row: with ``kl``, or without.
        count: of responses.
    """
    given = row.get("kl", [])
    fine = isinstance(given, list) and all(
        isinstance(one, int | float) and not isinstance(one, bool) and isfinite(one)
        for one in given
    )
    if not fine or len(given) not in (0, count):
        raise bad(where, "kl", "must be a list of finite numbers, one a response", given)
    return [float(one) for one in given]


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


def answers_of(row: AnswersRow, prompt: Prompt, grader: Grader | None) -> list[Answer]:
    """A row's responses, without grades where there is no grader.

    Args:
        row: of a model.
        prompt: that is answered.
        grader: may know the prompt.
    """
    if grader is not None and grader.knows(prompt):
        found = grader.grade(row.where, prompt, row.responses, row.finished)
    else:
        found = [
            Answer(prompt, text, ended, {}, {}, float("nan"))
            for text, ended in zip(row.responses, row.finished, strict=True)
        ]
    if not row.kl:
        return found
    return [one._replace(kl=kl) for one, kl in zip(found, row.kl, strict=True)]


def load_answers(paths: Mapping[str, str], baseline: str, grader: Grader | None) -> Answers:
    """The answers of several models to the same prompts.

    Args:
        paths: model -> JSONL of ``generate``.
        baseline: the model whose file says what the prompts are; others may have seen them with
            something in front, such as examples.
        grader: knows all prompts, or none of them.
    """
    files = {model: by_id(path) for model, path in paths.items()}
    asked = files[baseline]
    known = knowing(grader, list(asked.values()))
    models: dict[str, list[list[Answer]]] = {}
    for model, rows in files.items():
        check_same(rows, asked, paths[model], paths[baseline], known)
        models[model] = [
            answers_of(row, first.prompt, known)
            for first, row in ((first, rows[name]) for name, first in asked.items())
        ]
    return Answers([question(name, row, known) for name, row in asked.items()], models)


def knowing(grader: Grader | None, rows: Sequence[AnswersRow]) -> Grader | None:
    """The grader if it knows the prompts: all of them, or none.

    Args:
        grader: that may know them; rows of others can have a ``meta``, too.
        rows: of one file.
    """
    if grader is None:
        return None
    known = [grader.knows(row.prompt) for row in rows]
    if any(known) and not all(known):
        first = rows[known.index(not known[0])]
        rule = '"meta" must be in all rows (prompts that can be graded) or in none'
        raise UserError(f"{first.where}: {rule}, got the keys {shorten(sorted(first.prompt.meta))}")
    return grader if all(known) else None


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
    rows: Mapping[str, AnswersRow],
    asked: Mapping[str, AnswersRow],
    path: str,
    baseline: str,
    grader: Grader | None,
) -> None:
    """Refuse answers that are not to the same prompts, or not as many to each.

    Args:
        rows: of a model.
        asked: of the baseline.
        path: of the model's file.
        baseline: path of the baseline's file.
        grader: knows the prompts, which may then stand behind others, such as examples.
    """
    for name, first in asked.items():
        row = rows.get(name)
        if row is None:
            raise UserError(
                f"{path}: must answer the same prompts as {baseline}, got no answer to "
                f"{shorten(name)} ({first.where})"
            )
        meta, same = first.prompt.meta.get("meta"), row.prompt.text == first.prompt.text
        if row.prompt.meta.get("meta") != meta or (grader is None and not same):
            rule = f"must be the prompt of this id in {first.where}"
            raise bad(row.where, "prompt", rule, row.prompt.text)
        if len(row.responses) != len(first.responses):
            rule = f"must hold as many responses as {first.where}, which has {len(first.responses)}"
            raise bad(row.where, "responses", rule, row.responses)
    extra = next((row for name, row in rows.items() if name not in asked), None)
    if extra is not None:
        rule = f"must be that of a prompt in {baseline}"
        raise bad(extra.where, "id", rule, extra.prompt.id)


def question(name: str, row: AnswersRow, grader: Grader | None) -> Question:
    """What sections need to know about a prompt.

    Args:
        name: that tells it from others.
        row: with the prompt.
        grader: says which sets are not general.
    """
    about = row.prompt.meta
    category, group = str(about.get("category") or "all"), str(about.get("set"))
    own = grader is not None and re.fullmatch(grader.sets, group)
    return Question(name, row.prompt, category, group if own else GENERAL)
