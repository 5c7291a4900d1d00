"""Scores of a reward model for any responses, each computed once."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from instructgpt.evaluation.judges import Answer
from instructgpt.models.choice import choose_template
from instructgpt.models.tokenizer import load_tokenizer
from instructgpt.rewards.learned import LearnedReward
from instructgpt.types import Prompt, Sample


class Scorer:
    """A reward model that remembers what it has scored.

    Args:
        init_from: folder or hub id of the reward model.
    """

    def __init__(self, init_from: str) -> None:
        self.reward = LearnedReward(init_from)
        self.tokenizer = load_tokenizer(init_from, False)
        self.choice = choose_template(None, init_from, self.tokenizer)
        self.template = self.choice.template
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.reward.prepare(self.tokenizer, self.template, device)
        self.known: dict[tuple[str, str, bool], float] = {}
        self.prompts: dict[str, list[int]] = {}
        self.responses: dict[tuple[str, bool], list[int]] = {}

    def __call__(self, answers: Sequence[Answer]) -> list[float]:
        """One score an answer."""
        keys = [(answer.prompt.text, answer.text, answer.finished) for answer in answers]
        new = {
            key: answer for key, answer in zip(keys, answers, strict=True) if key not in self.known
        }
        if new:
            scores = self.reward.score([self._sample(answer) for answer in new.values()])
            self.known.update(zip(new, scores.tolist(), strict=True))
        return [self.known[key] for key in keys]

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
