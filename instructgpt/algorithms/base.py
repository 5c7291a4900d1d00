"""What the loops ask of an algorithm: hyperparameters whose methods are pure tensor functions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import inf
from typing import ClassVar, NamedTuple, get_args

import torch
from torch import Tensor

from instructgpt.functional.logprobs import KLEstimator
from instructgpt.functional.masking import widen
from instructgpt.types import Experience, ScoredRollout, UserError


def require(holds: bool, name: str, rule: str, value: object) -> None:
    """Check a hyperparameter.

    Args:
        holds: Whether it is as it must be; write it so that NaN fails.
        name: Its name.
        rule: What it must be.
        value: What it is.

    Raises:
        UserError: It is not.

    Examples:
        >>> require(-1 > 0, "clip_range", "> 0", -1)
        Traceback (most recent call last):
        instructgpt.types.UserError: clip_range must be > 0, got -1
    """
    if not holds:
        raise UserError(f"{name} must be {rule}, got {value}")


class UpdateLoss(NamedTuple):
    """Sums over the tokens of a micro-batch; to be divided by the count of the whole minibatch."""

    total: Tensor  # scalar, to call backward on
    count: Tensor  # type: ignore[assignment]  # scalar int64, real tokens; hides tuple.count
    parts: dict[str, Tensor]  # scalar sums without gradient, by the name they are logged under


@dataclass(frozen=True)
class RolloutAlgorithm(ABC):
    """Turns scored rollouts into experience, and experience into a loss.

    Args:
        epochs: Passes over each rollout. The paper: 1.
        missing_eos_score: Score of a response that did not end within the limit, in place of its
            own; null keeps its own. The paper does not say; -1 in its ancestors (arXiv:1909.08593).
        bootstrap_truncated: A response that did not end keeps its score, and the value of the state
            after its last token stands for the rest. Needs missing_eos_score null.
        kl_estimator: Estimator of the KL penalty per token: k1 (as in the paper), k2 or k3.
        target_kl: Skip the rest of the updates on a rollout once the approximate KL to the sampling
            policy exceeds this, nats per token; null never does.
    """

    uses_value: ClassVar[bool]
    """Whether a value model is trained beside the policy."""

    epochs: int = 1
    missing_eos_score: float | None = -1.0
    bootstrap_truncated: bool = False
    kl_estimator: KLEstimator = "k1"
    target_kl: float | None = None

    def __post_init__(self) -> None:
        """Check the fields."""
        require(self.epochs >= 1, "epochs", ">= 1", self.epochs)
        score = self.missing_eos_score
        require(score is None or -inf < score < inf, "missing_eos_score", "finite or null", score)
        clash = self.bootstrap_truncated and score is not None
        require(not clash, "missing_eos_score", "null when bootstrap_truncated is true", score)
        kinds = get_args(KLEstimator)
        require(
            self.kl_estimator in kinds,
            "kl_estimator",
            f"one of {', '.join(kinds)}",
            self.kl_estimator,
        )
        require(
            self.target_kl is None or self.target_kl > 0, "target_kl", "> 0 or null", self.target_kl
        )

    @property
    def responses_per_prompt(self) -> int:
        """Responses sampled for each prompt of a rollout."""
        return 1

    def episode_scores(self, scores: Tensor, finished: Tensor) -> Tensor:
        """Apply the rule for responses that did not end; applying it twice changes nothing.

        Args:
            scores: [N] of the reward function.
            finished: [N] bool, ended by EOS or a stop token.

        Returns:
            [N] the scores to learn from.
        """
        if self.missing_eos_score is None:
            return widen(scores)
        return torch.where(finished, widen(scores), self.missing_eos_score)

    @abstractmethod
    def experience(self, scored: ScoredRollout, kl_coef: float) -> Experience:
        """Return what the updates learn from; without gradient.

        Args:
            scored: The rollout of all ranks, since statistics are taken over all its rows. Its
                scores are those of the reward function: :meth:`episode_scores` is applied here.
            kl_coef: Weight of the KL penalty, reward per nat.
        """

    @abstractmethod
    def loss(self, batch: Experience, new_logprobs: Tensor, new_values: Tensor) -> UpdateLoss:
        """Return the loss of a micro-batch.

        Args:
            batch: Rows of the experience.
            new_logprobs: [N, R] of the policy in training.
            new_values: [N, R] of the value model in training.
        """


@dataclass(frozen=True)
class RankingAlgorithm(ABC):
    """Turns ranked responses into a loss on their scores."""

    @abstractmethod
    def loss(self, scores: Tensor, ranking: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss as a sum over its elements, and their count.

        Args:
            scores: [B, K] of the reward model.
            ranking: [B, K] int64, 1 = best, equal = tie.
            mask: [B, K] bool, responses that exist.
        """
