"""Means of many things over all batches and ranks, reduced at once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Parts = dict[str, tuple[Tensor, Tensor]]
"""(sum, number of elements) by name, scalars; the same names in every batch and on every rank."""


class Means:
    """Means by name, each over elements of its own."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}

    def add(self, parts: Parts) -> None:
        """Add the sums of a batch."""
        for name, (total, count) in parts.items():
            pair = torch.stack([total.detach().float(), count.detach().float()])
            self._sums[name] = self._sums[name] + pair if name in self._sums else pair

    def take(self, all_sum: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """The means so far of what has elements; then start anew.

        Args:
            all_sum: adds up over the ranks; every rank must call this.
        """
        sums, self._sums = self._sums, {}
        if not sums:
            return {}
        rows = all_sum(torch.stack(list(sums.values()))).tolist()
        return {
            name: total / count for name, (total, count) in zip(sums, rows, strict=True) if count
        }
