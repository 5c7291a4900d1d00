"""What the loop of ranked candidates asks of an algorithm."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from torch import Tensor

from instructgpt.functional.losses import decided_pairs, pair_margins
from instructgpt.functional.masking import zero_padding


class ResponseLogprobs(NamedTuple):
    """Log-probabilities of the tokens of responses, each row from its first token on."""

    logprobs: Tensor  # [S, R] of the policy in training
    reference_logprobs: Tensor | None  # [S, R]; None where the algorithm uses no reference
    mask: Tensor  # [S, R] bool, real response tokens, EOS included

    @property
    def sums(self) -> Tensor:
        """Log-probability of each whole response under the policy, [S]."""
        return zero_padding(self.logprobs, self.mask).sum(-1)

    @property
    def log_ratios(self) -> Tensor:
        """Log of policy over reference of each whole response, [S]."""
        if self.reference_logprobs is None:
            raise ValueError("log_ratios need an algorithm with uses_reference = True")
        return zero_padding(self.logprobs - self.reference_logprobs, self.mask).sum(-1)


class Candidates(NamedTuple):
    """K responses a prompt as the policy and the labelers see them, K varying.

    A row with one response was judged alone: ranking 1 is good, 2 is bad.
    """

    scores: Tensor  # [B, K] of the algorithm
    logprobs: Tensor  # [B, K] of whole responses under the policy
    lengths: Tensor  # [B, K] int64, tokens
    ranking: Tensor  # [B, K] int64, 1 = best, equal = tie
    mask: Tensor  # [B, K] bool, responses that exist

    @property
    def pairs(self) -> Tensor:
        """Which response was ranked better than which, [B, K, K] bool."""
        return decided_pairs(self.ranking, self.mask)

    @property
    def margins(self) -> Tensor:
        """Score of the better minus score of the worse response of each decided pair, [B, K, K]."""
        return pair_margins(self.scores, self.pairs)


@dataclass(frozen=True)
class PreferenceAlgorithm(ABC):
    """Turns log-probabilities of ranked responses into scores, and scores into a loss."""

    uses_reference: ClassVar[bool]
    """Whether the log-probabilities of the reference are needed; else none is loaded."""

    reads_unpaired: ClassVar[bool] = False
    """Whether it learns from rows with one response, judged good or bad; else they are refused."""

    @abstractmethod
    def scores(self, responses: ResponseLogprobs) -> Tensor:
        """How much the policy prefers each response, [S]; the larger, the more.

        Metrics take σ of a difference for the probability that one response is preferred.

        Args:
            responses: of all prompts of a micro-batch.
        """

    @abstractmethod
    def loss(self, candidates: Candidates) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """The loss as a sum over its elements, their count, and further sums to log.

        Args:
            candidates: of the prompts of a micro-batch, with their scores.
        """
