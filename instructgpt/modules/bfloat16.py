"""Whether bfloat16 is worth it on a CPU: some have instructions for it, others imitate it."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import nn

SIZE = 512
"""Rows and columns of the matrices that are multiplied."""
TAKES = 3
"""The quickest of them counts; the first prepares the library."""


def product_seconds(dtype: torch.dtype) -> float:
    """How long a product of two matrices takes on the CPU.

    Args:
        dtype: of their numbers.
    """
    matrix, seconds = torch.ones(SIZE, SIZE, dtype=dtype), []
    for _ in range(TAKES):
        start = time.perf_counter()
        matrix @ matrix
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def bfloat16_lines(
    stage: nn.Module,
    precision: str,
    device: str,
    seconds: Callable[[torch.dtype], float] = product_seconds,
) -> list[tuple[str, str]]:
    """The line of the plan; none where nothing is computed in bfloat16 on a CPU.

    Args:
        stage: with its networks.
        precision: of the trainer, such as bf16-mixed.
        device: type of where they are.
        seconds: of a product of matrices with numbers of a type.
    """
    asked = "bf16" in precision
    used = asked or any(weight.dtype == torch.bfloat16 for weight in stage.parameters())
    if device != "cpu" or not used:
        return []
    ratio = seconds(torch.float32) / seconds(torch.bfloat16)
    faster = ratio >= 1
    times = max(ratio, 1 / ratio)
    how = f"{times:.{0 if times >= 10 else 1}f} times {'as fast as' if faster else 'slower than'}"
    line = f"{how} float32 on this CPU (one product of {SIZE} x {SIZE})"
    if not faster:
        line += f": leave {'--trainer.precision' if asked else '--model.network.dtype'} out"
    return [("bfloat16", line)]
