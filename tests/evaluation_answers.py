"""Answers by hand, for the tests of this folder."""

import math

from instructgpt.evaluation.judges import Answer
from instructgpt.evaluation.measures import Answers, Question
from instructgpt.types import Prompt


def prompt_of(text):
    return Prompt(text, [{"role": "user", "content": text}], text, {})


def answer(text, utility=math.nan, prompt="p", attributes=None, **metadata):
    return Answer(prompt_of(prompt), text, True, attributes or {}, metadata, utility)


def table(models, groups=None, categories=None):
    """``Answers`` from model -> one list of responses (or one response) a question."""
    count = len(next(iter(models.values())))
    questions = [
        Question(
            str(i),
            prompt_of(f"p{i}"),
            (categories or ["chat"] * count)[i],
            (groups or ["general"] * count)[i],
        )
        for i in range(count)
    ]
    rows = {
        model: [one if isinstance(one, list) else [one] for one in answers]
        for model, answers in models.items()
    }
    return Answers(questions, rows)
