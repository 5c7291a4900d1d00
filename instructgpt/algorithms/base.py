"""What the loops ask of an algorithm: hyperparameters whose methods are pure tensor functions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from math import inf
from typing import Any, ClassVar, NamedTuple, get_args

import torch
from torch import Tensor

from instructgpt.functional.logprobs import KLEstimator
from instructgpt.functional.masking import widen
from instructgpt.types import ScoredRollout, UserError, require


class UpdateLoss(NamedTuple):
    """Sums over a micro-batch; the loop divides them by the weight of the whole minibatch."""

    total: Tensor  # scalar, to call backward on
    parts: dict[str, Tensor]  # scalar sums without gradient, logged as loss/NAME


def check_parts(algorithm: object, parts: Iterable[str], taken: Iterable[str]) -> None:
    """Refuse parts of a loss that would be logged in the place of something else.

    Args:
        algorithm: whose loss it is.
        parts: their names.
        taken: what the loop logs beside the loss, by name.
    """
    clash = sorted({"loss", "count", *taken} & set(parts))
    name, rule = type(algorithm).__name__, "other than what the loop logs itself"
    require(not clash, f"names of the parts of {name}.loss", rule, ", ".join(clash))


@dataclass(frozen=True)
class RolloutAlgorithm(ABC):
    """Turns scored rollouts into experience, and experience into a loss.

    The loop does everything else: it loads, trains and exports the networks that the algorithm
    uses, keeps the log-probabilities of the sampling policy, logs ratio and approximate KL, and
    stops a phase at ``target_kl``.

    Rows of one prompt stand next to each other: ``scores.view(-1, responses_per_prompt)``. A row
    that the reward function abstained on has an empty response mask and score 0; statistics of a
    group must leave it out.

    Args:
        epochs: passes over each rollout. The paper: 1.
        missing_eos_score: score of a response that did not end within the limit, in place of its
            own; null keeps its own. The paper does not say; -1 in its ancestors (arXiv:1909.08593).
        kl_estimator: estimator of the KL penalty per token: k1 (as in the paper), k2 or k3.
        target_kl: skip the rest of the updates on a rollout once the approximate KL to the sampling
            policy exceeds this, nats per token; null never does.
        importance_cap: multiply the gradient of each token by its probability in training over that
            in sampling, at most this (truncated importance sampling), where the two passes of one
            policy differ: another engine samples, or numbers are rounded. null leaves it, and with
            reuse_logprobs the ratios hold it already.
    """

    uses_value: ClassVar[bool]
    """Whether a value model is trained beside the policy; else none is built."""

    uses_reference: ClassVar[bool]
    """Whether the log-probabilities of the reference are needed; else none is loaded."""

    experience_type: ClassVar[type]
    """What :meth:`experience` returns: a NamedTuple, ``rollout`` and tensors with as many rows."""

    whole_groups: ClassVar[bool] = False
    """Whether the trained rows of a prompt must meet in one micro-batch."""

    epochs: int = 1
    missing_eos_score: float | None = -1.0
    kl_estimator: KLEstimator = "k1"
    target_kl: float | None = None
    importance_cap: float | None = None

    def __post_init__(self) -> None:
        """Check that all is said, and the fields."""
        said = "uses_value", "uses_reference", "experience_type"
        if missing := [name for name in said if not hasattr(self, name)]:
            raise UserError(f"{type(self).__name__} must define {', '.join(missing)}")
        require(self.epochs >= 1, "epochs", ">= 1", self.epochs)
        score = self.missing_eos_score
        require(score is None or -inf < score < inf, "missing_eos_score", "finite or null", score)
        kinds = get_args(KLEstimator)
        require(
            self.kl_estimator in kinds,
            "kl_estimator",
            f"one of {', '.join(kinds)}",
            self.kl_estimator,
        )
        of_no_use = not self.uses_reference and self.kl_estimator != "k1"
        rule = f"left out: {type(self).__name__} has no reference"
        require(not of_no_use, "kl_estimator", rule, self.kl_estimator)
        require(
            self.target_kl is None or self.target_kl > 0, "target_kl", "> 0 or null", self.target_kl
        )
        cap = self.importance_cap
        require(cap is None or 1 <= cap < inf, "importance_cap", ">= 1 or null", cap)

    @property
    def responses_per_prompt(self) -> int:
        """Responses sampled for each prompt; an algorithm with groups has a field of that name."""
        return 1

    @property
    def trained_per_prompt(self) -> int:
        """How many of them are learned from; :meth:`trained_rows` says which."""
        return self.responses_per_prompt

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
    def experience(self, scored: ScoredRollout, kl_coef: float) -> Any:
        """What the updates learn from, an ``experience_type``; without gradient.

        Args:
            scored: the rollout of all ranks, since statistics are taken over all its rows. Its
                scores are those of the reward function: :meth:`episode_scores` is applied here.
                Values and reference log-probabilities are None where the algorithm uses none.
            kl_coef: weight of the KL penalty, reward per nat.
        """

    def trained_rows(self, scored: ScoredRollout, kl_coef: float) -> Tensor:
        """Which rows of the experience are learned from; all unless overridden.

        Args:
            scored: the rollout of all ranks.
            kl_coef: weight of the KL penalty, reward per nat.

        Returns:
            Row numbers, ``trained_per_prompt`` of each prompt, in the order of the prompts.
        """
        return torch.arange(len(scored.scores), device=scored.scores.device)

    def row_weights(self, batch: Any) -> Tensor:
        """What each row adds to the divisor of its minibatch: its response tokens.

        Gradient and logged parts are divided by the sum over the whole minibatch, whatever the
        micro-batches and ranks. A loss that adds up means over responses weighs each row 1.

        Args:
            batch: rows of the experience.

        Returns:
            [rows]; a row without response adds nothing, whatever stands there.
        """
        lengths: Tensor = batch.rollout.response_mask.sum(1)
        return lengths

    @abstractmethod
    def loss(self, batch: Any, new_logprobs: Tensor, new_values: Tensor | None) -> UpdateLoss:
        """The loss of a micro-batch, as sums.

        Args:
            batch: rows of the experience.
            new_logprobs: [N, R] of the policy in training.
            new_values: [N, R] of the value model in training; None where there is none.
        """

    def rollout_metrics(self, experience: Any) -> dict[str, Tensor]:
        """Further numbers to log of a rollout, scalars by name; none unless overridden.

        Args:
            experience: of the whole rollout.
        """
        return {}


@dataclass(frozen=True)
class RankingAlgorithm(ABC):
    """Turns ranked responses into a loss on their scores."""

    @abstractmethod
    def loss(self, scores: Tensor, ranking: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """The loss as a sum over its elements, and their count.

        Args:
            scores: [B, K] of the reward model.
            ranking: [B, K] int64, 1 = best, equal = tie.
            mask: [B, K] bool, responses that exist.
        """
