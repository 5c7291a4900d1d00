"""Generalized advantage estimation against the textbook loop over each row alone."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from instructgpt.functional.advantages import explained_variance, gae

LENGTHS = [6, 0, 3, 1, 5]


def inputs(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    mask = torch.arange(6) < torch.tensor(LENGTHS).unsqueeze(-1)
    rewards, values = torch.randn(2, 5, 6, generator=generator, dtype=dtype)
    return rewards, values, mask, torch.randn(5, generator=generator, dtype=dtype)


def textbook(
    rewards: list[float], values: list[float], gamma: float, lam: float, last: float
) -> list[float]:
    """Sum (gamma lam)^k delta_{t+k}, eq. 16 of arXiv:1506.02438, without the recursion."""
    steps = zip(rewards, values, [*values[1:], last], strict=False)  # an empty row has no steps
    deltas = [reward + gamma * after - value for reward, value, after in steps]
    return [
        sum((gamma * lam) ** (k - t) * deltas[k] for k in range(t, len(deltas)))
        for t in range(len(deltas))
    ]


def test_worked_example() -> None:
    # gamma 0.9, lam 0.5, so gamma * lam = 0.45; rewards 1, 2, 3; values 0.5, 1, 1.5.
    # delta_2 = 3 - 1.5 = 1.5                    A_2 = 1.5
    # delta_1 = 2 + 0.9 * 1.5 - 1 = 2.35         A_1 = 2.35 + 0.45 * 1.5 = 3.025
    # delta_0 = 1 + 0.9 * 1 - 0.5 = 1.4          A_0 = 1.4 + 0.45 * 3.025 = 2.76125
    rewards, values = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[0.5, 1.0, 1.5]])
    advantages, returns = gae(rewards, values, torch.ones(1, 3, dtype=torch.bool), 0.9, 0.5)
    torch.testing.assert_close(advantages, torch.tensor([[2.76125, 3.025, 1.5]]))
    torch.testing.assert_close(returns, torch.tensor([[3.26125, 4.025, 3.0]]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.8), (0.99, 1.0), (1.0, 0.0)])
@pytest.mark.parametrize("bootstrapped", [False, True])
def test_matches_the_textbook_on_ragged_rows(
    gamma: float, lam: float, bootstrapped: bool, dtype: torch.dtype
) -> None:
    rewards, values, mask, bootstrap = inputs(dtype)
    advantages, returns = gae(
        rewards, values, mask, gamma, lam, bootstrap if bootstrapped else None
    )
    assert advantages.dtype == returns.dtype == dtype
    for n, length in enumerate(LENGTHS):
        last = bootstrap[n].item() if bootstrapped else 0.0
        row = textbook(rewards[n, :length].tolist(), values[n, :length].tolist(), gamma, lam, last)
        expected = torch.tensor(row + [0.0] * (6 - length), dtype=dtype)
        torch.testing.assert_close(advantages[n], expected, atol=1e-5, rtol=1e-5)
        expected = torch.where(mask[n], expected + values[n], 0)
        torch.testing.assert_close(returns[n], expected, atol=1e-5, rtol=1e-5)


def test_undiscounted_lambda_1_returns_are_the_rewards_to_come() -> None:
    rewards, values, mask, _ = inputs()
    _, returns = gae(rewards, values, mask, gamma=1.0, lam=1.0)
    for n, length in enumerate(LENGTHS):
        expected = [rewards[n, t:length].sum().item() for t in range(length)]
        assert returns[n, :length].tolist() == pytest.approx(expected)


def test_bootstrap_is_the_value_one_column_further() -> None:
    # Cut after 3 of 5 tokens, with V_3 as bootstrap: where lam = 0 nothing else lies ahead.
    rewards, values, _, _ = inputs()
    rewards, values = rewards[:1, :5], values[:1, :5]
    full = torch.ones(1, 5, dtype=torch.bool)
    cut = full & (torch.arange(5) < 3)
    expected, _ = gae(rewards, values, full, gamma=0.9, lam=0.0)
    advantages, _ = gae(rewards, values, cut, gamma=0.9, lam=0.0, bootstrap=values[:, 3])
    torch.testing.assert_close(advantages[:, :3], expected[:, :3])


def test_padding_amount_does_not_matter() -> None:
    rewards, values, mask, bootstrap = inputs()
    padding = torch.full((5, 3), 7.0, dtype=torch.float64)
    wider_mask = torch.cat([mask, torch.zeros(5, 3, dtype=torch.bool)], 1)
    wider = gae(
        torch.cat([rewards, padding], 1),
        torch.cat([values, padding], 1),
        wider_mask,
        bootstrap=bootstrap,
    )
    for wide, narrow in zip(wider, gae(rewards, values, mask, bootstrap=bootstrap), strict=True):
        torch.testing.assert_close(wide[:, :6], narrow)
        assert wide[:, 6:].eq(0).all()


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
def test_poison_under_the_mask_reaches_neither_values_nor_gradients(poison: float) -> None:
    rewards, values, mask, bootstrap = inputs()
    expected = gae(rewards, values, mask, bootstrap=bootstrap)
    rewards = torch.where(mask, rewards, poison).requires_grad_()
    values = torch.where(mask, values, poison).requires_grad_()
    bootstrap = torch.where(mask.any(-1), bootstrap, poison).requires_grad_()
    advantages, returns = gae(rewards, values, mask, bootstrap=bootstrap)
    torch.testing.assert_close((advantages, returns), expected)
    (advantages.sum() + returns.sum()).backward()
    for leaf in (rewards, values, bootstrap):
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all()


def test_half_precision_is_widened_and_no_columns_are_no_problem() -> None:
    rewards, values, mask, _ = inputs()
    advantages, returns = gae(rewards.half(), values.bfloat16(), mask)
    assert advantages.dtype == returns.dtype == torch.float32
    advantages, returns = gae(rewards[:, :0], values[:, :0], mask[:, :0])
    assert advantages.shape == returns.shape == (5, 0)


def test_explained_variance_worked_example() -> None:
    # Returns 1, 2, 6: mean 3, variance (4 + 1 + 9) / 3 = 14 / 3.
    # Residuals 1 - 1, 2 - 3, 6 - 5 = 0, -1, 1: mean 0, variance 2 / 3.
    # 1 - (2 / 3) / (14 / 3) = 6 / 7.
    returns = torch.tensor([[1.0, 2.0], [6.0, math.nan]])
    values = torch.tensor([[1.0, 3.0], [5.0, math.inf]])
    mask = torch.tensor([[True, True], [True, False]])
    assert explained_variance(values, returns, mask).item() == pytest.approx(6 / 7)
    # A constant error does not count; predicting a constant explains nothing.
    assert explained_variance(returns + 9, returns, mask).item() == pytest.approx(1)
    assert explained_variance(torch.zeros(2, 2), returns, mask).item() == pytest.approx(0)
    # Residuals of -returns are 2 * returns, with 4 times the variance.
    assert explained_variance(-returns, returns, mask).item() == pytest.approx(-3)


def test_explained_variance_of_nothing_is_zero() -> None:
    x = torch.randn(2, 3, requires_grad=True)
    same, mask = torch.ones(2, 3), torch.ones(2, 3, dtype=torch.bool)
    for result in (explained_variance(x, same, mask), explained_variance(x, same, ~mask)):
        assert result.item() == 0
        result.backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
