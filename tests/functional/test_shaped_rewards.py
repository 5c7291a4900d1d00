"""The KL penalty at every token and the score at the last."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from instructgpt.functional.logprobs import KLEstimator
from instructgpt.functional.rewards import shaped_rewards

LENGTHS = [6, 0, 3, 1]


def inputs(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    mask = torch.arange(6) < torch.tensor(LENGTHS).unsqueeze(-1)
    logprobs, reference = -torch.rand(2, 4, 6, generator=generator, dtype=dtype)
    return torch.tensor([2.0, 7.0, -1.0, 0.5], dtype=dtype), logprobs, reference, mask


def naive(
    scores: Tensor, logprobs: Tensor, reference: Tensor, kl_coef: float, kind: str
) -> list[list[float]]:
    rows = []
    for n, length in enumerate(LENGTHS):
        row = [0.0] * logprobs.shape[1]
        for t in range(length):
            d = (logprobs[n, t] - reference[n, t]).item()
            kl = {"k1": d, "k2": d * d / 2, "k3": math.exp(-d) - 1 + d}[kind]
            row[t] = -kl_coef * kl
        if length:
            row[length - 1] += scores[n].item()
        rows.append(row)
    return rows


def test_worked_example() -> None:
    # Row 0 has two tokens. Token 0: -0.1 * (-1 - -3) = -0.2. Token 1: -0.1 * (-2 - -1) + 5 = 5.1.
    # Row 1 has three. Only the last differs: -0.1 * (-1 - -2) - 1 = -1.1.
    rewards = shaped_rewards(
        scores=torch.tensor([5.0, -1.0]),
        logprobs=torch.tensor([[-1.0, -2.0, -9.0], [-1.0, -1.0, -1.0]]),
        reference_logprobs=torch.tensor([[-3.0, -1.0, 0.0], [-1.0, -1.0, -2.0]]),
        mask=torch.tensor([[True, True, False], [True, True, True]]),
        kl_coef=0.1,
    )
    torch.testing.assert_close(rewards, torch.tensor([[-0.2, 5.1, 0.0], [0.0, 0.0, -1.1]]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["k1", "k2", "k3"])
def test_matches_a_loop_on_ragged_rows(kind: KLEstimator, dtype: torch.dtype) -> None:
    scores, logprobs, reference, mask = inputs(dtype)
    rewards = shaped_rewards(scores, logprobs, reference, mask, 0.3, kind)
    expected = torch.tensor(naive(scores, logprobs, reference, 0.3, kind), dtype=dtype)
    torch.testing.assert_close(rewards, expected, atol=1e-6, rtol=1e-6)


def test_rewards_of_a_row_sum_to_score_minus_penalty() -> None:
    scores, logprobs, reference, mask = inputs()
    rewards = shaped_rewards(scores, logprobs, reference, mask, 0.02)
    log_ratios = torch.where(mask, logprobs - reference, 0).sum(-1)
    torch.testing.assert_close(rewards.sum(-1), (scores - 0.02 * log_ratios) * mask.any(-1))


def test_score_lies_on_the_last_true_of_any_mask() -> None:
    mask = torch.tensor([[0, 0, 1], [1, 0, 1], [1, 1, 0], [0, 1, 0]]).bool()
    zeros = torch.zeros(4, 3)
    rewards = shaped_rewards(torch.tensor([1.0, 2.0, 3.0, 4.0]), zeros, zeros, mask, 0.1)
    assert rewards.tolist() == [[0, 0, 1], [0, 0, 2], [0, 3, 0], [0, 4, 0]]


def test_padding_amount_does_not_matter() -> None:
    scores, logprobs, reference, mask = inputs()
    rewards = shaped_rewards(scores, logprobs, reference, mask, 0.1)
    padding = torch.full((4, 3), 5.0, dtype=torch.float64)
    wider = shaped_rewards(
        scores,
        torch.cat([logprobs, padding], 1),
        torch.cat([reference, -padding], 1),
        torch.cat([mask, torch.zeros(4, 3, dtype=torch.bool)], 1),
        0.1,
    )
    torch.testing.assert_close(wider[:, :6], rewards)
    assert wider[:, 6:].eq(0).all()


@pytest.mark.parametrize("kind", ["k1", "k2", "k3"])
@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
def test_poison_under_the_mask_reaches_neither_values_nor_gradients(
    poison: float, kind: KLEstimator
) -> None:
    scores, logprobs, reference, mask = inputs()
    expected = shaped_rewards(scores, logprobs, reference, mask, 0.1, kind)
    scores = torch.where(mask.any(-1), scores, poison).requires_grad_()
    logprobs = torch.where(mask, logprobs, poison).requires_grad_()
    reference = torch.where(mask, reference, -poison).requires_grad_()
    rewards = shaped_rewards(scores, logprobs, reference, mask, 0.1, kind)
    torch.testing.assert_close(rewards, expected)
    rewards.sum().backward()
    for leaf in (scores, logprobs, reference):
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all()
    assert scores.grad is not None
    assert scores.grad.tolist() == [1, 0, 1, 1]  # once per row that has tokens


def test_half_precision_is_widened_and_no_columns_are_no_problem() -> None:
    scores, logprobs, reference, mask = inputs()
    rewards = shaped_rewards(scores.half(), logprobs.bfloat16(), reference.bfloat16(), mask, 0.1)
    assert rewards.dtype == torch.float32
    nothing = shaped_rewards(scores, logprobs[:, :0], reference[:, :0], mask[:, :0], 0.1)
    assert nothing.shape == (4, 0)
