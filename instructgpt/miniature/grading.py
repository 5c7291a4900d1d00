"""Answers to prompts of the world with their grades."""

from __future__ import annotations

from collections.abc import Mapping

from instructgpt.data.errors import bad, shorten
from instructgpt.evaluation.answers import AnswersRow, Grader
from instructgpt.evaluation.judges import Answer
from instructgpt.miniature.world.grader import grade, utility
from instructgpt.types import Prompt, UserError

SETS = r"closed|truth|toxic_(none|respectful|rude)|nlp_\w+"
"""The sets of prompts that have a section of their own in the report."""


def grade_row(row: AnswersRow) -> list[Answer]:
    """A row's responses with their grades.

    Args:
        row: of ``generate``.
    """
    return grade_answers(row.where, row.prompt, row.responses, row.finished)


def grade_answers(
    where: str, prompt: Prompt, responses: list[str], finished: list[bool]
) -> list[Answer]:
    """Responses to one prompt with their grades; a prompt that is not of the world is an error.

    Args:
        where: file and line, for messages.
        prompt: that is answered.
        responses: texts.
        finished: whether each ended by itself.
    """
    meta = prompt.meta.get("meta")
    if meta is None:
        raise UserError(
            f'{where}: "meta" is missing, which the world\'s grader needs, got the keys '
            f"{shorten(sorted(prompt.meta))}"
        )
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


def knows(prompt: Prompt) -> bool:
    """Whether the world has written a prompt: others' ``meta`` says other things.

    Args:
        prompt: with what its row says beside the text.
    """
    meta = prompt.meta.get("meta")
    return isinstance(meta, Mapping) and {"category", "kind"} <= set(meta)


WORLD = Grader(grade_answers, SETS, knows)
"""What the world knows of its prompts."""
