"""Learning-rate schedules: a factor on the peak learning rate."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import cos, pi

from instructgpt.types import require


@dataclass(frozen=True)
class Schedule(ABC):
    """Multiplies the learning rate; the module says whether a step is an update or a rollout."""

    @abstractmethod
    def factor(self, step: int, total: int) -> float:
        """The factor for a step.

        Args:
            step: steps done so far, from 0.
            total: steps in all.
        """


@dataclass(frozen=True)
class Cosine(Schedule):
    """Half a cosine from 1 down to a floor at the end of the run.

    Args:
        floor: factor at the end. The paper decays SFT and reward models to 10 %
            (arXiv:2203.02155, appendix C).
        warmup: steps of linear warmup from near 0 before the decay. The paper: none.
    """

    floor: float = 0.1
    warmup: int = 0

    def __post_init__(self) -> None:
        """Check the fields."""
        require(0 <= self.floor <= 1, "floor", "in [0, 1]", self.floor)
        require(self.warmup >= 0, "warmup", ">= 0", self.warmup)

    def factor(self, step: int, total: int) -> float:
        """The factor for a step.

        Args:
            step: steps done so far, from 0.
            total: steps in all; later steps stay at the floor.

        Examples:
            >>> [round(Cosine(floor=0.1).factor(step, total=4), 3) for step in range(5)]
            [1.0, 0.868, 0.55, 0.232, 0.1]
        """
        if step < self.warmup:
            return (step + 1) / (self.warmup + 1)  # never 0: that step would be wasted
        progress = min((step - self.warmup) / max(total - self.warmup, 1), 1.0)
        return self.floor + (1 - self.floor) * (1 + cos(pi * progress)) / 2


@dataclass(frozen=True)
class Constant(Schedule):
    """Constant after an optional linear warmup.

    Args:
        warmup: steps of linear warmup. The paper's PPO: 10 rollouts (arXiv:2203.02155, C.4).
        start: factor at the first step of the warmup. The paper: one tenth.
    """

    warmup: int = 0
    start: float = 0.1

    def __post_init__(self) -> None:
        """Check the fields."""
        require(self.warmup >= 0, "warmup", ">= 0", self.warmup)
        require(0 <= self.start <= 1, "start", "in [0, 1]", self.start)

    def factor(self, step: int, total: int) -> float:
        """The factor for a step.

        Args:
            step: steps done so far, from 0.
            total: steps in all; without effect.

        Examples:
            >>> [round(Constant(warmup=3, start=0.1).factor(step, total=9), 3) for step in range(5)]
            [0.1, 0.4, 0.7, 1.0, 1.0]
        """
        if step >= self.warmup:
            return 1.0
        return self.start + (1 - self.start) * step / self.warmup
