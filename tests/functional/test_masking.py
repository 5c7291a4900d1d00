"""Masked means and whitening: worked numbers, naive oracles, and padding that must not matter."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from instructgpt.functional.masking import masked_mean, masked_whiten, widen, zero_padding

DTYPES = [torch.float32, torch.float64]
POISON = [math.nan, math.inf, -math.inf]


def ragged(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    mask = torch.arange(7) < torch.tensor([7, 0, 3, 1, 5]).unsqueeze(-1)
    return torch.randn(5, 7, generator=generator, dtype=dtype), mask


def real_elements(x: Tensor, mask: Tensor) -> list[float]:
    return [x[i, j].item() for i in range(len(x)) for j in range(x.shape[1]) if mask[i, j]]


@pytest.mark.parametrize("dtype", DTYPES)
def test_masked_mean_matches_a_loop(dtype: torch.dtype) -> None:
    x, mask = ragged(dtype)
    kept = real_elements(x, mask)
    assert len(kept) == 7 + 0 + 3 + 1 + 5
    assert masked_mean(x, mask).item() == pytest.approx(sum(kept) / len(kept), abs=1e-6)
    rows = [real_elements(x[i : i + 1], mask[i : i + 1]) for i in range(5)]
    expected = [sum(row) / len(row) if row else 0.0 for row in rows]
    assert masked_mean(x, mask, dim=-1).tolist() == pytest.approx(expected, abs=1e-6)
    assert masked_mean(x, mask).dtype == dtype


def test_mean_of_nothing_is_zero() -> None:
    x = torch.full((2, 3), math.nan)
    nothing = torch.zeros(2, 3, dtype=torch.bool)
    assert masked_mean(x, nothing).item() == 0
    assert masked_mean(x, nothing, dim=-1).tolist() == [0, 0]
    assert masked_whiten(x, nothing).eq(0).all()


def test_masked_whiten_worked_example() -> None:
    # Real elements 1, 2, 6: mean 3, deviations -2, -1, 3, biased variance (4 + 1 + 9) / 3 = 14 / 3.
    x = torch.tensor([[1.0, 2.0], [6.0, 1000.0]], dtype=torch.float64)
    mask = torch.tensor([[True, True], [True, False]])
    scale = math.sqrt(3 / 14)
    expected = [-2 * scale, -1 * scale, 3 * scale, 0.0]
    assert masked_whiten(x, mask).flatten().tolist() == pytest.approx(expected, abs=1e-8)
    # shift_mean=False puts the 3 back on the real elements, and only on them.
    expected = [3 - 2 * scale, 3 - scale, 3 + 3 * scale, 0.0]
    unshifted = masked_whiten(x, mask, shift_mean=False)
    assert unshifted.flatten().tolist() == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shift_mean", [True, False])
def test_masked_whiten_matches_a_loop(dtype: torch.dtype, shift_mean: bool) -> None:
    x, mask = ragged(dtype)
    x = 3 * x + 10  # far from mean 0 and variance 1
    kept = real_elements(x, mask)
    mean = sum(kept) / len(kept)
    std = math.sqrt(sum((value - mean) ** 2 for value in kept) / len(kept) + 1e-8)
    expected = [(value - mean) / std + (0 if shift_mean else mean) for value in kept]
    whitened = masked_whiten(x, mask, shift_mean=shift_mean)
    assert real_elements(whitened, mask) == pytest.approx(expected, abs=1e-5)
    assert whitened[~mask].eq(0).all()
    assert whitened.dtype == dtype


def test_whitened_elements_have_mean_0_and_variance_1() -> None:
    x, mask = ragged()
    kept = masked_whiten(5 * x - 2, mask)[mask]
    assert kept.mean().item() == pytest.approx(0, abs=1e-12)
    assert kept.var(correction=0).item() == pytest.approx(1, abs=1e-6)


def test_whitening_does_not_see_padding() -> None:
    x, mask = ragged()
    wider = torch.cat([x, torch.full((5, 4), 1e6, dtype=x.dtype)], dim=1)
    wider_mask = torch.cat([mask, torch.zeros(5, 4, dtype=torch.bool)], dim=1)
    torch.testing.assert_close(masked_whiten(wider, wider_mask)[:, :7], masked_whiten(x, mask))
    torch.testing.assert_close(masked_mean(wider, wider_mask), masked_mean(x, mask))


def test_equal_elements_whiten_to_zero() -> None:
    mask = torch.ones(2, 3, dtype=torch.bool)
    assert masked_whiten(torch.full((2, 3), 5.0), mask).eq(0).all()


@pytest.mark.parametrize("poison", POISON)
@pytest.mark.parametrize("shift_mean", [True, False])
def test_poison_under_the_mask_reaches_neither_values_nor_gradients(
    poison: float, shift_mean: bool
) -> None:
    clean, mask = ragged()
    x = torch.where(mask, clean, poison).requires_grad_()
    whitened = masked_whiten(x, mask, shift_mean=shift_mean)
    torch.testing.assert_close(whitened, masked_whiten(clean, mask, shift_mean=shift_mean))
    (whitened.square().sum() + masked_mean(x, mask) + masked_mean(x, mask, 1).sum()).backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert x.grad[~mask].eq(0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened(dtype: torch.dtype) -> None:
    x, mask = ragged(torch.float32)
    assert widen(x.to(dtype)).dtype == torch.float32
    assert zero_padding(x.to(dtype), mask).dtype == torch.float32
    # 4096 ones: a float16 or bfloat16 sum would not get there.
    ones = torch.ones(4096, dtype=dtype)
    assert masked_mean(ones, torch.ones(4096, dtype=torch.bool)).item() == 1
    assert masked_whiten(x.to(dtype), mask).dtype == torch.float32
