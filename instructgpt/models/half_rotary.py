"""Rotary positions for the first half of a head's dimensions (arXiv:2104.09864), in pairs."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class Rotation(NamedTuple):
    """What a head's dimensions are multiplied with, and those in each other's place."""

    own: Tensor  # [N, T, heads, head_dim] cosines, and ones for what does not turn
    other: Tensor  # the same of sines, the first of a pair negative, and zeros


def rotation_of(
    positions: Tensor, heads: int, width: int, theta: float, dtype: torch.dtype
) -> Rotation:
    """The rotation by positions, computed in float32.

    Args:
        positions: [N, T] int64.
        heads: how many there are.
        width: of a head, 4 times the pairs that turn.
        theta: pair i of n turns by ``position * theta ** (-i / n)``.
        dtype: of what is turned.
    """
    pairs = width // 4
    steps = torch.arange(pairs, device=positions.device, dtype=torch.float32) / pairs
    angles = positions[..., None, None].float() * theta**-steps
    cos, sin = angles.cos().to(dtype), angles.sin().to(dtype)
    still = torch.ones_like(cos).repeat(1, 1, 1, 2)
    own = torch.cat([cos, cos, still], -1)
    other = torch.cat([-sin, sin, 0 * still], -1)
    return Rotation(*(each.repeat(1, 1, heads, 1) for each in (own, other)))


def rotated(x: Tensor, rotation: Rotation) -> Tensor:
    """The first half of a head's dimensions turned by its position, in pairs.

    Args:
        x: [N, T, heads, head_dim].
        rotation: by the positions.
    """
    found: Tensor = _Rotated.apply(x, *rotation)
    return found


class _Rotated(torch.autograd.Function):
    """Whole heads at a time: quarters of them, and autograd between, take twice as long."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, own: Tensor, other: Tensor) -> Tensor:
        """(a, b) to (a cos - b sin, b cos + a sin)."""
        ctx.save_for_backward(own, other)
        return x * own + _exchanged(x) * other

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        """The gradient turned back."""
        own, other = ctx.saved_tensors
        return gradient * own + _exchanged(gradient * other), None, None


def _exchanged(x: Tensor) -> Tensor:
    """Both quarters that turn, each in the place of the other."""
    pairs = x.shape[-1] // 4
    a, b, rest = x.split([pairs, pairs, 2 * pairs], -1)
    return torch.cat([b, a, rest], -1)
