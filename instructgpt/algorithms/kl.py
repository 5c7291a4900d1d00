"""How the weight of the KL penalty changes from rollout to rollout."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import inf

from instructgpt.types import require


@dataclass(frozen=True)
class KLController(ABC):
    """Sets the weight of the KL penalty of a rollout from the KL of the one before."""

    @property
    @abstractmethod
    def initial(self) -> float:
        """The weight in the first rollout, reward per nat."""

    @abstractmethod
    def update(self, coef: float, kl: float, episodes: int) -> float:
        """The weight for the next rollout; the caller keeps it.

        Args:
            coef: weight in the rollout just made.
            kl: its KL to the reference, nats per response: log-ratios (k1) summed over the tokens,
                averaged over the responses.
            episodes: its number of responses, over all ranks.
        """


@dataclass(frozen=True)
class FixedKL(KLController):
    """The same weight throughout, as in InstructGPT (arXiv:2203.02155, appendix C.4).

    Args:
        kl_coef: weight of the KL penalty, reward per nat. The paper: 0.02.
    """

    kl_coef: float = 0.02

    def __post_init__(self) -> None:
        """Check the field."""
        require(0 <= self.kl_coef < inf, "kl_coef", ">= 0", self.kl_coef)

    @property
    def initial(self) -> float:
        """The weight in every rollout."""
        return self.kl_coef

    def update(self, coef: float, kl: float, episodes: int) -> float:
        """The weight as it is."""
        return coef


@dataclass(frozen=True)
class AdaptiveKL(KLController):
    """Steers the KL to a target (Ziegler et al. 2019, arXiv:1909.08593, section 2.2).

    e = clip(kl / target - 1, -0.2, 0.2); the weight is multiplied by 1 + e * episodes / horizon.

    Args:
        initial_kl_coef: weight in the first rollout, reward per nat.
        target: KL to the reference to settle at, nats per response.
        horizon: episodes in which a steady error e changes the weight by about e; more is slower.
            Must exceed a fifth of the episodes of a rollout, or the weight could fall to 0.
    """

    # Not `kl_coef`: changing --model.kl from FixedKL would silently carry its 0.02 over.
    initial_kl_coef: float = 0.2
    target: float = 6.0
    horizon: int = 10_000

    def __post_init__(self) -> None:
        """Check the fields."""
        start = self.initial_kl_coef
        require(0 < start < inf, "initial_kl_coef", "> 0 to be adapted", start)
        require(0 < self.target < inf, "target", "> 0", self.target)
        require(self.horizon >= 1, "horizon", ">= 1", self.horizon)

    @property
    def initial(self) -> float:
        """The weight in the first rollout."""
        return self.initial_kl_coef

    def update(self, coef: float, kl: float, episodes: int) -> float:
        """The weight moved towards the target.

        Args:
            coef: weight in the rollout just made.
            kl: its KL to the reference, nats per response.
            episodes: its number of responses, over all ranks.

        Raises:
            UserError: the rollouts are so large for the horizon that the weight could reach 0.

        Examples:
            >>> AdaptiveKL(target=6.0, horizon=10_000).update(0.25, kl=9.0, episodes=5_000)
            0.275
        """
        rule = f"> {episodes / 5:g}, a fifth of the episodes of a rollout"
        require(5 * self.horizon > episodes, "horizon", rule, self.horizon)
        error = min(max(kl / self.target - 1, -0.2), 0.2)
        return coef * (1 + error * episodes / self.horizon)
