"""Proximal policy optimization (Schulman et al. 2017, arXiv:1707.06347) as InstructGPT uses it."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from instructgpt.algorithms.base import RolloutAlgorithm, UpdateLoss
from instructgpt.functional.advantages import explained_variance, gae
from instructgpt.functional.losses import (
    policy_clip_count,
    policy_loss,
    value_clip_count,
    value_loss,
)
from instructgpt.functional.masking import masked_mean, masked_whiten
from instructgpt.functional.rewards import shaped_rewards
from instructgpt.types import Rollout, ScoredRollout, require


class PPOExperience(NamedTuple):
    """What an update of PPO learns from."""

    rollout: Rollout
    logprobs: Tensor  # [N, R] of the policy that sampled
    values: Tensor  # [N, R]
    advantages: Tensor  # [N, R]
    returns: Tensor  # [N, R]


@dataclass(frozen=True)
class PPO(RolloutAlgorithm):
    """PPO (arXiv:2203.02155, section 3.5 and appendix C.4).

    Args:
        clip_range: how far the probability ratio of a token may leave 1 before it stops paying. The
            paper: 0.2.
        value_clip_range: how far a value may leave that of the rollout; null does not clip. The
            paper does not say; 0.2 in lm-human-preferences (arXiv:1909.08593).
        gamma: discount per token. The paper: 1.
        lam: lambda of generalized advantage estimation. The paper does not say; 0.95 in its
            ancestors (arXiv:1909.08593, arXiv:2009.01325, arXiv:2112.09332).
        value_coef: weight of the value loss. The paper does not say; 0.1 in lm-human-preferences.
        whiten_advantages: shift and scale the advantages of a rollout to mean 0 and variance 1. The
            paper does not say; its ancestors do.
        whiten_rewards: scale the rewards of a rollout to variance 1, keeping their mean. The paper
            does not say; lm-human-preferences does, WebGPT (arXiv:2112.09332) does not.
        bootstrap_truncated: a response that did not end keeps its score, and the value of the state
            after its last token stands for the rest. Needs missing_eos_score null.
    """

    uses_value: ClassVar[bool] = True
    uses_reference: ClassVar[bool] = True
    experience_type: ClassVar[type] = PPOExperience

    clip_range: float = 0.2
    value_clip_range: float | None = 0.2
    gamma: float = 1.0
    lam: float = 0.95
    value_coef: float = 0.1
    whiten_advantages: bool = True
    whiten_rewards: bool = False
    bootstrap_truncated: bool = False

    def __post_init__(self) -> None:
        """Check the fields."""
        super().__post_init__()
        require(self.clip_range > 0, "clip_range", "> 0", self.clip_range)
        value_clip = self.value_clip_range
        require(value_clip is None or value_clip > 0, "value_clip_range", "> 0 or null", value_clip)
        require(0 <= self.gamma <= 1, "gamma", "in [0, 1]", self.gamma)
        require(0 <= self.lam <= 1, "lam", "in [0, 1]", self.lam)
        require(0 <= self.value_coef < inf, "value_coef", ">= 0", self.value_coef)
        score = self.missing_eos_score
        clash = self.bootstrap_truncated and score is not None
        require(not clash, "missing_eos_score", "null when bootstrap_truncated is true", score)

    @torch.no_grad()
    def experience(self, scored: ScoredRollout, kl_coef: float) -> PPOExperience:
        """Advantages and returns of a rollout; without gradient.

        Args:
            scored: the rollout of all ranks, since whitening is over all its real tokens.
            kl_coef: weight of the KL penalty, reward per nat.
        """
        rollout, logprobs = scored.rollout, scored.logprobs
        mask = rollout.response_mask
        assert scored.values is not None
        assert scored.reference_logprobs is not None
        scores = self.episode_scores(scored.scores, rollout.finished)
        rewards = shaped_rewards(
            scores, logprobs, scored.reference_logprobs, mask, kl_coef, self.kl_estimator
        )
        if self.whiten_rewards:
            rewards = masked_whiten(rewards, mask, shift_mean=False)
        values, bootstrap = scored.values[:, :-1], self._bootstrap(rollout, scored.values)
        advantages, returns = gae(rewards, values, mask, self.gamma, self.lam, bootstrap)
        if self.whiten_advantages:
            advantages = masked_whiten(advantages, mask)
        return PPOExperience(rollout, logprobs, values, advantages, returns)

    def loss(
        self, batch: PPOExperience, new_logprobs: Tensor, new_values: Tensor | None
    ) -> UpdateLoss:
        """Policy loss + value_coef * value loss, summed over tokens.

        Args:
            batch: rows of the experience.
            new_logprobs: [N, R] of the policy in training.
            new_values: [N, R] of the value model in training.
        """
        assert new_values is not None
        mask = batch.rollout.response_mask
        policy_inputs = (new_logprobs, batch.logprobs, batch.advantages, mask, self.clip_range)
        value_inputs = (new_values, batch.values, batch.returns, mask, self.value_clip_range)
        policy, _ = policy_loss(*policy_inputs)
        value, _ = value_loss(*value_inputs)
        parts = {
            "policy": policy.detach(),
            "value": value.detach(),
            "clip_fraction": policy_clip_count(*policy_inputs),
            "value_clip_fraction": value_clip_count(*value_inputs),
        }
        return UpdateLoss(policy + self.value_coef * value, parts)

    def rollout_metrics(self, experience: PPOExperience) -> dict[str, Tensor]:
        """What the value model knew of the rollout.

        Args:
            experience: of the whole rollout.
        """
        mask = experience.rollout.response_mask
        return {
            "value_mean": masked_mean(experience.values, mask),
            "return_mean": masked_mean(experience.returns, mask),
            "explained_variance": explained_variance(experience.values, experience.returns, mask),
        }

    def _bootstrap(self, rollout: Rollout, values: Tensor) -> Tensor | None:
        """Value of the state after the last token of each row that the limit cut, else 0."""
        if not self.bootstrap_truncated:
            return None
        lengths = rollout.response_mask.sum(-1, keepdim=True)
        after = values.gather(-1, lengths).squeeze(-1)
        return torch.where(rollout.finished, 0.0, after)
