"""Scores of a reward model for any responses, each computed once."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from instructgpt.callbacks.unfinished import UnfinishedRows
from instructgpt.evaluation.judges import Answer
from instructgpt.evaluation.measures import Answers, estimates, values
from instructgpt.evaluation.results import Table
from instructgpt.models.load import Network
from instructgpt.rewards.combine import Combined
from instructgpt.rewards.learned import reads_alone
from instructgpt.terminal import say
from instructgpt.types import Prompt, Sample

TOGETHER = 1024
"""Answers that are scored together, and then noted."""


class Scored(NamedTuple):
    """What a reward model says of a response."""

    score: float
    heads: tuple[float, ...] = ()  # what each says, where there are several

    @property
    def disagreement(self) -> float:
        """The standard deviation over the heads; NaN where there is one."""
        return float(np.std(self.heads)) if self.heads else math.nan


class Scorer:
    """A reward model that remembers what it has scored.

    Args:
        init_from: folder or hub id of the reward model.
        notes: file of the scores, as they come, until ``close``: whoever is interrupted goes on
            from there; None notes nothing.
        option: that names the model.
        heads: what several of it say into one score.
    """

    def __init__(
        self,
        init_from: str,
        notes: Path | None = None,
        option: str = "--reward_model",
        heads: Combined = Combined(),
    ) -> None:
        self.option = option
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.reward = reads_alone(init_from, option, device, Network(), heads)
        self.tokenizer, self.template = self.reward.tokenizer, self.reward.template
        self.choice = self.reward.choice
        self.known: dict[tuple[str, str, bool], Scored] = {}
        self.prompts: dict[str, list[int]] = {}
        self.responses: dict[tuple[str, bool], list[int]] = {}
        self._notes = None if notes is None else self._noted(notes, device)

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
        keys = [(answer.prompt.text, answer.text, answer.finished) for answer in answers]
        new = {
            key: answer for key, answer in zip(keys, answers, strict=True) if key not in self.known
        }
        order = list(new)
        for some in (order[i : i + TOGETHER] for i in range(0, len(order), TOGETHER)):
            found = self._computed([new[key] for key in some])
            self.known.update(zip(some, found, strict=True))
            if self._notes is not None:
                pairs = zip(some, found, strict=True)
                rows = [[*key, one.score, *one.heads] for key, one in pairs]
                self._notes.add([{"scores": rows}])
        return [self.known[key] for key in keys]

    def _computed(self, answers: Sequence[Answer]) -> list[Scored]:
        scores = self.reward.score([self._sample(answer) for answer in answers]).tolist()
        if self.heads == 1:
            return [Scored(score) for score in scores]
        assert self.reward.said is not None
        said = self.reward.said.tolist()
        return [Scored(score, tuple(heads)) for score, heads in zip(scores, said, strict=True)]

    def close(self, done: bool) -> None:
        """Write no more notes.

        Args:
            done: what the scores were for is there: the notes go.
        """
        if self._notes is not None:
            self._notes.discard() if done else self._notes.leave()

    def _noted(self, notes: Path, device: torch.device) -> UnfinishedRows:
        """The file of the notes, of which those that are there are read."""
        reward = self.reward
        facts: dict[str, Any] = {self.option: self.digest, "device": device.type}
        if self.heads > 1:
            facts |= {"--heads.combine": reward.combine, "--heads.std_coef": reward.std_coef}
        file = UnfinishedRows(notes, facts)
        if file.open(1):
            say(f"going on with the scores that are in {file.partial}")
        with file.partial.open("rb") as lines:
            scores = [one for line in lines for one in json.loads(line)["scores"]]
        for prompt, text, finished, score, *heads in scores:
            known = Scored(math.nan if score is None else score, tuple(heads))
            self.known[prompt, text, finished] = known
        return file

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
        if prompt.text not in self.prompts:
            self.prompts[prompt.text] = self.template.encode_prompt(self.tokenizer, prompt)
        return self.prompts[prompt.text]

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
