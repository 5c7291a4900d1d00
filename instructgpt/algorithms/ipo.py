"""Identity preference optimization (Azar et al. 2023, arXiv:2310.12036)."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import ClassVar

from torch import Tensor

from instructgpt.algorithms.preference import Candidates, PreferenceAlgorithm, ResponseLogprobs
from instructgpt.functional.losses import mean_over_pairs
from instructgpt.types import require


@dataclass(frozen=True)
class IPO(PreferenceAlgorithm):
    """IPO (arXiv:2310.12036, eq. 17): a margin that is aimed at, not one that grows for ever.

    The score of a response is tau * log(policy / reference), so the margin of eq. 17, which is
    1 / (2 tau) in log ratios, is 1/2. Log-probabilities are summed over the tokens of a response,
    as the paper defines pi(y|x) and as the code of DPO's authors does. TRL averages them: with
    responses of n tokens its beta is n times our tau. Summed, because the mean over tokens is no
    probability of a response, which the paper's argument is about. As in DPO, the decided pairs of
    a prompt are averaged and ties say nothing.

    Args:
        tau: weight of the KL to the reference. The paper's bandits: 0.1, 0.5 and 1.
    """

    uses_reference: ClassVar[bool] = True

    tau: float = 0.1

    def __post_init__(self) -> None:
        """Check the field."""
        require(0 < self.tau < inf, "tau", "> 0", self.tau)

    def scores(self, responses: ResponseLogprobs) -> Tensor:
        """Tau * log(policy / reference), [S].

        Args:
            responses: of all prompts of a micro-batch.
        """
        return self.tau * responses.log_ratios

    def loss(self, candidates: Candidates) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """The squared distance from the margin, summed over prompts, and their number.

        Args:
            candidates: of the prompts of a micro-batch.
        """
        distance = (candidates.margins - 0.5) / self.tau  # of log ratios
        return *mean_over_pairs(distance.square(), candidates.pairs), {}
