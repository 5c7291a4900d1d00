"""Several rewards at once."""

from __future__ import annotations

import math

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from instructgpt.models.template import Template
from instructgpt.rewards.base import RewardFunction
from instructgpt.types import Diagnosis, Origin, Sample, UserError, require


class MixtureReward(RewardFunction):
    """Weighted sum of rewards; where one of them abstains, so does the sum.

    Args:
        rewards: what to add up.
        weights: a factor for each, in the same order.
    """

    def __init__(self, rewards: list[RewardFunction], weights: list[float]) -> None:
        if not rewards or len(rewards) != len(weights):
            raise UserError(
                f"reward.weights must be {len(rewards)}, one a reward, got {len(weights)}"
            )
        require(
            all(math.isfinite(weight) for weight in weights), "reward.weights", "finite", weights
        )
        self.rewards = rewards
        self.weights = weights

    def prepare(
        self, tokenizer: PreTrainedTokenizerBase, template: Template, device: torch.device
    ) -> None:
        """Prepare each reward."""
        for reward in self.rewards:
            reward.prepare(tokenizer, template, device)

    def networks(self) -> list[nn.Module]:
        """Those of each reward."""
        return [network for reward in self.rewards for network in reward.networks()]

    def raw_scores(self, samples: list[Sample]) -> list[float | None]:
        """The weighted sum."""
        scores = torch.stack([reward.score(samples) for reward in self.rewards])
        spreads = zip(self.rewards, self.weights, strict=True)
        known = [abs(w) * one.spread for one, w in spreads if one.spread is not None]
        self.spread = torch.stack(known).square().sum(0).sqrt() if known else None
        sums = (torch.tensor(self.weights, dtype=scores.dtype) @ scores).tolist()
        abstained = scores.isnan().any(0).tolist()
        return [None if none else value for value, none in zip(sums, abstained, strict=True)]

    def origins(self) -> dict[str, Origin]:
        """Those of each reward."""
        return {
            f"rewards.{number}.{name}": origin
            for number, reward in enumerate(self.rewards)
            for name, origin in reward.origins().items()
        }

    def warnings(self) -> list[Diagnosis]:
        """Those of each reward."""
        return [finding for reward in self.rewards for finding in reward.warnings()]
