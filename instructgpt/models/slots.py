"""The memory of a decoding loop: a slot for each row that is being answered, in every layer.

The tokens of a call lie flat, one after the other: first the newest token of each live slot, then
the prompts that enter. Keys and values are written into place; nothing is padded or joined.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn


class UnsuitedError(Exception):
    """An architecture asks its attention for what this one does not have."""


class Range(NamedTuple):
    """Slots next to each other that are attended to in one call."""

    first: int  # slot
    rows: range  # of the live tokens
    width: int  # columns that the longest of them has


class Entrance(NamedTuple):
    """Prompts of like length that enter together, as rows of a rectangle."""

    rows: int
    width: int
    gather: Tensor  # [rows * width] places of their tokens in the call; any where there is none
    places: Tensor  # [U] places of the real ones in the call
    real: Tensor  # [U] where those are in the rectangle


class Weighing(NamedTuple):
    """How much weight a score gets."""

    scaling: float
    softcap: float | None
    window: int | None  # the last tokens that are seen; None: all

    def mix(self, query: Tensor, key: Tensor, value: Tensor, seen: Tensor | None) -> Tensor:
        """Attention, [N, heads, T, size] each; causal if nothing says what is seen."""
        if self.softcap is None:
            return nn.functional.scaled_dot_product_attention(
                query, key, value, attn_mask=seen, is_causal=seen is None, scale=self.scaling
            )
        scores = (query @ key.transpose(2, 3)) * self.scaling
        scores = (scores / self.softcap).tanh() * self.softcap
        if seen is None:
            seen = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        scores = scores.masked_fill(~seen, -torch.inf)
        return scores.softmax(-1, dtype=torch.float32).to(value.dtype) @ value

    def enter(self, entrance: Entrance, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention of prompts to themselves, [rows * width, heads, size]."""
        rows, width, gather, *_ = entrance
        groups = q.shape[1] // k.shape[1]
        query, key, value = (
            x.index_select(0, gather).unflatten(0, (rows, width)).transpose(1, 2) for x in (q, k, v)
        )
        if groups > 1:
            key, value = (x.repeat_interleave(groups, 1) for x in (key, value))
        seen = None
        if self.window is not None and width > self.window:
            seen = torch.ones(width, width, dtype=torch.bool, device=q.device)
            seen = seen.tril() & ~seen.tril(-self.window)
        return self.mix(query, key, value, seen).transpose(1, 2).flatten(0, 1)


class Slots:
    """Keys and values of the rows that are being decoded, each as long as the longest can be.

    Args:
        count: how many rows at once.
        length: tokens that a row can have.
        device: of the network.
        size: tokens in all; None: those of all slots.
    """

    ragged = False
    """Whether a row is read only as far as it goes, whatever others are beside it."""

    def __init__(
        self, count: int, length: int, device: torch.device, size: int | None = None
    ) -> None:
        self.count, self.length, self.device = count, length, device
        self.windows: set[int | None] = set()  # that layers have asked for
        self._size = count * length if size is None else size
        self._memory: dict[tuple[nn.Module, str], Tensor] = {}  # [size, width] each

    @classmethod
    def made_for(
        cls, most: Sequence[int], count: int, length: int, device: torch.device, token_bytes: int
    ) -> Slots:
        """Slots for some rows.

        Args:
            most: tokens that each can have.
            count: how many at once.
            length: tokens that one can have.
            device: of the network.
            token_bytes: of a token in all layers; 0: not known yet.
        """
        return cls(count, length, device)

    @cached_property
    def seen(self) -> Tensor:
        """Which tokens of its slot a row sees, [slots, length] bool."""
        return torch.zeros(self.count, self.length, dtype=torch.bool, device=self.device)

    @property
    def token_bytes(self) -> int:
        """Bytes of a token in all layers; 0 before the first call."""
        return sum(one.shape[1] * one.element_size() for one in self._memory.values())

    def memory(self, module: nn.Module, name: str, like: Tensor) -> Tensor:
        """What a layer remembers of every token, [size, width].

        Args:
            module: of the layer.
            name: what it remembers.
            like: [..., width] of some tokens, for the number format.
        """
        key = (module, name)
        if key not in self._memory:
            self._memory[key] = zeros(self._size, like)
        return self._memory[key]

    def fits(self, most: int) -> bool:
        """Whether a row can enter.

        Args:
            most: tokens that it can have.
        """
        return most <= self.length

    def enter(self, slot: int, tokens: int, most: int, alike: int | None = None) -> None:
        """Let a row begin in a slot.

        Args:
            slot: that is free.
            tokens: of its beginning.
            most: tokens that it can have.
            alike: slot of a row with the same beginning.
        """
        self.seen[slot, :tokens] = True
        self.seen[slot, tokens:] = False

    def leave(self, slot: int) -> None:
        """Let the row of a slot end.

        Args:
            slot: of the row.
        """

    def copy(self, source: int, target: int, tokens: int) -> None:
        """Give a row the beginning of another, which it has entered as alike to.

        Args:
            source: slot with the tokens.
            target: slot that gets them.
            tokens: how many.
        """
        self._copy(self.place(source, 0), self.place(target, 0), tokens)

    def move(self, source: int, target: int, tokens: int) -> None:
        """Let a row go on in a free slot.

        Args:
            source: its slot.
            target: slot that gets it.
            tokens: that it has.
        """
        self.copy(source, target, tokens)
        self.enter(target, tokens, self.length)

    def place(self, slot: int, token: int) -> int:
        """Where a token of a slot is in the memory; any where the slot is free.

        Args:
            slot: of the row.
            token: its number in the row.
        """
        return slot * self.length + token

    def places(self, slot: int, tokens: int) -> Tensor:
        """Where the first tokens of a slot are in the memory.

        Args:
            slot: of the row.
            tokens: how many.
        """
        return torch.arange(tokens) + slot * self.length

    def settle(self) -> None:
        """Let the device know which rows are where, before steps that it is not told more in."""

    def note(self, places: Tensor) -> None:
        """Let tokens be seen that a call will write.

        Args:
            places: of them in the memory.
        """
        self.seen.view(-1).index_fill_(0, places, True)

    def advance(self, places: Tensor, positions: Tensor) -> None:
        """Go on to the next token of each live row, in place.

        Args:
            places: of the last ones in the memory.
            positions: of the next ones.
        """
        places.add_(1)

    def before(self, places: Tensor) -> Tensor:
        """Where the tokens before some are; any where there is none.

        Args:
            places: of them.
        """
        return (places - 1).clamp_min(0)

    def taken(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Queries, keys and values in the format that they are remembered in.

        Args:
            *tensors: as a layer made them.
        """
        return tensors

    def attend(
        self, call: Call, query: Tensor, memory: tuple[Tensor, Tensor], how: Weighing, out: Tensor
    ) -> None:
        """Attention of the live rows.

        Args:
            call: of which they are.
            query: [T, heads, size].
            memory: keys and values, [size, heads, size] each.
            how: it is weighed.
            out: [T, heads, size] gets it.
        """
        keys, values = (one.unflatten(0, (self.count, self.length)) for one in memory)
        seen, window = self.seen, how.window
        if window is not None and max(one.width for one in call.ranges) > window:
            seen = call.once(window, lambda call: self._seen_within(window, call))
        for first, rows, width in call.ranges:
            own = slice(first, first + len(rows))
            mixed = how.mix(
                query[rows.start : rows.stop].unflatten(1, (keys.shape[2], -1)),
                keys[own, :width].transpose(1, 2),
                values[own, :width].transpose(1, 2),
                seen[own, None, None, :width],
            )
            out[rows.start : rows.stop] = mixed.flatten(1, 2)

    def _seen_within(self, window: int, call: Call) -> Tensor:
        """Which tokens of its slot a live row sees of its last ones, [slots, length] bool."""
        last = torch.zeros(self.count, dtype=torch.int64, device=self.device)
        at = torch.div(call.places[: call.live], self.length, rounding_mode="floor")
        last[at] = call.positions[: call.live]
        columns = torch.arange(self.length, device=self.device)
        return self.seen & (columns > last[:, None] - window)

    def _copy(self, source: int, target: int, tokens: int) -> None:
        for memory in self._memory.values():
            memory[target : target + tokens] = memory[source : source + tokens]


def zeros(rows: int, like: Tensor) -> Tensor:
    """Zeros in the format of a tensor; on the CPU only what is written to takes memory.

    Args:
        rows: how many.
        like: [..., width].
    """
    shape = (rows, like.shape[-1])
    if like.device.type != "cpu":
        return torch.zeros(shape, dtype=like.dtype, device=like.device)
    size = rows * shape[1] * like.element_size()
    return torch.from_numpy(np.zeros(size, np.uint8)).view(like.dtype).view(shape)


@dataclass(eq=False)
class Call:
    """What the tokens of one call are.

    Args:
        slots: what they read and write.
        ranges: of the live tokens, which come first.
        places: place in the memory of each token of the call, [T].
        positions: of each token in its row, [T].
        entrances: of the prompts that enter.
        written: places in the memory that the call writes, [W]; None: those of the tokens.
        source: the token that is written to each, [W].
    """

    slots: Slots
    ranges: Sequence[Range]
    places: Tensor
    positions: Tensor
    entrances: Sequence[Entrance] = ()
    written: Tensor | None = None
    source: Tensor | None = None
    _made: dict[Hashable, Tensor] = field(default_factory=dict)

    @property
    def live(self) -> int:
        """How many of its tokens continue a row."""
        return self.ranges[-1].rows.stop if self.ranges else 0

    def once(self, name: Hashable, make: Callable[[Call], Tensor]) -> Tensor:
        """What is the same in all layers, made by the first one that asks for it.

        Args:
            name: of it.
            make: it, of this call.
        """
        if name not in self._made:
            self._made[name] = make(self)
        return self._made[name]

    def remember(self, module: nn.Module, name: str, values: Tensor) -> Tensor:
        """Write what a layer remembers of the tokens, [T, width], and return all that it does."""
        memory = self.slots.memory(module, name, values)
        if self.written is None or self.source is None:
            return memory.index_copy_(0, self.places, values)
        return memory.index_copy_(0, self.written, values.index_select(0, self.source))

    def previous(self, module: nn.Module, inputs: Tensor) -> Tensor:
        """The input of the token before each, [T, d]; any where there is none.

        Args:
            module: of the layer.
            inputs: of the tokens, [T, d].
        """
        memory = self.remember(module, "inputs", inputs)
        return memory.index_select(0, self.slots.before(self.places))


class Fit(NamedTuple):
    """How the rows of a network are remembered, as was tried."""

    slots: type[Slots]
    token_bytes: int = 0  # of a token in all layers; 0: not known yet
