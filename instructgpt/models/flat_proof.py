"""Whether a network reads flat rows as it reads padded ones: tried once, not believed."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from instructgpt.functional.layout import Layout
from instructgpt.models.architecture import is_recurrent
from instructgpt.models.flat_attention import Kernel
from instructgpt.models.transformers_private import takes_attention
from instructgpt.types import FlatRows

PROOFS = "flat_proofs"
"""Attribute of a network: which kernel is right for it, by what numbers are computed in."""
EXACT = 1e-4
"""Largest relative difference in float32, where 1e-6 is usual and a wrong row makes 1e-1."""
ROUNDED = 0.1
"""The same in half precision, beside what a prompt that is not seen would change."""

SEGMENTS = {"cuda"}
"""Kinds of devices on which torch attends over segments, in half precision."""

Read = Callable[[FlatRows, Kernel | None], Tensor]
"""Hidden states of rows by a kernel; None: padded."""


def proved_kernel(
    network: PreTrainedModel, read: Read, device: torch.device, prefixed: bool
) -> Kernel | None:
    """The kernel that flat rows are read with, None where they must be padded; says the latter.

    Args:
        network: that reads them.
        read: how it does, of the same network.
        device: of its weights.
        prefixed: whether learned keys and values stand before every row.
    """
    half = network.dtype.itemsize < 4 or torch.is_autocast_enabled(device.type)
    key = (device.type, network.dtype, half, prefixed)
    proofs: dict[object, Kernel | None] = vars(network).setdefault(PROOFS, {})
    if key not in proofs:
        reason = "its rows have a prefix" if prefixed else _unsuited(network)
        proofs[key] = None if reason else _first_right(network, read, device, half)
        if reason:
            _say_padded(network, reason)
    return proofs[key]


def _unsuited(network: PreTrainedModel) -> str:
    """Why it cannot read them whatever numbers say: with its first weights they may not show it."""
    if is_recurrent(network.config):
        return "it has convolutions or recurrence"
    return "" if takes_attention(type(network)) else "its attention is its own"


def _first_right(
    network: PreTrainedModel, read: Read, device: torch.device, half: bool
) -> Kernel | None:
    if half and device.type in SEGMENTS:
        fault = _fault(network, read, device, half, "varlen")
        if not fault:
            return "varlen"
        warnings.warn(
            f"{network.config.model_type} does not take torch's attention over segments ({fault}): "
            "rows of like length are attended to together",
            stacklevel=2,
        )
    fault = _fault(network, read, device, half, "grouped")
    if not fault:
        return "grouped"
    _say_padded(network, fault)
    return None


@torch.no_grad()
def _fault(
    network: PreTrainedModel, read: Read, device: torch.device, half: bool, kernel: Kernel
) -> str:
    """What is wrong with a kernel: an error, or other hidden states than of padded rows."""
    layout = Layout.shared([3, 5], [[2, 4], []]).to(device)
    embedding: Any = network.get_input_embeddings()
    tokens = (7 * torch.arange(layout.tokens, device=device) + 1) % embedding.num_embeddings
    rows, unseen = FlatRows(tokens, layout), FlatRows(tokens, Layout.of([3, 2, 4, 5]).to(device))
    with evaluating(network):
        padded = read(rows, None).float()
        try:
            difference = (read(rows, kernel).float() - padded).norm()
            allowed = EXACT * padded.norm()
            if half:
                allowed = ROUNDED * (read(unseen, kernel).float() - padded).norm()
        except Exception as error:  # whatever a network does not take
            return " ".join(f"{type(error).__name__}: {error}".split())[:100]
    if bool(difference <= allowed):
        return ""
    return f"hidden states differ by {float(difference / padded.norm()):.1e}"


def _say_padded(network: PreTrainedModel, reason: str) -> None:
    warnings.warn(
        f"{network.config.model_type} does not read flat rows ({reason}): rows are padded",
        stacklevel=2,
    )


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Dropout off, and afterwards as before, module by module."""
    modes = [(module, module.training) for module in network.modules()]
    for module, _ in modes:
        module.training = False
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
