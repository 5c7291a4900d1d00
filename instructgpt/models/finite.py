"""Weights that are numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from instructgpt.types import UserError


@torch.no_grad()
def first_not_finite(named: Iterable[tuple[str, Tensor]]) -> str | None:
    """The name of the first tensor with a NaN or an infinity, or None.

    A sum is finite only if everything in it is, and costs a third of looking at each element.

    Args:
        named: names and tensors; integers are always finite.

    Examples:
        >>> first_not_finite([("a", torch.zeros(2)), ("b", torch.tensor([1.0, float("nan")]))])
        'b'
    """
    for name, tensor in named:
        local = tensor.to_local() if isinstance(tensor, DTensor) else tensor
        if not (local.is_floating_point() or local.is_complex()) or local.is_meta:
            continue
        if not bool(local.sum().isfinite()) and not bool(local.isfinite().all()):
            return name
    return None


def check_finite(
    what: str, weights: nn.Module | Mapping[str, Tensor], kind: type[UserError] = UserError
) -> None:
    """Refuse weights that are not all finite.

    Args:
        what: what they belong to, for the message.
        weights: a network, or tensors by name.
        kind: of the error: it can be what was given, or what a run has come to.

    Raises:
        UserError: one is not.
    """
    named = weights.state_dict() if isinstance(weights, nn.Module) else weights
    if (bad := first_not_finite(_once(named))) is not None:
        raise kind(f"{what}: weights must be finite, '{bad}' holds NaN or infinity")


def _once(named: Mapping[str, Tensor]) -> Iterable[tuple[str, Tensor]]:
    """Each tensor once: shared weights have several names."""
    seen: set[int] = set()
    for name, tensor in named.items():
        if tensor.is_meta or tensor.data_ptr() in seen:
            continue
        seen.add(tensor.data_ptr())
        yield name, tensor
