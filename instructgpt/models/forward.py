"""The one way to call a language model: explicit masks and positions, adapters, caches."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import (
    Cache,
    DynamicCache,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.cache_utils import CacheLayerMixin, DynamicLayer, DynamicSlidingWindowLayer

from instructgpt.models.peft_private import is_adapted, is_switched_off, without_adapters

if TYPE_CHECKING:
    from peft import PeftModel

KNOWN_IDS = "known_ids"
"""Attribute of a network: how many ids its tokenizer has, and those among them without a token."""


class Output(NamedTuple):
    """What a causal language model says; S is the number of kept positions."""

    logits: Tensor  # [N, S, V]
    hidden: Tensor | None  # [N, S, d], what the logits are computed from
    cache: Cache | None  # None also where the architecture keeps none


def position_ids(mask: Tensor) -> Tensor:
    """Number the real tokens of each row from 0, wherever the padding is.

    Args:
        mask: [N, T] bool.
    """
    return (mask.long().cumsum(-1) - 1).clamp_min(0)


def run(
    model: nn.Module,
    tokens: Tensor,
    mask: Tensor,
    *,
    cache: Cache | None = None,
    use_cache: bool = False,
    keep: int = 0,
    hidden: bool = False,
    adapter: bool = True,
    every_id: bool = False,
) -> Output:
    """Call a causal language model.

    Embeddings are often larger than the vocabulary. What samples and what scores samples must agree
    that ids without a token are impossible, so their logits are left out here, or -inf.

    Args:
        model: the model, possibly with a LoRA or prefix adapter.
        tokens: [N, T], padded on either side.
        mask: [N, past + T] bool: the real tokens among those in the cache and the given ones.
        cache: what an earlier call returned, or an empty cache.
        use_cache: whether to return a cache.
        keep: how many of the last positions get logits; 0: all.
        hidden: whether to return the hidden states of the kept positions too.
        adapter: False runs the model as if it had no adapter.
        every_id: whether ids without a token keep their logits, as in the loss of transformers,
            which makes them improbable.
    """
    with nullcontext() if adapter else without_adapters(model):
        network, inputs = network_inputs(model, tokens, mask, cache)
        seen: list[Tensor] = []
        with _watching(network, seen) if hidden else nullcontext():
            output = network(**inputs, use_cache=use_cache, logits_to_keep=keep, return_dict=True)
    logits = output.logits[:, -keep:]  # of all positions where an architecture ignores ``keep``
    return Output(
        logits if every_id else of_known_ids(network, logits),
        seen[0][:, -keep:] if hidden else None,
        getattr(output, _cache_name(type(network)), None) if use_cache else None,
    )


def set_known_ids(network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Tell a network which ids are tokens; the others get no logits from ``run``.

    Args:
        network: any transformers model.
        tokenizer: its tokenizer.
    """
    known = set(tokenizer.get_vocab().values())
    count = max(known) + 1
    setattr(network, KNOWN_IDS, (count, sorted(set(range(count)) - known)))


def unknown_ids(network: PreTrainedModel) -> list[int]:
    """The ids without a token that a network has logits for.

    Args:
        network: a causal language model that was told its tokenizer.
    """
    size: int = network.get_output_embeddings().weight.shape[0]
    count, holes = known_ids(network)
    return [*holes, *range(count, size)]


def known_ids(network: PreTrainedModel) -> tuple[int, list[int]]:
    """How many ids a network has that may be tokens, and those among them that are none.

    Args:
        network: a causal language model.
    """
    size: int = network.get_output_embeddings().weight.shape[0]
    count, holes = getattr(network, KNOWN_IDS, (size, []))
    return min(count, size), holes


def of_known_ids(network: PreTrainedModel, logits: Tensor) -> Tensor:
    """Logits without those of ids that are no tokens: left out at the end, -inf in between.

    Args:
        network: that was told its tokenizer, or every id is one.
        logits: [..., V].
    """
    count, holes = getattr(network, KNOWN_IDS, (logits.shape[-1], []))
    logits = logits[..., :count]
    if not holes:
        return logits
    return logits.index_fill(-1, _index(tuple(holes), logits.device), -torch.inf)


@lru_cache(maxsize=8)
def _index(ids: tuple[int, ...], device: torch.device) -> Tensor:
    """Ids as an index, copied to a device once: the copy would wait for it at each token."""
    with torch.inference_mode(False):
        return torch.tensor(ids, device=device)


def _cache_name(kind: type[PreTrainedModel]) -> str:
    """What an architecture calls its cache; nothing if it keeps none."""
    parameters = inspect.signature(kind.forward).parameters
    return next((name for name in ("past_key_values", "cache_params") if name in parameters), "")


def network_inputs(
    model: nn.Module,
    tokens: Tensor,
    mask: Tensor,
    cache: Cache | None = None,
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """The network under the adapter and what to call it with; arguments as for ``run``."""
    network = base_network(model)
    length = tokens.shape[1]
    positions = position_ids(mask)[:, -length:]
    virtual = virtual_tokens(model)
    if virtual:
        assert is_adapted(model)
        if mask.shape[1] == length:
            cache = _filled_with_prefix(model, network.config, len(tokens), cache)
        positions = positions + virtual
        mask = nn.functional.pad(mask, (virtual, 0), value=True)
    inputs: dict[str, Any] = {
        "input_ids": tokens,
        "attention_mask": mask,
        "position_ids": positions,
    }
    if name := _cache_name(type(network)):
        inputs[name] = cache
    if name == "cache_params":  # states of a recurrence: the mask is of the given tokens only
        inputs["attention_mask"] = mask[:, -length:]
    return network, inputs


def base_network(model: nn.Module) -> PreTrainedModel:
    """The transformers model under a peft wrapper, or the model itself."""
    network = model.get_base_model() if is_adapted(model) else model
    assert isinstance(network, PreTrainedModel)
    return network


def device_of(network: PreTrainedModel) -> torch.device:
    """Where a network reads its tokens."""
    embedding: Any = network.get_input_embeddings()
    device: torch.device = embedding.weight.device
    return device


@contextmanager
def exact_tables(module: nn.Module) -> Iterator[None]:
    """Keep the float32 buffers that no checkpoint holds, such as rotary frequencies, in float32.

    Args:
        module: may be moved and converted inside the context.
    """
    tables = [
        (owner, name, buffer)
        for owner in module.modules()
        for name, buffer in owner.named_buffers(recurse=False)
        if buffer.dtype == torch.float32 and name not in owner.state_dict()
    ]
    yield
    for owner, name, buffer in tables:
        setattr(owner, name, buffer.to(owner.get_buffer(name).device))


def can_drop_rows(cache: Cache) -> bool:
    """Whether rows can be taken out of a cache: not out of states of convolutions.

    Args:
        cache: as a model has returned it.
    """
    plain = {DynamicLayer, DynamicSlidingWindowLayer}
    return all(type(layer) in plain for layer in cache.layers)


def virtual_tokens(model: nn.Module) -> int:
    """How many positions of the context a prefix takes; 0 without one or while off."""
    if not is_adapted(model) or is_switched_off(model):
        return 0
    config = model.active_peft_config
    return int(config.num_virtual_tokens) if config.is_prompt_learning else 0


@contextmanager
def _watching(network: PreTrainedModel, seen: list[Tensor]) -> Iterator[None]:
    """Note what goes into the language model head: hidden states, of the kept positions only."""
    head: Any = network.get_output_embeddings()
    hook = head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        yield
    finally:
        hook.remove()


def _filled_with_prefix(
    model: PeftModel, config: PreTrainedConfig, rows: int, cache: Cache | None
) -> Cache:
    """An empty cache with the learned keys and values put in front, in the layers that attend."""
    cache = DynamicCache(config=config) if cache is None else cache
    for index, (keys, values, _) in enumerate(model.get_prompt(rows)):
        if isinstance(cache.layers[index], CacheLayerMixin):
            cache.update(keys, values, index)
    return cache
