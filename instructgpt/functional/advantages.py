"""Generalized advantage estimation over ragged rows, and how well values predict returns."""

from __future__ import annotations

import torch
from torch import Tensor

from instructgpt.functional.masking import masked_mean, widen, zero_padding


def gae(
    rewards: Tensor,
    values: Tensor,
    mask: Tensor,
    gamma: float = 1.0,
    lam: float = 0.95,
    bootstrap: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Generalized advantage estimation (Schulman et al. 2015, arXiv:1506.02438, eq. 16).

    delta_t = r_t + gamma V_{t+1} - V_t and A_t = delta_t + gamma lam A_{t+1}, over the real tokens
    of each row alone.

    Args:
        rewards: [N, R] per token.
        values: [N, R], of the state in which each token was chosen.
        mask: [N, R] bool, real response tokens.
        gamma: discount per token; 1 in InstructGPT.
        lam: trades bias (0) against variance (1); the paper does not say, its ancestors use 0.95.
        bootstrap: [N], value of the state after the last token; 0 if None, since an episode ends
            with its response.

    Returns:
        Advantages and returns (advantages + values), [N, R] each, 0 at padding.

    Examples:
        >>> rewards, values = torch.tensor([[0.0, 1.0, 9.0]]), torch.tensor([[0.5, 0.25, 9.0]])
        >>> gae(rewards, values, mask=torch.tensor([[True, True, False]]), lam=0.5)
        (tensor([[0.1250, 0.7500, 0.0000]]), tensor([[0.6250, 1.0000, 0.0000]]))
    """
    rewards, values = zero_padding(rewards, mask), zero_padding(values, mask)
    next_value = values.new_zeros(len(values)) if bootstrap is None else widen(bootstrap)
    advantage = torch.zeros_like(next_value)
    columns: list[Tensor] = []
    for t in reversed(range(values.shape[1])):
        real = mask[:, t]
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        advantage = torch.where(real, delta + gamma * lam * advantage, advantage)
        next_value = torch.where(real, values[:, t], next_value)
        columns.append(advantage)
    advantages = zero_padding(torch.stack(columns[::-1], dim=1), mask) if columns else values
    return advantages, advantages + values


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> Tensor:
    """Share of the variance of the returns that the values explain.

    1 - Var[returns - values] / Var[returns]: 1 is perfect, 0 no better than a constant, below 0
    worse than that. 0 if the returns do not vary.

    Args:
        values: [N, R] predictions.
        returns: [N, R] what came.
        mask: [N, R] bool, real response tokens.

    Examples:
        >>> returns, mask = torch.tensor([[1.0, 3.0]]), torch.tensor([[True, True]])
        >>> explained_variance(torch.tensor([[1.0, 2.0]]), returns, mask)
        tensor(0.7500)
    """
    total = _variance(returns, mask)
    residual = _variance(widen(returns) - widen(values), mask)
    varies = total > 0
    return torch.where(varies, 1 - residual / torch.where(varies, total, 1.0), 0.0)


def _variance(x: Tensor, mask: Tensor) -> Tensor:
    centered = zero_padding(x, mask) - masked_mean(x, mask)
    return masked_mean(centered.square(), mask)
