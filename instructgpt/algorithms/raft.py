"""Reward-ranked fine-tuning (Dong et al. 2023, arXiv:2304.06767)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from instructgpt.algorithms.base import RolloutAlgorithm, UpdateLoss
from instructgpt.functional.logprobs import sequence_kl
from instructgpt.functional.masking import zero_padding
from instructgpt.types import Rollout, ScoredRollout, require


class RAFTExperience(NamedTuple):
    """What an update learns from."""

    rollout: Rollout


@dataclass(frozen=True)
class RAFT(RolloutAlgorithm):
    """RAFT (arXiv:2304.06767, algorithm 1): the best of K responses is imitated.

    The loss is that of supervised fine-tuning, the mean over the tokens of the chosen responses, as
    in the authors' code (LMFlow); it reads no probability ratio and no value. The best response has
    the largest score minus kl_coef times its log-ratio to the reference, summed over its tokens, as
    the paper's reward with a KL penalty; its main runs have none: ``--model.kl.kl_coef 0``.
    The authors sample a whole round before they train on it, as a rollout phase does; the best of
    all prompts together, their global ranking, is left out, as easy prompts would win it.

    Args:
        responses_per_prompt: responses sampled for each prompt, of which the best one is learned
            from. The paper compares 8, 16 and 32.
    """

    uses_value: ClassVar[bool] = False
    uses_reference: ClassVar[bool] = True
    experience_type: ClassVar[type] = RAFTExperience

    responses_per_prompt: int = 8

    def __post_init__(self) -> None:
        """Check the fields."""
        super().__post_init__()
        count = self.responses_per_prompt
        require(count >= 2, "responses_per_prompt", ">= 2 to choose from", count)

    @property
    def trained_per_prompt(self) -> int:
        """The best one."""
        return 1

    def experience(self, scored: ScoredRollout, kl_coef: float) -> RAFTExperience:
        """The responses as they are."""
        return RAFTExperience(scored.rollout)

    def trained_rows(self, scored: ScoredRollout, kl_coef: float) -> Tensor:
        """The best response to each prompt, the first where several are."""
        assert scored.reference_logprobs is not None
        mask, reference = scored.rollout.response_mask, scored.reference_logprobs
        kl = sequence_kl(scored.logprobs, reference, mask, self.kl_estimator)
        rewards = self.episode_scores(scored.scores, scored.rollout.finished) - kl_coef * kl
        given = mask.any(1)  # the others have no score
        groups = rewards.masked_fill(~given, -torch.inf).view(-1, self.responses_per_prompt)
        first = torch.arange(len(groups), device=groups.device) * self.responses_per_prompt
        return first + groups.argmax(1)

    def loss(
        self, batch: RAFTExperience, new_logprobs: Tensor, new_values: Tensor | None
    ) -> UpdateLoss:
        """Minus the log-likelihood of the responses, summed over their tokens."""
        total = -zero_padding(new_logprobs, batch.rollout.response_mask).sum()
        return UpdateLoss(total, {"policy": total.detach()})
