"""Torch's attention over segments of any length, which CUDA has in half precision."""

from __future__ import annotations

from inspect import signature

import torch
from torch import Tensor


def varlen_takes(*names: str) -> bool:
    """Whether this torch has that attention, with some arguments.

    Args:
        *names: of the arguments.
    """
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return False
    return set(names) <= set(signature(varlen_attn).parameters)


def halved(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Tensors in the half precision that autocast asks for; as they are where it does not.

    Args:
        *tensors: on one device.
    """
    device = tensors[0].device.type
    if not torch.is_autocast_enabled(device):
        return tensors
    half = torch.get_autocast_dtype(device)
    return tuple(tensor.to(half) for tensor in tensors)
