"""The memory of a decoding loop in pages: a row is read as far as it goes, and no further.

Torch's attention over segments finds the keys of a row by a table of its pages. Shapes and tensors
stay the same from step to step, so that one graph serves a number of rows whatever their lengths.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from instructgpt.models.slots import Call, Slots, UnsuitedError, Weighing
from instructgpt.models.varlen import halved

PAGE = 256
"""Tokens of a page: what FlashAttention 2, which torch brings, wants a multiple of."""
NOBODYS = 0
"""Page that free slots write to."""
ROOM = 0.8
"""Share of a device's free memory that pages may take; logits and hidden states need some, too."""


def pages_of(tokens: int) -> int:
    """How many pages a row needs.

    Args:
        tokens: of it.
    """
    return -(-tokens // PAGE)


def pool_size(most: Sequence[int], slots: int, token_bytes: int, device: torch.device) -> int:
    """Pages for the longest rows at once, or for as many as a device has room for.

    Args:
        most: tokens that each row can have.
        slots: rows at once.
        token_bytes: of a token in all layers; 0: not known.
        device: of the pages.
    """
    needs = [pages_of(tokens) for tokens in most]
    wanted = sum(heapq.nlargest(slots, needs))
    free = free_bytes(device) if token_bytes else None
    if free is not None:
        wanted = min(wanted, int(ROOM * free) // (token_bytes * PAGE) - 1)  # one is nobody's
    return max(wanted, *needs)


def free_bytes(device: torch.device) -> int | None:
    """What a device can still give; None where it does not say.

    Args:
        device: to ask.
    """
    if device.type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(device)
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(free) + int(kept)


def used(call: Call) -> Tensor:
    """Tokens of each live row, the newest included, [live].

    Args:
        call: of which they are.
    """
    return (call.positions[: call.live] + 1).to(torch.int32)


class Pages(Slots):
    """Keys and values in pages, each of which belongs to a row, or to some that begin alike.

    A row gets all pages that it can ever need when it enters, so that none has to stop for want of
    one; where there are not enough, prompts wait.

    Args:
        count: how many rows at once.
        length: tokens that a row can have.
        device: of the network.
        pages: how many there are, beside one that is nobody's.
    """

    ragged = True

    def __init__(self, count: int, length: int, device: torch.device, pages: int) -> None:
        most = pages_of(length)
        super().__init__(count, most * PAGE, device, (pages + 1) * PAGE)
        self.table = torch.zeros(count, most, dtype=torch.int32, device=device)
        ends = torch.arange(count + 1, dtype=torch.int32, device=device)
        self._query_ends, self._key_ends = ends, ends * self.length
        self._rows: list[list[int]] = [[] for _ in range(count)]  # pages of each slot
        self._free = list(range(pages, NOBODYS, -1))
        self._users = [0] * (pages + 1)
        self._changed = False

    @classmethod
    def made_for(
        cls, most: Sequence[int], count: int, length: int, device: torch.device, token_bytes: int
    ) -> Slots:
        """Pages for rows of which the longest are decoded at once, or as many as there is room."""
        return cls(count, length, device, pool_size(most, count, token_bytes, device))

    @property
    def free(self) -> int:
        """Pages that no row has."""
        return len(self._free)

    def fits(self, most: int) -> bool:
        """Whether there are pages for a row that can have some tokens."""
        return pages_of(most) <= self.free

    def enter(self, slot: int, tokens: int, most: int, alike: int | None = None) -> None:
        """Give a slot the pages of a row; full ones of the beginning of another are shared."""
        shared = [] if alike is None else self._rows[alike][: tokens // PAGE]
        own = [self._free.pop() for _ in range(pages_of(most) - len(shared))]
        self._rows[slot] = shared + own
        for page in self._rows[slot]:
            self._users[page] += 1
        self._changed = True

    def leave(self, slot: int) -> None:
        """Take the pages back that no other row has."""
        for page in self._rows[slot]:
            self._users[page] -= 1
            if not self._users[page]:
                self._free.append(page)
        self._rows[slot] = []
        self._changed = True

    def copy(self, source: int, target: int, tokens: int) -> None:
        """Copy the page that is begun; full ones are shared."""
        rest = tokens % PAGE
        if rest:
            a, b = self.place(source, tokens - rest), self.place(target, tokens - rest)
            self._copy(a, b, rest)

    def move(self, source: int, target: int, tokens: int) -> None:
        """Give a slot that is free the pages of another."""
        self._rows[target], self._rows[source] = self._rows[source], []
        self._changed = True

    def place(self, slot: int, token: int) -> int:
        """Where a token of a slot is."""
        row = self._rows[slot]
        return (row[token // PAGE] if row else NOBODYS) * PAGE + token % PAGE

    def places(self, slot: int, tokens: int) -> Tensor:
        """Where the first tokens of a slot are."""
        own = torch.arange(tokens)
        return torch.tensor(self._rows[slot])[own // PAGE] * PAGE + own % PAGE

    def settle(self) -> None:
        """Bring the table to the device if it has changed."""
        if self._changed:
            table = np.full(tuple(self.table.shape), NOBODYS, np.int32)
            for slot, row in enumerate(self._rows):
                table[slot, : len(row)] = row
            self.table.copy_(torch.from_numpy(table))
            self._changed = False

    def note(self, places: Tensor) -> None:
        """Nothing: how long a row is goes with each call."""

    def advance(self, places: Tensor, positions: Tensor) -> None:
        """Find the places of the next tokens."""
        page = torch.div(positions, PAGE, rounding_mode="floor")
        pages = self.table[: len(places)].gather(1, page[:, None]).squeeze(1).long()
        places.copy_(pages * PAGE + positions % PAGE)

    def before(self, places: Tensor) -> Tensor:
        """Not known: it may be in another page."""
        raise UnsuitedError("it remembers more than keys and values")

    def taken(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Queries, keys and values in half precision."""
        return halved(*tensors)

    def attend(
        self, call: Call, query: Tensor, memory: tuple[Tensor, Tensor], how: Weighing, out: Tensor
    ) -> None:
        """Attention of the live rows, each to its own keys alone.

        The keys of a row are not split among parts of a GPU, which would depend on other rows.
        """
        from torch.nn.attention.varlen import varlen_attn

        if how.softcap is not None:
            raise UnsuitedError("its scores are capped")
        live, ends = call.live, slice(call.live + 1)
        keys, values = (one.unflatten(0, (-1, PAGE)) for one in memory)
        mixed: Any = varlen_attn(
            query[:live].contiguous(),
            keys,
            values,
            self._query_ends[ends],
            self._key_ends[ends],
            1,
            self.length,
            scale=how.scaling,
            window_size=(-1, -1) if how.window is None else (how.window - 1, 0),
            enable_gqa=query.shape[1] != keys.shape[2],
            seqused_k=call.once("used", used),
            block_table=self.table[:live],
            num_splits=1,
        )
        out[:live] = mixed
