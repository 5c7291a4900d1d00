"""Rewards that are not learned: rules, and any python function."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from instructgpt.rewards.base import RewardFunction
from instructgpt.types import Sample, UserError, failed, require


class CountReward(RewardFunction):
    """How often a text occurs in the response.

    Args:
        text: what to count, without overlaps, capitals as written.
        maximum: more than this many do not count; null: all do.
    """

    def __init__(self, text: str, maximum: int | None = None) -> None:
        if not text:
            raise UserError("reward.text must not be empty")
        require(maximum is None or maximum >= 1, "reward.maximum", ">= 1", maximum)
        self.text = text
        self.maximum = maximum

    def raw_scores(self, samples: list[Sample]) -> list[float]:
        """The counts."""
        counts = [sample.response.count(self.text) for sample in samples]
        return [float(n if self.maximum is None else min(n, self.maximum)) for n in counts]


class LengthReward(RewardFunction):
    """How near the response is to a length: minus the relative distance, 0 at best.

    Args:
        target: words, as separated by white space.
    """

    def __init__(self, target: int) -> None:
        require(target >= 1, "reward.target", ">= 1", target)
        self.target = target

    def raw_scores(self, samples: list[Sample]) -> list[float]:
        """Minus |words - target| / target."""
        return [-abs(len(s.response.split()) - self.target) / self.target for s in samples]


class CallableReward(RewardFunction):
    """A python function ``(prompts: list[str], responses: list[str]) -> list[float | None]``.

    None in place of a number abstains: the response is left out and counted.

    Args:
        path: where it is: "module:function"; the module must be importable.
    """

    def __init__(self, path: str) -> None:
        module, _, name = path.partition(":")
        if not module or not name:
            raise UserError(f"reward.path must be 'module:function', got '{path}'")
        try:
            self.function = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise UserError(f"reward.path: cannot import '{path}', {error}") from error
        except Exception as error:  # the user's code
            raise failed(f"reward.path: import of '{path}' failed", error) from error
        if not callable(self.function):
            raise UserError(f"reward.path must name a function, '{path}' is none")
        self.path = path

    def raw_scores(self, samples: list[Sample]) -> Sequence[float | None]:
        """What the function says."""
        prompts = [sample.prompt.text for sample in samples]
        try:
            scores: Sequence[float | None] = self.function(prompts, [s.response for s in samples])
        except Exception as error:  # the user's code
            raise failed(f"reward: '{self.path}' failed", error) from error
        return scores
