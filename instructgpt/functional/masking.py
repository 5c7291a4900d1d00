"""Means and whitening that see real elements only.

Padding is replaced *before* any arithmetic, never multiplied by zero afterwards: NaN * 0 is NaN,
in values and in gradients.
"""

from __future__ import annotations

import torch
from torch import Tensor


def widen(x: Tensor) -> Tensor:
    """``x`` as float32, or as float64 if it is that: what sums and exponentials need.

    Args:
        x: any tensor.

    Examples:
        >>> widen(torch.ones(1, dtype=torch.bfloat16)).dtype
        torch.float32
    """
    return x if x.dtype == torch.float64 else x.float()


def zero_padding(x: Tensor, mask: Tensor) -> Tensor:
    """``x`` widened, with exact zeros (and zero gradients) where the mask is False.

    Args:
        x: values; what lies under the mask may be NaN or infinite.
        mask: same shape, bool.

    Examples:
        >>> zero_padding(torch.tensor([1.0, float("nan")]), torch.tensor([True, False]))
        tensor([1., 0.])
    """
    return torch.where(mask, widen(x), 0.0)


def masked_mean(x: Tensor, mask: Tensor, dim: int | None = None) -> Tensor:
    """Mean over the elements where the mask is True; 0 where there is none.

    Args:
        x: values.
        mask: same shape, bool.
        dim: dimension to reduce; all of them if None.

    Examples:
        >>> masked_mean(torch.tensor([1.0, 3.0, float("nan")]), torch.tensor([True, True, False]))
        tensor(2.)
    """
    kept = zero_padding(x, mask)
    if dim is None:
        return kept.sum() / mask.sum().clamp_min(1)
    return kept.sum(dim) / mask.sum(dim).clamp_min(1)


def masked_whiten(x: Tensor, mask: Tensor, shift_mean: bool = True) -> Tensor:
    """Scale the real elements to variance 1 and shift them to mean 0; padding becomes 0.

    Biased variance and eps 1e-8, as in lm-human-preferences (Ziegler et al. 2019,
    arXiv:1909.08593).

    Args:
        x: values.
        mask: same shape, bool.
        shift_mean: False puts the mean back after scaling (for rewards, whose sign matters).

    Examples:
        >>> masked_whiten(torch.tensor([1.0, 3.0, 99.0]), torch.tensor([True, True, False]))
        tensor([-1.,  1.,  0.])
        >>> masked_whiten(torch.tensor([1.0, 5.0]), torch.tensor([True, True]), shift_mean=False)
        tensor([2., 4.])
    """
    mean = masked_mean(x, mask)
    centered = zero_padding(zero_padding(x, mask) - mean, mask)
    whitened = centered * torch.rsqrt(masked_mean(centered.square(), mask) + 1e-8)
    return whitened if shift_mean else zero_padding(whitened + mean, mask)
