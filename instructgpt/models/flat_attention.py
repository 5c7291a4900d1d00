"""Attention over flat rows, registered with transformers: for every model that looks there."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from instructgpt.models.flat_rows import Attended, RowPlaces
from instructgpt.models.transformers_private import attention_name, set_attention
from instructgpt.models.varlen import halved, varlen_takes

Kernel = Literal["varlen", "grouped"]
PREFIX = "flat_"


class FlatMask(Tensor):
    """[1, T], all True: what transformers hands on to where it makes masks, with the rows in it."""

    rows: RowPlaces
    varlen: bool

    @property
    def previous(self) -> Tensor:
        """[T] place of the token before each in its row; 0 where there is none."""
        return self.rows.layout.previous.clamp_min(0)

    @classmethod
    def __torch_function__(
        cls, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Keep the rows whatever a model does with the mask, such as another view of it."""
        result = super().__torch_function__(function, types, args, kwargs or {})
        if isinstance(result, FlatMask) and not hasattr(result, "rows"):
            source = next((one for one in args if isinstance(one, FlatMask)), None)
            if source is not None and hasattr(source, "rows"):
                result.rows, result.varlen = source.rows, source.varlen
        return result


def flat_mask(rows: RowPlaces, kernel: Kernel) -> FlatMask:
    """The mask of a flat micro-batch, to call a model with.

    Args:
        rows: of the micro-batch.
        kernel: that computes attention.
    """
    ones = torch.ones(1, rows.layout.tokens, dtype=torch.bool, device=rows.layout.device)
    mask = ones.as_subclass(FlatMask)
    mask.rows, mask.varlen = rows, kernel == "varlen"
    return mask


@contextmanager
def attending_flat(network: PreTrainedModel) -> Iterator[None]:
    """Within the context a network attends within flat rows, by its own kind of attention.

    Args:
        network: a model that looks up its attention in transformers' registry.
    """
    name = attention_name(network.config)
    if name.startswith(PREFIX):
        yield
        return
    set_attention(network.config, PREFIX + ("eager" if name == "eager" else "sdpa"))
    try:
        yield
    finally:
        set_attention(network.config, name)


def recompute_alike(
    network: PreTrainedModel,
) -> Callable[[], tuple[AbstractContextManager[None], AbstractContextManager[None]]]:
    """Contexts for checkpointing: what is computed again attends as it did the first time.

    Args:
        network: whose activations are recomputed.
    """

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        flat = attention_name(network.config).startswith(PREFIX)
        return nullcontext(), attending_flat(network) if flat else nullcontext()

    return contexts


def _make_mask(*, attention_mask: Any, mask_function: Any, **_: Any) -> Attended:
    """What transformers asks for once for each kind of layer; the function knows its window."""
    zero = torch.tensor(0)
    return Attended(
        attention_mask.rows,
        lambda queries, keys: mask_function(zero, zero, queries, keys),
        attention_mask.varlen,
    )


def _attend_sdpa(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Attended,
    dropout: float = 0.0,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """As transformers calls it; query, key and value are [1, heads, T, width]."""
    plain = dropout == 0 and not {"softcap", "s_aux", "position_bias"} & {
        name for name, given in options.items() if given is not None
    }
    if attention_mask.varlen and plain and attention_mask.window is not None:
        return _varlen(query, key, value, attention_mask, scaling)[None], None
    options |= {"dropout": dropout, "scaling": scaling}
    return _grouped(sdpa_attention_forward, module, (query, key, value), attention_mask, options)


def _attend_eager(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Attended,
    **options: Any,
) -> tuple[Tensor, None]:
    """By the function of the architecture, which has its soft caps and sinks."""
    inner = vars(sys.modules[type(module).__module__])["eager_attention_forward"]
    return _grouped(inner, module, (query, key, value), attention_mask, options, query.dtype)


def _grouped(
    inner: Callable[..., tuple[Tensor, Any]],
    module: nn.Module,
    inputs: tuple[Tensor, Tensor, Tensor],
    seen: Attended,
    options: dict[str, Any],
    dtype: torch.dtype | None = None,
) -> tuple[Tensor, None]:
    """Rows of like length are padded on the right, where nothing real sees it."""
    flat = [tensor[0].transpose(0, 1) for tensor in inputs]  # [T, heads, width]
    groups, places = seen.rows.groups, seen.rows.places
    if places is not None:  # all at once: the gradient of each would be as large as that of all
        flat = [tensor.index_select(0, places) for tensor in flat]
    sizes = [size * length for size, length in groups]
    outputs = []
    for (size, length), *rows in zip(groups, *(x.split(sizes) for x in flat), strict=True):
        shaped = (row.unflatten(0, (size, length)).transpose(1, 2) for row in rows)
        output, _ = inner(module, *shaped, seen.mask(length, dtype), **options)
        outputs.append(output.flatten(0, 1))
    joined = outputs[0] if len(outputs) == 1 else torch.cat(outputs)
    where = seen.rows.where
    return (joined if where is None else joined.index_select(0, where))[None], None


def _varlen(
    query: Tensor, key: Tensor, value: Tensor, seen: Attended, scaling: float | None
) -> Tensor:
    """By torch's attention over segments: queries lie as they are, shared keys are read again."""
    from torch.nn.attention.varlen import varlen_attn

    segments, window = seen.rows.segments, seen.window
    queries, keys, values = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    queries, keys, values = halved(queries, keys, values)
    if segments.places is not None:
        keys, values = (tensor.index_select(0, segments.places) for tensor in (keys, values))
    groups, more = queries.shape[1] // keys.shape[1], dict[str, Any]()
    if groups > 1 and varlen_takes("enable_gqa"):  # from torch 2.12 on
        more["enable_gqa"] = True
    elif groups > 1:
        keys, values = (tensor.repeat_interleave(groups, 1) for tensor in (keys, values))
    output: Any = varlen_attn(
        queries.contiguous(),
        keys.contiguous(),
        values.contiguous(),
        segments.query_ends,
        segments.key_ends,
        segments.most_queries,
        segments.most_keys,
        scale=scaling,
        # to the left beside the token itself; causality is counted from the last key of a segment
        window_size=(window - 1 if window else -1, 0),
        **more,
    )
    result: Tensor = output
    return result


for _name, _attend in (("sdpa", _attend_sdpa), ("eager", _attend_eager)):
    AttentionInterface.register(PREFIX + _name, _attend)
    AttentionMaskInterface.register(PREFIX + _name, _make_mask)
