"""Scores of a reward model for any responses, each computed once."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from instructgpt.evaluation.judges import Answer
from instructgpt.evaluation.kept_scores import KeptScores, key_of
from instructgpt.evaluation.measures import Answers, estimates, values
from instructgpt.evaluation.results import Table
from instructgpt.models.load import Network
from instructgpt.rewards.combine import Combined
from instructgpt.rewards.learned import number_format, reads_alone
from instructgpt.terminal import note
from instructgpt.types import Prompt, Sample

TOGETHER = 256
"""Answers that are scored together, and then kept."""


class Scored(NamedTuple):
    """What a reward model says of a response."""

    score: float
    heads: tuple[float, ...] = ()  # what each says, where there are several

    @property
    def disagreement(self) -> float:
        """The standard deviation over the heads; NaN where there is one."""
        return float(np.std(self.heads)) if self.heads else math.nan


class Scorer:
    """A reward model that remembers what it has scored, for later commands, too (``cache``).

    A head on a frozen trunk reads states in the number format that it was trained on.

    Args:
        init_from: folder or hub id of the reward model.
        option: that names the model.
        heads: what several of it say into one score.
    """

    def __init__(
        self, init_from: str, option: str = "--reward_model", heads: Combined = Combined()
    ) -> None:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.option = option
        network = Network(dtype=number_format(init_from))
        self.reward = reads_alone(init_from, option, device, network, heads)
        self.tokenizer, self.template = self.reward.tokenizer, self.reward.template
        self.choice = self.reward.choice
        self.prompts: dict[str, list[int]] = {}
        self.responses: dict[tuple[str, bool], list[int]] = {}
        facts = {"model": self.digest, "device": device.type, "dtype": network.dtype}
        if self.heads > 1:
            facts |= {"combine": self.reward.combine, "std_coef": str(self.reward.std_coef)}
        self._kept = KeptScores(facts, f"reward model {init_from}")
        self.known = {key: Scored(one[0], one[1:]) for key, one in self._kept.read().items()}
        self._said = not self.known  # whether there is nothing to say of an earlier command

    def __call__(self, answers: Sequence[Answer]) -> list[float]:
        """One score an answer."""
        return [one.score for one in self.each(answers)]

    @property
    def heads(self) -> int:
        """How many the model has."""
        assert self.reward.model is not None
        return self.reward.model.heads

    def each(self, answers: Sequence[Answer]) -> list[Scored]:
        """The score of each answer, and what each head says of it."""
        samples = [self._sample(answer) for answer in answers]
        keys = [key_of(one.prompt_tokens, one.response_tokens) for one in samples]
        new = {key: one for key, one in zip(keys, samples, strict=True) if key not in self.known}
        if len(new) < len(set(keys)) and not self._said:
            self._said = True
            note(f"what an earlier command has scored is not scored again: {self._kept.path}")
        order = list(new)
        for some in (order[i : i + TOGETHER] for i in range(0, len(order), TOGETHER)):
            found = self._computed([new[key] for key in some])
            self.known.update(zip(some, found, strict=True))
            self._kept.add(
                {key: [one.score, *one.heads] for key, one in zip(some, found, strict=True)}
            )
        return [self.known[key] for key in keys]

    def _computed(self, samples: list[Sample]) -> list[Scored]:
        scores = self.reward.score(samples).tolist()
        if self.heads == 1:
            return [Scored(score) for score in scores]
        assert self.reward.said is not None
        said = self.reward.said.tolist()
        return [Scored(score, tuple(heads)) for score, heads in zip(scores, said, strict=True)]

    @property
    def digest(self) -> str:
        """Names the model by its weights and by how it reads text."""
        return self.reward.origins()["init_from"].digest

    def length(self, answer: Answer) -> int:
        """Number of tokens of a response."""
        return len(self._response(answer))

    def _sample(self, answer: Answer) -> Sample:
        prompt, response = self._prompt(answer.prompt), self._response(answer)
        return Sample(answer.prompt, answer.text, prompt, response, answer.finished)

    def _prompt(self, prompt: Prompt) -> list[int]:
        key = json.dumps([prompt.text, prompt.messages])  # two conversations may have one text
        if key not in self.prompts:
            self.prompts[key] = self.template.encode_prompt(self.tokenizer, prompt)
        return self.prompts[key]

    def _response(self, answer: Answer) -> list[int]:
        key = answer.text, answer.finished
        if key not in self.responses:
            self.responses[key] = self.template.encode_response(self.tokenizer, *key)
        return self.responses[key]


def score_measures(answers: Answers, scorer: Scorer, seed: int) -> Table:
    """The mean score of each model's answers, and how far the heads are apart about them.

    Args:
        answers: of the models.
        scorer: the reward model.
        seed: of the bootstrap.
    """
    every = [one for rows in answers.by_model.values() for row in rows for one in row]
    known = dict(zip(map(id, every), scorer.each(every), strict=True))
    parts = {"score": lambda one: known[id(one)].score}
    if scorer.heads > 1:
        parts["disagreement"] = lambda one: known[id(one)].disagreement
    found = {
        name: estimates(values(answers, part), seed, share=False) for name, part in parts.items()
    }
    return {model: {name: one[model] for name, one in found.items()} for model in answers.by_model}
