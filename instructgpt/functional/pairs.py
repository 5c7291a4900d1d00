"""Fits to ranked responses without a trainer: their pairs, and the minimum of a convex loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import softplus

from instructgpt.functional.losses import decided_pairs


class BetterPairs(NamedTuple):
    """The better and the worse response of every decided pair, and its weight, [P] each."""

    better: Tensor  # int64
    worse: Tensor
    weights: Tensor  # float64

    def loss(self, scores: Tensor) -> Tensor:
        """The sum of -log sigmoid of the margins, weighted (Bradley and Terry 1952).

        Args:
            scores: [N] of all responses.
        """
        margins = scores.index_select(0, self.better) - scores.index_select(0, self.worse)
        return (softplus(-margins) * self.weights).sum()


def better_pairs(
    rankings: Sequence[Sequence[int]], weights: Sequence[float] | None = None
) -> BetterPairs:
    """Pairs of responses that lie one behind the other, prompt after prompt.

    Args:
        rankings: of each prompt's responses, 1 = best, equal = tie.
        weights: of each prompt, which its pairs share; default: 1.

    Examples:
        >>> found = better_pairs([[1, 2], [2, 1, 2]])
        >>> found.better.tolist(), found.worse.tolist(), found.weights.tolist()
        ([0, 3, 3], [1, 2, 4], [1.0, 0.5, 0.5])
    """
    first, found = 0, [torch.zeros(3, 0, dtype=torch.float64)]
    for number, ranking in enumerate(rankings):
        ranks = torch.tensor([list(ranking)])
        pairs = decided_pairs(ranks, torch.ones_like(ranks, dtype=torch.bool))[0].nonzero().T
        weight = 1.0 if weights is None else weights[number]
        share = torch.full(
            (1, pairs.shape[1]), weight / max(1, pairs.shape[1]), dtype=torch.float64
        )
        found.append(torch.cat([pairs + first, share]))
        first += len(ranking)
    better, worse, shares = torch.cat(found, 1)
    return BetterPairs(better.long(), worse.long(), shares)


def minimum(loss: Callable[[Tensor], Tensor], count: int) -> Tensor:
    """Where a smooth convex function of so many numbers is least, [count] float64."""
    weights = torch.zeros(count, dtype=torch.float64, requires_grad=True)
    search = torch.optim.LBFGS(
        [weights],
        max_iter=500,
        tolerance_grad=1e-6,
        tolerance_change=0,
        line_search_fn="strong_wolfe",
    )

    def step() -> Tensor:
        search.zero_grad()
        value = loss(weights)
        value.backward()
        return value

    with torch.enable_grad():
        search.step(step)
    return weights.detach()
