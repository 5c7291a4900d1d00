"""Cross-entropy, clipped surrogate and clipped value loss: sums and counts over real tokens."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from instructgpt.functional.losses import (
    cross_entropy_loss,
    policy_clip_count,
    policy_loss,
    value_clip_count,
    value_loss,
)

POISON = [math.nan, math.inf, -math.inf]
TRUE = torch.tensor([[True]])
MASK = torch.arange(6) < torch.tensor([6, 0, 3, 1]).unsqueeze(-1)
COUNT = 6 + 0 + 3 + 1
Loss = Callable[..., tuple[Tensor, Tensor]]


def three(dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Three [4, 6] tensors, close enough that some tokens are clipped and some are not."""
    generator = torch.Generator().manual_seed(5)
    return list(0.4 * torch.randn(3, 4, 6, generator=generator, dtype=dtype))


def language(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(6)
    logits = torch.randn(4, 6, 7, generator=generator, dtype=dtype)
    return logits, torch.randint(7, (4, 6), generator=generator)


def tensors_of(loss: Loss) -> list[Tensor]:
    return list(language()) if loss is cross_entropy_loss else three()


def extras_of(loss: Loss) -> dict[str, float]:
    return {} if loss is cross_entropy_loss else {"clip_range": 0.2}


def real_tokens(*tensors: Tensor) -> list[list[float]]:
    return [[x[n, t].item() for x in tensors] for n in range(4) for t in range(6) if MASK[n, t]]


# Worked numbers


def test_cross_entropy_worked_example() -> None:
    # Probabilities 1/4, 3/4 and 1/2, 1/2; the tokens are 1 and 0: -log(3/4) - log(1/2) = log(8/3).
    logits = torch.tensor([[0.0, math.log(3)], [5.0, 5.0], [1.0, 2.0]], dtype=torch.float64)
    tokens, mask = torch.tensor([1, 0, -100]), torch.tensor([True, True, False])
    loss, count = cross_entropy_loss(logits, tokens, mask)
    assert loss.item() == pytest.approx(math.log(8 / 3))
    assert count.item() == 2


@pytest.mark.parametrize(
    ("ratio", "advantage", "expected", "clipped"),
    [
        (1.5, 2.0, -2.4, 1),  # min(1.5 * 2, 1.2 * 2) = 2.4: no reward for going further
        (1.5, -2.0, 3.0, 0),  # min(-3, -2.4) = -3: a mistake is paid in full
        (0.5, 2.0, -1.0, 0),  # min(1, 1.6) = 1
        (0.5, -2.0, 1.6, 1),  # min(-1, -1.6) = -1.6: no reward for going further down
        (1.1, 2.0, -2.2, 0),  # within the range
        (1.5, 0.0, 0.0, 0),
    ],
)
def test_policy_loss_worked_examples(
    ratio: float, advantage: float, expected: float, clipped: int
) -> None:
    new = torch.tensor([[math.log(ratio)]], dtype=torch.float64, requires_grad=True)
    rest = (torch.zeros(1, 1, dtype=torch.float64), torch.tensor([[advantage]]), TRUE, 0.2)
    loss, count = policy_loss(new, *rest)
    assert loss.item() == pytest.approx(expected)
    assert count.item() == 1
    assert policy_clip_count(new, *rest).item() == clipped
    # d/dx of -advantage * exp(x) is -advantage * ratio; a clipped token passes none.
    loss.backward()
    assert new.grad is not None
    assert new.grad.item() == pytest.approx(0 if clipped else -advantage * ratio)


@pytest.mark.parametrize(
    ("new", "target", "expected", "clipped"),
    [
        # The old value is 0 and the range 0.5.
        (0.4, 1.0, 0.18, 0),  # within the range: 0.6^2 / 2
        (1.0, 1.0, 0.125, 1),  # clipped to 0.5: max(0, 0.5^2) / 2
        (1.0, -1.0, 2.0, 0),  # clipped to 0.5: max(2^2, 1.5^2) / 2, the unclipped is worse
        (-1.0, -2.0, 1.125, 1),  # clipped to -0.5: max(1^2, 1.5^2) / 2
    ],
)
def test_value_loss_worked_examples(
    new: float, target: float, expected: float, clipped: int
) -> None:
    values = torch.tensor([[new]], dtype=torch.float64, requires_grad=True)
    rest = (torch.zeros(1, 1), torch.tensor([[target]]), TRUE)
    loss, count = value_loss(values, *rest, clip_range=0.5)
    assert loss.item() == pytest.approx(expected)
    assert count.item() == 1
    assert value_clip_count(values, *rest, clip_range=0.5).item() == clipped
    loss.backward()
    assert values.grad is not None
    assert values.grad.item() == pytest.approx(0 if clipped else new - target)
    # Without a clip it is half the squared error.
    assert value_loss(values, *rest)[0].item() == pytest.approx((new - target) ** 2 / 2)
    assert value_clip_count(values, *rest).item() == 0


# Naive oracles


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_cross_entropy_matches_a_loop(dtype: torch.dtype) -> None:
    logits, tokens = language(dtype)
    expected = 0.0
    for n in range(4):
        for t in range(6):
            if MASK[n, t]:
                row = logits[n, t].tolist()
                total = sum(math.exp(value) for value in row)
                expected -= math.log(math.exp(row[int(tokens[n, t])]) / total)
    loss, count = cross_entropy_loss(logits, tokens, MASK)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert loss.dtype == dtype
    assert count.item() == COUNT


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_policy_loss_matches_a_loop(dtype: torch.dtype) -> None:
    new, old, advantages = three(dtype)
    expected, clipped = 0.0, 0
    for x, y, advantage in real_tokens(new, old, advantages):
        ratio = math.exp(x - y)
        bounded = min(max(ratio, 0.8), 1.2)
        expected -= min(ratio * advantage, bounded * advantage)
        clipped += bounded * advantage < ratio * advantage
    loss, count = policy_loss(new, old, advantages, MASK, 0.2)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert loss.dtype == dtype
    assert count.item() == COUNT
    assert policy_clip_count(new, old, advantages, MASK, 0.2).item() == clipped
    assert 0 < clipped < COUNT


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_value_loss_matches_a_loop(dtype: torch.dtype) -> None:
    new, old, returns = three(dtype)
    expected, clipped = 0.0, 0
    for x, y, target in real_tokens(new, old, returns):
        bounded = min(max(x, y - 0.2), y + 0.2)
        expected += max((x - target) ** 2, (bounded - target) ** 2) / 2
        clipped += (bounded - target) ** 2 > (x - target) ** 2 + 1e-12
    loss, count = value_loss(new, old, returns, MASK, 0.2)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert loss.dtype == dtype
    assert count.item() == COUNT
    assert value_clip_count(new, old, returns, MASK, 0.2).item() == clipped
    assert 0 < clipped < COUNT


# Invariances


def test_first_update_has_ratio_1() -> None:
    logprobs, _, advantages = three()
    new = logprobs.clone().requires_grad_()
    loss, _ = policy_loss(new, logprobs, advantages, MASK, 0.2)
    assert loss.item() == pytest.approx(-advantages[MASK].sum().item())
    assert policy_clip_count(new, logprobs, advantages, MASK, 0.2).item() == 0
    # The gradient is that of plain policy gradient: -advantage.
    loss.backward()
    torch.testing.assert_close(new.grad, torch.where(MASK, -advantages, 0.0))


@pytest.mark.parametrize("loss", [cross_entropy_loss, policy_loss, value_loss])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_sums_counts_and_gradients_add_up_over_micro_batches(loss: Loss, size: int) -> None:
    first, *rest = tensors_of(loss)
    whole, parts = first.clone().requires_grad_(), first.clone().requires_grad_()
    total, count = loss(whole, *rest, MASK, **extras_of(loss))
    total.backward()
    sums, counts = torch.zeros((), dtype=torch.float64), 0
    for rows in zip(*(x.split(size) for x in (parts, *rest, MASK)), strict=True):
        part, n = loss(*rows, **extras_of(loss))
        part.backward()
        sums, counts = sums + part.detach(), counts + int(n)
    torch.testing.assert_close(sums, total.detach())
    torch.testing.assert_close(parts.grad, whole.grad)
    assert counts == count.item() == COUNT


@pytest.mark.parametrize("loss", [cross_entropy_loss, policy_loss, value_loss])
def test_padding_amount_does_not_matter(loss: Loss) -> None:
    tensors = tensors_of(loss)
    expected = loss(*tensors, MASK, **extras_of(loss))
    wider = [torch.cat([x, x[:, :2] * 3], 1) for x in tensors]
    wider_mask = torch.cat([MASK, torch.zeros(4, 2, dtype=torch.bool)], 1)
    torch.testing.assert_close(loss(*wider, wider_mask, **extras_of(loss)), expected)


# Gradient safety


@pytest.mark.parametrize("loss", [cross_entropy_loss, policy_loss, value_loss])
@pytest.mark.parametrize("poison", POISON)
def test_poison_under_the_mask_reaches_neither_values_nor_gradients(
    loss: Loss, poison: float
) -> None:
    tensors = tensors_of(loss)
    expected = loss(*tensors, MASK, **extras_of(loss))
    poisoned = []
    for x in tensors:
        if x.is_floating_point():
            mask = MASK.reshape(*MASK.shape, *[1] * (x.dim() - 2))
            poisoned.append(torch.where(mask, x, poison).requires_grad_())
        else:
            poisoned.append(torch.where(MASK, x, -100))
    result = loss(*poisoned, MASK, **extras_of(loss))
    torch.testing.assert_close(result, expected)
    result[0].backward()
    for leaf in poisoned:
        if leaf.is_floating_point():
            assert leaf.grad is not None
            assert leaf.grad.isfinite().all()
            assert leaf.grad[~MASK].eq(0).all()


@pytest.mark.parametrize("loss", [cross_entropy_loss, policy_loss, value_loss])
def test_no_real_token_gives_0_of_0_and_gradients_of_0(loss: Loss) -> None:
    first, *rest = tensors_of(loss)
    first.requires_grad_()
    total, count = loss(first, *rest, torch.zeros_like(MASK), **extras_of(loss))
    assert (total.item(), count.item()) == (0, 0)
    total.backward()
    assert first.grad is not None
    assert first.grad.eq(0).all()


def test_impossible_tokens_keep_cross_entropy_finite() -> None:
    logits = torch.tensor([[0.0, 0.0, -math.inf], [-math.inf, 3.0, -math.inf]], requires_grad=True)
    loss, _ = cross_entropy_loss(logits, torch.tensor([0, 1]), torch.tensor([True, True]))
    assert loss.item() == pytest.approx(math.log(2))
    loss.backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("loss", [cross_entropy_loss, policy_loss, value_loss])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened(loss: Loss, dtype: torch.dtype) -> None:
    half = [x.to(dtype) if x.is_floating_point() else x for x in tensors_of(loss)]
    exact = [x.double() if x.is_floating_point() else x for x in half]
    result, _ = loss(*half, MASK, **extras_of(loss))
    assert result.dtype == torch.float32
    expected, _ = loss(*exact, MASK, **extras_of(loss))
    assert result.item() == pytest.approx(expected.item(), rel=1e-5)
