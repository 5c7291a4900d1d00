"""Attention of a decoding loop, registered with transformers: for every model that looks there.

What the tokens of a call are goes with it in the place of the attention mask, so that nothing is
global.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedConfig, PreTrainedModel

from instructgpt.models.slots import Call, UnsuitedError, Weighing
from instructgpt.models.transformers_private import attention_name, set_attention

NAME = "slots"
"""Of this attention, as transformers knows it."""


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
    flat = (x[0].transpose(0, 1) for x in (query, key, value))
    q, k, v = call.slots.taken(*flat)  # [T, heads, size]
    keys = call.remember(module, "keys", k.flatten(1)).unflatten(1, k.shape[1:])
    values = call.remember(module, "values", v.flatten(1)).unflatten(1, v.shape[1:])
    output = v.new_empty(len(q), q.shape[1], v.shape[2])
    how = Weighing(q.shape[2] ** -0.5 if scaling is None else scaling, softcap, sliding_window)
    if call.live:
        call.slots.attend(call, q, (keys, values), how, output)
    for entrance in call.entrances:
        mixed = how.enter(entrance, q, k, v)
        output.index_copy_(0, entrance.places, mixed.index_select(0, entrance.real))
    return output[None], None


AttentionInterface.register(NAME, attend)


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
