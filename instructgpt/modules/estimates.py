"""Intervals of what is measured in a validation, over the items of all batches and ranks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from instructgpt.functional.intervals import Interval, ratio_interval
from instructgpt.modules.ranks import shares


class Estimates:
    """Sums of each item (prompt, document), by what they are means of."""

    def __init__(self) -> None:
        self._sums: dict[str, list[Tensor]] = {}
        self._shares: set[str] = set()

    def add(
        self, name: str, totals: Tensor, counts: Tensor | None = None, share: bool = False
    ) -> None:
        """Collect some items.

        Args:
            name: of the mean.
            totals: [n] of each item.
            counts: [n] that these are sums over; 1 unless given.
            share: the mean is a share, between 0 and 1.
        """
        counts = torch.ones_like(totals) if counts is None else counts
        both = torch.stack([totals.detach().cpu().double(), counts.cpu().double()])
        self._sums.setdefault(name, []).append(both)
        if share:
            self._shares.add(name)

    def take(self, trainer: Any) -> dict[str, Interval]:
        """The intervals so far, over all ranks; then start anew. Every rank must call this.

        Args:
            trainer: of the run.
        """
        parts, self._sums = shares((self._sums, self._shares), trainer), {}
        found = {}
        for name in dict.fromkeys(name for sums, _ in parts for name in sums):
            totals, counts = torch.cat([s for sums, _ in parts for s in sums.get(name, [])], 1)
            share = any(name in shares for _, shares in parts)
            if (interval := ratio_interval(totals, counts, share)) is not None:
                found[name] = interval
        return found
