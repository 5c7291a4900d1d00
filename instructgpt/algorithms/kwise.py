"""The ranking loss of InstructGPT's reward model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from torch import Tensor

from instructgpt.algorithms.base import RankingAlgorithm
from instructgpt.functional.losses import PairDivisor, kwise_loss
from instructgpt.types import require


@dataclass(frozen=True)
class KWise(RankingAlgorithm):
    """Every decided pair of a prompt at once (arXiv:2203.02155, eq. 1).

    Args:
        divisor: what the sum over a prompt's decided pairs is divided by: their number (decided),
            or all C(K, 2) of its pairs, ties included (all). The paper does not say which.
    """

    divisor: PairDivisor = "decided"

    def __post_init__(self) -> None:
        """Check the field."""
        divisors = get_args(PairDivisor)
        require(self.divisor in divisors, "divisor", f"one of {', '.join(divisors)}", self.divisor)

    def loss(self, scores: Tensor, ranking: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """The loss as a sum over prompts, and the number of prompts with a decided pair.

        Args:
            scores: [B, K] of the reward model.
            ranking: [B, K] int64, 1 = best, equal = tie.
            mask: [B, K] bool, responses that exist.
        """
        return kwise_loss(scores, ranking, mask, self.divisor)
