"""A rollout algorithm and a reward from outside the package."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from instructgpt.algorithms.base import RolloutAlgorithm, UpdateLoss
from instructgpt.functional.logprobs import kl_estimate
from instructgpt.rewards.base import RewardFunction
from instructgpt.types import Rollout, Sample, ScoredRollout


class CountsLetters(RewardFunction):
    """How many of some letters a response holds.

    Args:
        letters: to count.
    """

    def __init__(self, letters: str = "e") -> None:
        self.letters = letters

    def raw_scores(self, samples: list[Sample]) -> Sequence[float | None]:
        """Count."""
        return [float(sum(map(one.response.count, self.letters))) for one in samples]


class GroupExperience(NamedTuple):
    """Responses with how much better than their group they are."""

    rollout: Rollout
    reference_logprobs: Tensor  # [N, R]
    advantages: Tensor  # [N]
    kl_coef: Tensor  # [N]


@dataclass(frozen=True)
class GroupPolicy(RolloutAlgorithm):
    """Group statistics, the KL in the loss, and 1/length a token: what no shipped algorithm has.

    Args:
        responses_per_prompt: of a group.
        sharpness: factor on the advantages.
    """

    uses_value: ClassVar[bool] = False
    uses_reference: ClassVar[bool] = True
    whole_groups: ClassVar[bool] = True
    experience_type: ClassVar[type] = GroupExperience

    responses_per_prompt: int = 3
    sharpness: float = 1.0

    @torch.no_grad()
    def experience(self, scored: ScoredRollout, kl_coef: float) -> GroupExperience:
        """Compare each response with the mean of its group."""
        scores = self.episode_scores(scored.scores, scored.rollout.finished)
        groups = scores.view(-1, self.responses_per_prompt)
        spread = groups.std(1, correction=0, keepdim=True) + 1e-4
        advantages = self.sharpness * ((groups - groups.mean(1, keepdim=True)) / spread).flatten()
        assert scored.reference_logprobs is not None
        assert scored.values is None
        return GroupExperience(
            scored.rollout, scored.reference_logprobs, advantages, torch.full_like(scores, kl_coef)
        )

    def row_weights(self, batch: GroupExperience) -> Tensor:
        """Each response counts once, however long it is."""
        return torch.ones_like(batch.advantages)

    def loss(
        self, batch: GroupExperience, new_logprobs: Tensor, new_values: Tensor | None
    ) -> UpdateLoss:
        """Sum the means over the tokens of each response."""
        assert new_values is None
        groups = batch.rollout.tokens[:, : batch.rollout.prompt_mask.shape[1]]
        groups = groups.view(-1, self.responses_per_prompt, groups.shape[1])
        assert bool((groups == groups[:, :1]).all())  # groups come whole
        mask = batch.rollout.response_mask
        reference = batch.reference_logprobs.masked_fill(~mask, 0.0)
        kl = kl_estimate(new_logprobs.masked_fill(~mask, 0.0), reference, "k3")
        tokens = batch.kl_coef[:, None] * kl - batch.advantages[:, None] * new_logprobs
        means = (tokens * mask).sum(1) / mask.sum(1).clamp_min(1)
        return UpdateLoss(means.sum(), {"policy": means.detach().sum()})
