"""The memory of a decoding loop: a slot for each row that is being answered, in every layer.

Registered with transformers' interface of attention, it works with every architecture that has one.
The tokens of a call lie flat, one after the other: first the newest token of each live slot, then
the prompts that enter. What they are goes with the call in the place of the attention mask, so
that nothing is global. Keys and values are written into place; nothing is padded or joined.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedConfig, PreTrainedModel

from instructgpt.models.transformers_private import attention_name, set_attention

NAME = "slots"
"""Of this attention, as transformers knows it."""


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


class Slots:
    """Keys and values of the rows that are being decoded.

    Args:
        count: how many rows at once.
        length: tokens that a row can have.
        device: of the network.
    """

    def __init__(self, count: int, length: int, device: torch.device) -> None:
        self.count, self.length, self.device = count, length, device
        self.seen = torch.zeros(count, length, dtype=torch.bool, device=device)
        self.windows: set[int | None] = set()  # that layers have asked for
        self._memory: dict[tuple[nn.Module, str], Tensor] = {}  # [count * length, width] each

    def memory(self, module: nn.Module, name: str, like: Tensor) -> Tensor:
        """What a layer remembers of every token, [count * length, width].

        Args:
            module: of the layer.
            name: what it remembers.
            like: [..., width] of some tokens, for the number format.
        """
        key = (module, name)
        if key not in self._memory:
            self._memory[key] = zeros(self.count * self.length, like)
        return self._memory[key]

    def copy(self, source: int, target: int, tokens: int) -> None:
        """Give a slot the first tokens of another.

        Args:
            source: slot with the tokens.
            target: slot that gets them.
            tokens: how many.
        """
        a, b = source * self.length, target * self.length
        for memory in self._memory.values():
            memory[b : b + tokens] = memory[a : a + tokens]
        self.clear(target, tokens)

    def clear(self, slot: int, tokens: int) -> None:
        """Let a slot begin with some tokens, and none behind them."""
        self.seen[slot, :tokens] = True
        self.seen[slot, tokens:] = False


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
    _masks: dict[int | None, Tensor] = field(default_factory=dict)

    @property
    def live(self) -> int:
        """How many of its tokens continue a row."""
        return self.ranges[-1].rows.stop if self.ranges else 0

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
        return memory.index_select(0, (self.places - 1).clamp_min(0))

    def seen(self, window: int | None) -> Tensor:
        """Which tokens of its slot a live token sees, [slots, length] bool.

        Args:
            window: how many of the last ones a layer sees; None: all.
        """
        slots = self.slots
        if window is None or not self.ranges or max(r.width for r in self.ranges) <= window:
            return slots.seen
        if window not in self._masks:
            last = torch.zeros(slots.count, dtype=torch.int64, device=slots.device)
            live = self.live
            at = torch.div(self.places[:live], slots.length, rounding_mode="floor")
            last[at] = self.positions[:live]
            columns = torch.arange(slots.length, device=slots.device)
            self._masks[window] = slots.seen & (columns > last[:, None] - window)
        return self._masks[window]


class Carrier(Tensor):
    """An attention mask that says what the tokens of a call are.

    Transformers passes a mask with four dimensions on as it is.
    """

    call: Call


def carrier(call: Call) -> Carrier:
    """A mask that carries a call."""
    mask = torch.zeros(1, 1, 1, 1, device=call.slots.device).as_subclass(Carrier)
    mask.call = call
    return mask


def call_of(mask: Any) -> Call | None:
    """The call that a mask carries, if it does."""
    return mask.call if isinstance(mask, Carrier) else None


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Any,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Attention as transformers calls it; query, key and value are [1, heads, T, size] each."""
    call = call_of(attention_mask)
    if call is None:
        raise UnsuitedError("the mask does not reach the attention")
    asked = [name for name in ("s_aux", "position_bias") if others.get(name) is not None]
    if asked or dropout or len(query) != 1:
        raise UnsuitedError(f"attention with {', '.join(asked) or 'dropout or rows'}")
    call.slots.windows.add(sliding_window)
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))  # [T, heads, size]
    keys = call.remember(module, "keys", k.flatten(1))
    values = call.remember(module, "values", v.flatten(1))
    output = v.new_empty(len(q), q.shape[1], v.shape[2])
    how = Weighing(q.shape[2] ** -0.5 if scaling is None else scaling, softcap)
    sizes = (call.slots.count, call.slots.length, k.shape[1], -1)
    keys, values = keys.view(sizes), values.view(sizes)
    seen = call.seen(sliding_window)
    for first, rows, width in call.ranges:
        own = slice(first, first + len(rows))
        mixed = how.mix(
            q[rows.start : rows.stop].unflatten(1, (k.shape[1], -1)),
            keys[own, :width].transpose(1, 2),
            values[own, :width].transpose(1, 2),
            seen[own, None, None, :width],
        )
        output[rows.start : rows.stop] = mixed.flatten(1, 2)
    for entrance in call.entrances:
        mixed = how.enter(entrance, q, k, v, sliding_window)
        output.index_copy_(0, entrance.places, mixed.index_select(0, entrance.real))
    return output[None], None


AttentionInterface.register(NAME, attend)


class Weighing(NamedTuple):
    """How much weight a score gets."""

    scaling: float
    softcap: float | None

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

    def enter(self, entrance: Entrance, q: Tensor, k: Tensor, v: Tensor, window: Any) -> Tensor:
        """Attention of prompts to themselves, [rows * width, heads, size]."""
        rows, width, gather, *_ = entrance
        groups = q.shape[1] // k.shape[1]
        query, key, value = (
            x.index_select(0, gather).unflatten(0, (rows, width)).transpose(1, 2) for x in (q, k, v)
        )
        if groups > 1:
            key, value = (x.repeat_interleave(groups, 1) for x in (key, value))
        seen = None
        if window is not None and width > window:
            seen = torch.ones(width, width, dtype=torch.bool, device=q.device)
            seen = seen.tril() & ~seen.tril(-window)
        return self.mix(query, key, value, seen).transpose(1, 2).flatten(0, 1)


def unsuited(network: PreTrainedModel) -> str:
    """Why a network cannot be called with slots, as far as it says so itself.

    Args:
        network: a causal language model.
    """
    if getattr(network.config.get_text_config(), "attention_chunk_size", None):
        return "its attention sees chunks"
    return ""


class SlotNetwork:
    """A network that is called with slots.

    Args:
        network: a causal language model of transformers.
    """

    def __init__(self, network: PreTrainedModel) -> None:
        self.network = network
        configs = {id(c): c for m in network.modules() if (c := getattr(m, "config", None))}
        self._configs = [c for c in configs.values() if isinstance(c, PreTrainedConfig)]

    def logits(self, tokens: Tensor, call: Call) -> Tensor:
        """The logits of the live tokens of a call, [live, V].

        Args:
            tokens: of the call, [T].
            call: what they are.
        """
        live = call.live
        keep = 0 if live == len(tokens) else torch.arange(live, device=tokens.device)
        with self._attending():
            output = self.network(
                input_ids=tokens[None],
                attention_mask=carrier(call),
                position_ids=call.positions[None],
                use_cache=False,
                logits_to_keep=keep,
                return_dict=True,
            )
        logits: Tensor = output.logits[0, :live]
        return logits

    @contextmanager
    def _attending(self) -> Iterator[None]:
        before = [attention_name(config) for config in self._configs]
        for config in self._configs:
            set_attention(config, NAME)
        try:
            yield
        finally:
            for config, name in zip(self._configs, before, strict=True):
                set_attention(config, name)
