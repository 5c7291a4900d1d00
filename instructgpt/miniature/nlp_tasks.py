"""Accuracy on public NLP tasks: what fine-tuning loses, and what PPO-ptx wins back."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import NamedTuple

import numpy as np

from instructgpt.evaluation.measures import Answers, metadata, turned, values
from instructgpt.evaluation.results import AlignmentTax, Difference, Results, Table
from instructgpt.evaluation.roles import Roles
from instructgpt.evaluation.statistics import (
    Array,
    Draws,
    Estimate,
    by_cluster,
    clustered,
    interval,
    ratio_draws,
)


def last_question(prompt: str) -> str:
    r"""What a prompt of solved examples asks in the end.

    It begins after the last line that begins as the prompt ends, which an answer completes.

    >>> last_question("2 + 2 = 4\n1 + 1 =")
    '1 + 1 ='
    >>> last_question("word : red\nzorg : yut\nword : big\nzorg :")
    'word : big\nzorg :'
    """
    *lines, last = prompt.rstrip().split("\n")
    solved = [i for i, line in enumerate(lines) if line.startswith(last)]
    return "\n".join([*lines[solved[-1] + 1 :], last]) if solved else last


class Tasks(NamedTuple):
    """Accuracy on tasks, and the bootstrap of their mean."""

    by_model: Table
    models: list[str]
    average: Draws  # [models]
    questions: int  # different ones: what is resampled

    def estimate(self, of: Callable[[Array], Array]) -> Estimate:
        """A function of the models' averages (last dimension), with its interval."""
        with np.errstate(invalid="ignore", divide="ignore"):
            value = float(of(self.average.value))
            return Estimate(value, *interval(of(self.average.resampled)), self.questions)


def tasks(answers: Answers, seed: int) -> Tasks:
    """Accuracy on each task and on average.

    Questions are resampled within their task, with all items that end in them: greedy answers to
    the same question after other examples are not independent.

    Args:
        answers: whose ``correct`` is known; a question's set is its task, such as nlp_arithmetic.
        seed: of the bootstrap.
    """
    models = list(answers.by_model)
    found: dict[str, dict[str, Estimate]] = {}
    means, resampled, questions = [], [], 0
    for number, group in enumerate(dict.fromkeys(q.group for q in answers.questions)):
        part = answers.of(group)
        asked = [last_question(question.prompt.text) for question in part.questions]
        correct = values(part, metadata("correct"))
        # Each task with its own draws: with common ones their errors would add up.
        drawn = seed + number
        found[group.removeprefix("nlp_")] = {
            model: clustered(list(numbers), asked, drawn) for model, numbers in correct.items()
        }
        table = np.stack([correct[model] for model in models], 1)
        draws = ratio_draws(*by_cluster(table, asked), drawn)
        means.append(draws.value)
        resampled.append(draws.resampled)
        questions += len(set(asked))
    average = Draws(np.mean(means, 0), np.mean(resampled, 0))
    result = Tasks({}, models, average, questions)
    found["mean"] = {
        m: result.estimate(_at(i))._replace(n=len(answers.questions)) for i, m in enumerate(models)
    }
    return result._replace(by_model=turned(found))


def _at(index: int) -> Callable[[Array], Array]:
    return lambda average: average[..., index]


def _minus(index: int, other: int) -> Callable[[Array], Array]:
    return lambda average: average[..., index] - average[..., other]


def task_differences(found: Tasks) -> list[Difference]:
    """Later minus earlier model in mean accuracy, for every two; n is different questions."""
    rows = []
    for i, j in combinations(range(len(found.models)), 2):
        estimate = found.estimate(_minus(j, i))
        rows.append(Difference(found.models[j], found.models[i], *estimate[:4]))
    return rows


def recovered(found: Tasks, start: str, taxed: str, mended: str) -> Estimate:
    """Share of what ``taxed`` lost against ``start`` that ``mended`` does not lose.

    Args:
        found: accuracy on tasks.
        start: model before fine-tuning.
        taxed: model that lost.
        mended: model that should lose less.
    """
    a, b, c = (found.models.index(model) for model in (start, taxed, mended))
    return found.estimate(
        lambda average: (average[..., c] - average[..., b]) / (average[..., a] - average[..., b])
    )


def add_nlp(results: Results, answers: Answers, roles: Roles, seed: int) -> None:
    """Add accuracy on NLP tasks, differences of the means, and what mixing in text gets back.

    Args:
        results: to add to.
        answers: to items of the tasks.
        roles: of the models.
        seed: of the bootstrap.
    """
    found = tasks(answers, seed)
    results.nlp = found.by_model
    results.add_differences("nlp", task_differences(found))
    named = [roles.base, roles.rl, roles.rl_ptx]
    asked = [model for model in named if model in found.models]
    if len(asked) == len(named):
        results.alignment_tax = AlignmentTax(recovered(found, *asked))
