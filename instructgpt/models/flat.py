"""The one way to train and score a network: on flat rows, without padding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from instructgpt.functional.bits import unpack_bits
from instructgpt.functional.logprobs import read_logits
from instructgpt.functional.masking import widen
from instructgpt.models.flat_attention import Kernel, attending_flat, flat_mask
from instructgpt.models.flat_proof import proved_kernel
from instructgpt.models.flat_rows import RowPlaces
from instructgpt.models.forward import (
    base_network,
    network_inputs,
    of_known_ids,
    run,
    virtual_tokens,
)
from instructgpt.models.layers import layers_of
from instructgpt.models.output_head import output_head, states_only
from instructgpt.models.peft_private import without_adapters
from instructgpt.models.shard_calls import as_forward
from instructgpt.types import FlatRows


class Predictions(NamedTuple):
    """What a causal language model says about tokens; M of them were asked for."""

    logprobs: Tensor  # [M] float32 nats
    correct: Tensor  # [M] bool: the token is the most likely one
    entropy: Tensor | None  # [M] float32 nats of the distributions they are from; None: not asked
    hidden: Tensor  # [T, d] what the head has read, of every token


@as_forward
def hidden_states(model: nn.Module, rows: FlatRows, *, adapter: bool = True) -> Tensor:
    """What a head reads at every token, [T, d].

    Args:
        model: a causal language model or a trunk, possibly with a LoRA or prefix adapter.
        rows: what it reads.
        adapter: False runs the model as if it had no adapter.

    Raises:
        ValueError: there is no token.
    """
    _check(rows)
    with nullcontext() if adapter else without_adapters(model):
        return _hidden(model, rows, _kernel(model, rows))


class _EnoughRead(Exception):  # noqa: N818  # no error
    """All layers that were asked for have been computed."""


@as_forward
def layer_states(model: nn.Module, rows: FlatRows, layers: Sequence[int]) -> list[Tensor]:
    """What is handed on from layer to layer at every token, [T, d] each.

    Args:
        model: a trunk or a causal language model, without gradients.
        rows: what it reads.
        layers: numbers as in ``output_hidden_states`` of transformers: 0 is what the first layer
            reads, i what follows the i-th; as many as there are layers: what a head reads.

    Raises:
        ValueError: there is no token.
    """
    _check(rows)
    kernel, network = _kernel(model, rows), base_network(model)
    modules, seen, most = layers_of(network, "layers"), dict[int, Tensor](), max(layers)

    def note(number: int, _module: nn.Module, args: Any, kwargs: Any) -> None:
        states: Tensor = args[0] if args else kwargs["hidden_states"]
        seen[number] = states
        if number == most:
            raise _EnoughRead

    hooks = [
        modules[number].register_forward_pre_hook(partial(note, number), with_kwargs=True)
        for number in set(layers)
        if number < len(modules)
    ]
    found = dict[int, Tensor]()
    try:
        found[len(modules)] = _hidden(model, rows, kernel)
    except _EnoughRead:
        pass
    finally:
        for hook in hooks:
            hook.remove()
    where = None if kernel is not None else _padded(rows)[2]
    for number, states in seen.items():
        found[number] = _plain(states[0]) if where is None else states.flatten(0, 1)[where]
    return [found[number] for number in layers]


@as_forward
def predict(
    model: nn.Module,
    rows: FlatRows,
    places: Tensor,
    *,
    temperature: float = 1.0,
    entropy: bool = False,
    adapter: bool = True,
    every_id: bool = False,
    support: Tensor | None = None,
) -> Predictions:
    """How likely tokens are after those before them in their rows.

    Args:
        model: a causal language model, possibly with a LoRA or prefix adapter.
        rows: what it reads.
        places: [M] int64 of the tokens asked about, none of them the first of its row.
        temperature: the logits are divided by it.
        entropy: whether to compute the entropy, without gradient.
        adapter: False runs the model as if it had no adapter.
        every_id: whether ids without a token keep their logits, as for ``forward.run``.
        support: [M, V / 8] sets of ids as ``pack_bits`` makes them, outside which none is possible.

    Raises:
        ValueError: there is no token.
    """
    _check(rows)
    before, targets = rows.layout.previous[places], rows.tokens[places]
    head = output_head(model)
    with nullcontext() if adapter else without_adapters(model):
        kernel = _kernel(model, rows)
        if head is None:
            hidden, logits = _logits(model, rows, before, kernel)
        else:
            hidden = _hidden(model, rows, kernel)
    if head is None:
        logits = logits if every_id else of_known_ids(base_network(model), logits)
        if support is not None:
            within = unpack_bits(support, slice(logits.shape[-1]))
            logits = logits.masked_fill(~within, -torch.inf)
        readings = read_logits(widen(logits) / temperature, targets, entropy)
    else:
        readings = head.read(
            hidden[before],
            targets,
            temperature=temperature,
            entropy=entropy,
            adapter=adapter,
            every_id=every_id,
            support=support,
        )
    spread = None if readings.entropy is None else readings.entropy.detach()
    return Predictions(readings.logprobs, readings.correct, spread, hidden)


def _check(rows: FlatRows) -> None:
    if not len(rows.tokens):  # networks end in errors of their own
        raise ValueError("rows must hold a token, got none")


def _kernel(model: nn.Module, rows: FlatRows) -> Kernel | None:
    """What computes attention; None: rows are padded."""

    def read(some: FlatRows, kernel: Kernel | None) -> Tensor:
        return _hidden(model, some, kernel)

    prefixed = virtual_tokens(model) > 0
    return proved_kernel(base_network(model), read, rows.tokens.device, prefixed)


def _hidden(model: nn.Module, rows: FlatRows, kernel: Kernel | None) -> Tensor:
    network = base_network(model)
    if kernel is not None:
        with attending_flat(network):
            output = _trunk(network)(**_flat_inputs(network, rows, kernel))
        return _plain(output.last_hidden_state[0])
    tokens, mask, where = _padded(rows)
    if network.get_output_embeddings() is None:
        network, inputs = network_inputs(model, tokens, mask)
        hidden: Tensor = network(**inputs, use_cache=False, return_dict=True).last_hidden_state
        return hidden.flatten(0, 1)[where]
    if output_head(model) is not None:
        network, inputs = network_inputs(model, tokens, mask)
        with states_only(network) as seen:
            network(**inputs, use_cache=False, return_dict=True)
        return seen[0].flatten(0, 1)[where]
    of_head = run(model, tokens, mask, hidden=True).hidden
    assert of_head is not None
    return of_head.flatten(0, 1)[where]


def _logits(
    model: nn.Module, rows: FlatRows, places: Tensor, kernel: Kernel | None
) -> tuple[Tensor, Tensor]:
    """The hidden states [T, d] of all tokens, and the logits [M, V] of some."""
    network = base_network(model)
    if kernel is not None:
        inputs = _flat_inputs(network, rows, kernel)
        with attending_flat(network), _watching(_trunk(network)) as seen:
            logits = network(**inputs, logits_to_keep=places).logits[0]
        # of all positions where an architecture ignores what to keep
        logits = logits if len(logits) == len(places) else logits[places]
        return _plain(seen[0][0]), _plain(logits)
    tokens, mask, where = _padded(rows)
    output = run(model, tokens, mask, hidden=True, every_id=True)
    assert output.hidden is not None
    return output.hidden.flatten(0, 1)[where], output.logits.flatten(0, 1)[where[places]]


def _plain(tensor: Tensor) -> Tensor:
    """Without the rows that a mask may have handed on to what it was multiplied with."""
    plain: Tensor = tensor.as_subclass(Tensor)
    return plain


def _trunk(network: PreTrainedModel) -> nn.Module:
    """What a causal language model has below its head, or a trunk itself."""
    if network.get_output_embeddings() is None:
        return network
    decoder: nn.Module = network.get_decoder()
    if decoder is network:  # transformers looks for it by the names of other architectures
        decoder = getattr(network, "model", network)
    return decoder


def _flat_inputs(network: PreTrainedModel, rows: FlatRows, kernel: Kernel) -> dict[str, Any]:
    width = int(network.config.get_text_config().hidden_size)
    return {
        "input_ids": rows.tokens[None],
        "attention_mask": flat_mask(RowPlaces.of(rows.layout, width), kernel),
        "position_ids": rows.layout.positions[None],
        "use_cache": False,
        "return_dict": True,
    }


@contextmanager
def _watching(trunk: nn.Module) -> Iterator[list[Tensor]]:
    """Note what a trunk says: what its head reads, which the proof has shown."""
    seen: list[Tensor] = []

    def note(_module: nn.Module, _inputs: Any, output: Any) -> None:
        seen.append(output.last_hidden_state)

    hook = trunk.register_forward_hook(note)
    try:
        yield seen
    finally:
        hook.remove()


def _padded(rows: FlatRows) -> tuple[Tensor, Tensor, Tensor]:
    """Rows right-padded: tokens [N, L], mask [N, L], and where each flat token is in N * L."""
    layout, device = rows.layout, rows.tokens.device
    lengths = layout.row_lengths
    columns = torch.arange(int(lengths.max()) if len(lengths) else 0)
    mask = columns < lengths[:, None]
    tokens = rows.tokens.new_zeros(mask.shape)
    mask, places = mask.to(device), layout.row_places.to(device)
    tokens[mask] = rows.tokens[places]
    where = mask.flatten().nonzero().squeeze(1)[layout.seen_first.to(device)]
    return tokens, mask, where
