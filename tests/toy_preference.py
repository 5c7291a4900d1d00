"""A preference algorithm from outside the package: no reference, rows of any K from 1 on."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from instructgpt.algorithms.preference import PreferenceAlgorithm


@dataclass(frozen=True)
class Likely(PreferenceAlgorithm):
    """Makes the best responses more likely and the others less.

    Args:
        weight: Of the others.
    """

    uses_reference: ClassVar[bool] = False
    reads_unpaired: ClassVar[bool] = True

    weight: float = 1.0

    def scores(self, responses):
        assert responses.reference_logprobs is None
        return responses.sums / responses.mask.sum(-1).clamp_min(1)

    def loss(self, candidates):
        sign = torch.where(candidates.ranking == 1, -1.0, self.weight)
        total = (sign * candidates.scores).masked_fill(~candidates.mask, 0.0).sum()
        best = (candidates.mask & (candidates.ranking == 1)).sum()
        return total, candidates.mask.sum(), {"best": best}
