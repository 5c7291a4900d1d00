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
from instructgpt.models.flat_attention import Kernel
from instructgpt.types import FlatRows

PROOFS = "flat_proofs"
"""Attribute of a network: which kernel is right for it, by what numbers are computed in."""
EXACT = 1e-4
"""Largest relative difference in float32, where 1e-6 is usual and a wrong row makes 1e-1."""
ROUNDED = 0.1
"""The same in half precision, beside what a prompt that is not seen would change."""

Read = Callable[[FlatRows, Kernel | None], Tensor]
"""Hidden states of rows by a kernel; None: padded."""


def proved_kernel(network: PreTrainedModel, read: Read, device: torch.device) -> Kernel | None:
    """The kernel that flat rows are read with, None where they must be padded; says the latter.

    Args:
        network: that reads them, without a prefix.
        read: how it does, of the same network.
        device: of its weights.
    """
    half = network.dtype != torch.float32 or torch.is_autocast_enabled(device.type)
    key = (device.type, network.dtype, half)
    proofs: dict[object, Kernel | None] = vars(network).setdefault(PROOFS, {})
    if key not in proofs:
        kernels: list[Kernel] = ["varlen"] if half and device.type == "cuda" else []
        proofs[key] = _first_right(network, read, device, [*kernels, "grouped"], half)
    return proofs[key]


@torch.no_grad()
def _first_right(
    network: PreTrainedModel, read: Read, device: torch.device, kernels: list[Kernel], half: bool
) -> Kernel | None:
    reason = ""
    with evaluating(network):
        layout = Layout.shared([3, 5], [[2, 4], []]).to(device)
        embedding: Any = network.get_input_embeddings()
        tokens = (7 * torch.arange(layout.tokens, device=device) + 1) % embedding.num_embeddings
        rows = FlatRows(tokens, layout)
        padded = read(rows, None).float()
        unseen = FlatRows(tokens, Layout.of([3, 2, 4, 5]).to(device))
        for kernel in kernels:
            try:
                difference = (read(rows, kernel).float() - padded).norm()
                allowed = EXACT * padded.norm()
                if half:
                    allowed = ROUNDED * (read(unseen, kernel).float() - padded).norm()
            except Exception as error:  # whatever a network does not take
                reason = " ".join(f"{type(error).__name__}: {error}".split())[:100]
                continue
            if bool(difference <= allowed):
                return kernel
            reason = f"hidden states differ by {float(difference / padded.norm()):.1e}"
    warnings.warn(
        f"{network.config.model_type} does not read flat rows ({reason}): rows are padded",
        stacklevel=2,
    )
    return None


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
