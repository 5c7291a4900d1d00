"""Randomness as a function of names, never of hidden state."""

from __future__ import annotations

import torch
from torch import Tensor


def mix(*numbers: int) -> int:
    """Hash integers into a 63-bit seed (FNV-1a), the same on every machine.

    >>> mix(1, 2) == mix(1, 2), mix(1, 2) == mix(2, 1)
    (True, False)
    """
    value = 0xCBF29CE484222325
    for number in numbers:
        for shift in range(0, 64, 8):
            value = ((value ^ ((number >> shift) & 0xFF)) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return value & 0x7FFFFFFFFFFFFFFF


def seed_everywhere(seed: int) -> None:
    """Seed the generators of all devices, with the numbers of ``torch.manual_seed``.

    Where there is no device but the CPU, that would note down who asked, for devices that may yet
    come, and formatting its stack takes longer than a step of a small model.

    Args:
        seed: of all of them.
    """
    torch.default_generator.manual_seed(seed)
    if torch.accelerator.is_available():
        torch.manual_seed(seed)


def uniforms(seed: int, phase: int, sample_ids: Tensor, count: int) -> Tensor:
    """One row of uniforms in [0, 1) a sample, [N, count] float32, a function of (seed, phase, id).

    A row depends on nothing else, so a sampled response does not depend on the rank, the number of
    ranks, or the other rows of its batch.
    """
    noise = torch.empty(len(sample_ids), count, dtype=torch.float32)  # whatever the precision
    for row, name in zip(noise, sample_ids.tolist(), strict=True):
        row.uniform_(generator=torch.Generator().manual_seed(mix(seed, phase, name)))
    return noise


def permutation(count: int, *names: int) -> Tensor:
    """A permutation of ``range(count)`` that is a function of ``names``."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(mix(*names)))
