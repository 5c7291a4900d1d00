"""REINFORCE leave-one-out (Ahmadian et al. 2024, arXiv:2402.14740)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from instructgpt.algorithms.base import RolloutAlgorithm, UpdateLoss
from instructgpt.functional.logprobs import sequence_kl
from instructgpt.functional.masking import zero_padding
from instructgpt.types import Rollout, ScoredRollout, require


class RLOOExperience(NamedTuple):
    """What an update learns from."""

    rollout: Rollout
    advantages: Tensor  # [N]


@dataclass(frozen=True)
class RLOO(RolloutAlgorithm):
    """RLOO (arXiv:2402.14740, eq. 7): each response against the mean of the others.

    A response is one action, as in the paper: its reward is its score minus kl_coef times the
    log-ratio to the reference, summed over its tokens (eq. 2), and it counts once, however long it
    is. TRL does the same, with a clipped ratio of whole responses for further updates on a rollout.
    The paper finds that clipping changes nothing, so there is no ratio here: such updates are
    slightly off-policy. OpenRLHF's actions are tokens, which the paper argues against.

    Args:
        responses_per_prompt: responses sampled for each prompt. The paper: 2 and 4.
    """

    uses_value: ClassVar[bool] = False
    uses_reference: ClassVar[bool] = True
    experience_type: ClassVar[type] = RLOOExperience

    responses_per_prompt: int = 4

    def __post_init__(self) -> None:
        """Check the fields."""
        super().__post_init__()
        count = self.responses_per_prompt
        require(count >= 2, "responses_per_prompt", ">= 2 to leave one out", count)

    @torch.no_grad()
    def experience(self, scored: ScoredRollout, kl_coef: float) -> RLOOExperience:
        """Rewards minus the mean reward of the other responses, 0 where there is none."""
        assert scored.reference_logprobs is not None
        mask, reference = scored.rollout.response_mask, scored.reference_logprobs
        kl = sequence_kl(scored.logprobs, reference, mask, self.kl_estimator)
        rewards = self.episode_scores(scored.scores, scored.rollout.finished) - kl_coef * kl
        given = mask.any(1).view(-1, self.responses_per_prompt)  # the others have no score
        rewards = torch.where(given, rewards.view_as(given), 0.0)
        others = given.sum(1, keepdim=True) - 1
        baseline = (rewards.sum(1, keepdim=True) - rewards) / others.clamp_min(1)
        advantages = torch.where(given & (others > 0), rewards - baseline, 0.0)
        return RLOOExperience(scored.rollout, advantages.flatten())

    def row_weights(self, batch: RLOOExperience) -> Tensor:
        """1 for each response."""
        return torch.ones_like(batch.advantages)

    def loss(
        self, batch: RLOOExperience, new_logprobs: Tensor, new_values: Tensor | None
    ) -> UpdateLoss:
        """Minus the advantages times the log-probabilities of the responses, summed."""
        whole = zero_padding(new_logprobs, batch.rollout.response_mask).sum(1)
        total = -(batch.advantages * whole).sum()
        return UpdateLoss(total, {"policy": total.detach()})
