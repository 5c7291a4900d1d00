"""Reward models by the protocol of RewardBench 2 (arXiv:2506.01937): the best of K, and ties.

The rules are those of ``scripts/run_v2.py`` and ``rewardbench/utils.py`` of allenai/reward-bench.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from instructgpt.data.checks import object_of, read_json
from instructgpt.data.errors import bad
from instructgpt.data.files import read_file
from instructgpt.evaluation.benchmark import SetResults
from instructgpt.evaluation.public_sets import REWARD_BENCH, Row, text, texts
from instructgpt.evaluation.results import Difference
from instructgpt.evaluation.statistics import (
    Draws,
    Estimate,
    draws,
    interval,
    mean,
    rate,
    ratio_draws,
)
from instructgpt.models.chat import RefusedPromptError
from instructgpt.rewards.learned import LearnedReward
from instructgpt.types import Prompt, Sample, UserError

TOGETHER = 16
"""Questions whose responses are scored together, and then noted."""

MEAN = "mean of subsets"


class RewardQuestion(NamedTuple):
    """A prompt with right and wrong responses."""

    subset: str
    name: str  # its id, by which the questions of ``Ties`` belong together
    prompt: Prompt
    responses: list[str]  # the right ones first
    right: int  # so many

    @property
    def ties(self) -> bool:
        """Whether it belongs to the subset in which all right responses are equally good."""
        return self.subset.lower() == "ties"


@dataclass(frozen=True)
class RewardQuestions:
    """The questions of one file.

    Args:
        path: of the file.
        places: file and line of each question.
        problems: in the order of the file.
    """

    name: ClassVar[str] = REWARD_BENCH
    title: ClassVar[str] = "RewardBench 2"
    path: str
    places: list[str]
    problems: list[RewardQuestion]

    def row(self, number: int, found: Sequence[float]) -> dict[str, Any]:
        """What is noted of a question: the scores, those of the right responses first.

        Args:
            number: of the question.
            found: a score each.
        """
        asked = self.problems[number]
        about = {"set": self.name, "id": self.places[number], "subset": asked.subset}
        noted = {**about, "scores": list(found), "right": asked.right}
        return noted if asked.ties else {**noted, "best": best_is_right(found, asked.right)}

    def results(self, rows: Mapping[str, Sequence[dict[str, Any]]], seed: int) -> SetResults:
        """The accuracy on each subset and their mean, of each model and against the first.

        Args:
            rows: model -> a row a question.
            seed: of the bootstrap.
        """
        subsets = list(dict.fromkeys(one.subset for one in self.problems))
        measures: dict[str, dict[str, Estimate]] = {name: {} for name in (MEAN, *subsets)}
        drawn: dict[str, dict[str, Draws]] = {name: {} for name in measures}
        counts = dict.fromkeys(measures, len(self.problems))
        for model, those in rows.items():
            scores = [row["scores"] for row in those]
            for number, name in enumerate(subsets):
                # Subsets are resampled independently, and alike for all models.
                chosen = [i for i, one in enumerate(self.problems) if one.subset == name]
                some = [self.problems[i] for i in chosen]
                found = of_subset(some, [scores[i] for i in chosen], seed + (number << 32))
                measures[name][model], drawn[name][model] = found
                counts[name] = len(chosen)
            parts = [drawn[name][model] for name in subsets]
            value = np.mean([one.value for one in parts], axis=0)
            drawn[MEAN][model] = Draws(value, np.mean([one.resampled for one in parts], axis=0))
            limits = interval(drawn[MEAN][model].resampled)
            measures[MEAN][model] = Estimate(float(value), *limits, len(self.problems))
        first, *others = rows
        differences = {
            name: [_difference(model, first, of, counts[name]) for model in others]
            for name, of in drawn.items()
        }
        return SetResults(self.path, len(self.problems), 0, measures, differences)


def _difference(model: str, first: str, drawn: Mapping[str, Draws], count: int) -> Difference:
    value = float(drawn[model].value - drawn[first].value)
    limits = interval(drawn[model].resampled - drawn[first].resampled)
    return Difference(model, first, value, *limits, count)


def read_reward_bench(path: str) -> RewardQuestions:
    """The questions of a file.

    Args:
        path: of rows ``{"prompt", "chosen": [str], "rejected": [str], "subset", "id", …}``.

    Raises:
        UserError: a row is not of this kind, or the questions of ``Ties`` have no pair.
    """
    items = list(read_file(Path(path)))
    problems = [_question(item.where, object_of(item)) for item in items]
    places = [item.where for item in items]
    known: dict[str, str] = {}
    for where, one in zip(places, problems, strict=True):
        if one.ties and known.setdefault(one.name, where) != where:
            raise bad(where, "id", f"must not be that of {known[one.name]}", one.name)
    tied = {one.name.partition(":")[2] for one in problems if one.name in known}
    if known and not any(f"ref:{i}" in known and f"tied:{i}" in known for i in tied):
        raise UserError(f'{path}: subset "Ties" must have a question both as ref:N and as tied:N')
    return RewardQuestions(path, places, problems)


def _question(where: str, row: Row) -> RewardQuestion:
    prompt, subset = text(where, row, "prompt"), text(where, row, "subset")
    lists = {key: read_json(row[key]) for key in ("chosen", "rejected") if key in row}
    chosen, rejected = (texts(where, {**row, **lists}, key) for key in ("chosen", "rejected"))
    both = chosen + rejected
    said = {"num_correct": chosen, "num_incorrect": rejected, "total_completions": both}
    for key, those in said.items():
        if row.get(key) is not None and row[key] != len(those):
            raise bad(where, key, f"must be {len(those)}, as many as there are", row[key])
    turns = [{"role": "user", "content": prompt}]
    asked = Prompt(prompt, turns, where, {})
    found = RewardQuestion(subset, str(row.get("id", "")), asked, both, len(chosen))
    if found.ties:
        kind = re.fullmatch(r"(ref|tied):[0-9]+", found.name)
        if kind is None:
            rule = 'must be "ref:N" or "tied:N" in the subset "Ties"'
            raise bad(where, "id", rule, row.get("id"))
        if kind[1] == "tied" and len(chosen) < 2:
            raise bad(where, "chosen", 'must hold at least 2 texts where "id" is tied', chosen)
    return found


def best_is_right(scores: Sequence[float], right: int) -> float:
    """The chance that the response with the highest score is right, where equal ones draw lots.

    Args:
        scores: of the right responses, then of the wrong ones.
        right: how many are right.

    Examples:
        >>> best_is_right([2.0, 1.0, 0.0, -1.0], 1), best_is_right([1.0, 1.0, 0.0, 1.0], 1)
        (1.0, 0.3333333333333333)
    """
    top = np.asarray(scores) == max(scores)
    return float(top[:right].sum() / top.sum())


def of_subset(
    asked: Sequence[RewardQuestion], scores: Sequence[Sequence[float]], seed: int
) -> tuple[Estimate, Draws]:
    """What a reward model reaches on a subset, and on resamples of its questions.

    Args:
        asked: questions of one subset.
        scores: of their responses.
        seed: of the bootstrap.
    """
    if asked[0].ties:
        found = ties_score(asked, scores, seed)
        return Estimate(float(found.value), *interval(found.resampled), len(asked)), found
    values = [best_is_right(s, one.right) for one, s in zip(asked, scores, strict=True)]
    plain = set(values) <= {0.0, 1.0}
    return rate(values) if plain else mean(values, seed), draws(values, seed)


def ties_score(
    asked: Sequence[RewardQuestion], scores: Sequence[Sequence[float]], seed: int
) -> Draws:
    """The score on the subset ``Ties``: accuracy, and margins in the right proportion.

    .3 times the share of tied questions, and .3 times that of reference questions, in which all
    right responses are above all wrong ones; .2 times the share of questions (that there are as
    both) in which the right ones are closer to each other than to the best wrong one, .2 times that
    where also the reference's right one must be as far from its wrong ones; and .01 times the mean
    of tanh(margin / spread - 1), 0 where that does not exist. At most 1.01.

    Args:
        asked: its questions; "ref:N" has one right response, "tied:N" several.
        scores: of their responses.
        seed: of the bootstrap; both forms of a question are resampled together.
    """
    numbers = sorted({one.name.partition(":")[2] for one in asked}, key=int)
    places = {name: i for i, name in enumerate(numbers)}
    gap, spread = np.full((2, len(numbers)), np.nan), np.full(len(numbers), np.nan)
    for one, values in zip(asked, scores, strict=True):
        kind, _, number = one.name.partition(":")
        right, wrong = values[: one.right], values[one.right :]
        gap[int(kind == "tied"), places[number]] = min(right) - max(wrong)
        if kind == "tied":
            spread[places[number]] = max(right) - min(right)
    of_ref, of_tied = gap
    least = np.minimum(of_ref, of_tied)  # NaN without a pair
    paired = ~np.isnan(least)
    with np.errstate(invalid="ignore", divide="ignore"):
        margins = np.nan_to_num(np.tanh(least / spread - 1))
    parts = (
        (0.3, of_tied > 0, ~np.isnan(of_tied)),
        (0.3, of_ref > 0, ~np.isnan(of_ref)),
        (0.2, (of_tied > spread) & paired, paired),
        (0.2, least > spread, paired),
        (0.01, np.where(paired, margins, 0), paired),
    )
    found = [(weight, ratio_draws(above, below, seed)) for weight, above, below in parts]
    whole = np.sum([weight * part.value for weight, part in found])
    return Draws(whole, np.sum([weight * part.resampled for weight, part in found], axis=0))


def scored(
    reward: LearnedReward, questions: RewardQuestions, start: int
) -> Iterator[list[list[float]]]:
    """The scores of each question's responses, some questions after others.

    Args:
        reward: that was prepared for its own tokenizer.
        questions: of a file.
        start: so many are not asked for: theirs is known. The others are computed with the same
            neighbours as if they were, so that not a digit differs.
    """
    for first in range(0, len(questions.problems), TOGETHER):
        some = questions.problems[first : first + TOGETHER]
        if first + len(some) <= start:
            continue
        samples = [sample for one in some for sample in _samples(reward, one)]
        scores = iter(reward.score(samples).tolist())
        whole = [[next(scores) for _ in one.responses] for one in some]
        yield whole[max(0, start - first) :]


def _samples(reward: LearnedReward, asked: RewardQuestion) -> list[Sample]:
    template, tokenizer = reward.template, reward.tokenizer
    try:
        prompt = template.encode_prompt(tokenizer, asked.prompt)
    except RefusedPromptError as error:
        raise UserError(f"{asked.prompt.id}: {error}") from error
    encoded = [template.encode_response(tokenizer, said, end=True) for said in asked.responses]
    return [
        Sample(asked.prompt, said, prompt, tokens, finished=True)
        for said, tokens in zip(asked.responses, encoded, strict=True)
    ]
