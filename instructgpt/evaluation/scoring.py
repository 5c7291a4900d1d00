"""Scores of a reward model for any responses, each computed once."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import torch

from instructgpt.callbacks.unfinished import UnfinishedRows
from instructgpt.evaluation.judges import Answer
from instructgpt.models.choice import choose_template
from instructgpt.models.tokenizer import load_tokenizer
from instructgpt.rewards.learned import LearnedReward
from instructgpt.terminal import say
from instructgpt.types import Prompt, Sample

TOGETHER = 1024
"""Answers that are scored together, and then noted."""


class Scorer:
    """A reward model that remembers what it has scored.

    Args:
        init_from: folder or hub id of the reward model.
        notes: file of the scores, as they come, until ``close``: whoever is interrupted goes on
            from there; None notes nothing.
        option: that names the model.
    """

    def __init__(
        self, init_from: str, notes: Path | None = None, option: str = "--reward_model"
    ) -> None:
        self.option = option
        self.reward = LearnedReward(init_from)
        self.tokenizer = load_tokenizer(init_from, False)
        self.choice = choose_template(None, init_from, self.tokenizer)
        self.template = self.choice.template
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.reward.prepare(self.tokenizer, self.template, device)
        self.known: dict[tuple[str, str, bool], float] = {}
        self.prompts: dict[str, list[int]] = {}
        self.responses: dict[tuple[str, bool], list[int]] = {}
        self._notes = None if notes is None else self._noted(notes, device)

    def __call__(self, answers: Sequence[Answer]) -> list[float]:
        """One score an answer."""
        keys = [(answer.prompt.text, answer.text, answer.finished) for answer in answers]
        new = {
            key: answer for key, answer in zip(keys, answers, strict=True) if key not in self.known
        }
        order = list(new)
        for some in (order[i : i + TOGETHER] for i in range(0, len(order), TOGETHER)):
            scores = self.reward.score([self._sample(new[key]) for key in some]).tolist()
            self.known.update(zip(some, scores, strict=True))
            if self._notes is not None:
                rows = [[*key, score] for key, score in zip(some, scores, strict=True)]
                self._notes.add([{"scores": rows}])
        return [self.known[key] for key in keys]

    def close(self, done: bool) -> None:
        """Write no more notes.

        Args:
            done: what the scores were for is there: the notes go.
        """
        if self._notes is not None:
            self._notes.discard() if done else self._notes.leave()

    def _noted(self, notes: Path, device: torch.device) -> UnfinishedRows:
        """The file of the notes, of which those that are there are read."""
        facts = {self.option: self.digest, "device": device.type}
        file = UnfinishedRows(notes, facts)
        if file.open(1):
            say(f"going on with the scores that are in {file.partial}")
        with file.partial.open("rb") as lines:
            scores = [one for line in lines for one in json.loads(line)["scores"]]
        for prompt, text, finished, score in scores:
            self.known[prompt, text, finished] = math.nan if score is None else score
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
