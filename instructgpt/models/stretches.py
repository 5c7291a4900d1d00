"""Slots that are read as far as their rows go, where torch has no tables of pages (2.11).

For torch's attention over segments the memory lies in stretches: what a row has of its slot, and
the rest of the slot, which no token asks for.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from instructgpt.models.slots import Call, Slots, UnsuitedError, Weighing
from instructgpt.models.varlen import halved


class Stretches(Slots):
    """Keys and values of the rows that are being decoded, a slot for each.

    Args:
        count: how many rows at once.
        length: tokens that a row can have.
        device: of the network.
    """

    ragged = True

    def __init__(self, count: int, length: int, device: torch.device) -> None:
        super().__init__(count, length, device)
        numbers = torch.arange(2 * count + 1, dtype=torch.int32, device=device)
        self._query_ends = (numbers + 1) // 2  # one token for a row, none for the rest of its slot
        self._starts = numbers // 2 * length

    def taken(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Queries, keys and values in half precision."""
        return halved(*tensors)

    def attend(
        self, call: Call, query: Tensor, memory: tuple[Tensor, Tensor], how: Weighing, out: Tensor
    ) -> None:
        """Attention of the live rows, which are in the first slots, each to its own keys alone."""
        from torch.nn.attention.varlen import varlen_attn

        if how.softcap is not None:
            raise UnsuitedError("its scores are capped")
        keys, values = (one[: call.live * self.length] for one in memory)
        if query.shape[1] != keys.shape[1]:
            raise UnsuitedError("its heads are grouped, which torch takes from 2.12 on")
        bounds = slice(2 * call.live + 1)
        mixed: Any = varlen_attn(
            query[: call.live].contiguous(),
            keys,
            values,
            self._query_ends[bounds],
            call.once("key ends", self._key_ends),
            1,
            self.length,
            scale=how.scaling,
            window_size=(-1 if how.window is None else how.window - 1, 0),
        )
        out[: call.live] = mixed

    def _key_ends(self, call: Call) -> Tensor:
        """Where each stretch ends in the memory, [2 * live + 1]."""
        ends = self._starts[: 2 * call.live + 1].clone()
        ends[1::2] += call.positions[: call.live].to(torch.int32) + 1
        return ends
