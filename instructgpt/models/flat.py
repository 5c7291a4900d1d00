"""The one way to train and score a network: on flat rows, without padding."""

from __future__ import annotations

from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn

from instructgpt.functional.logprobs import entropy as entropy_of
from instructgpt.functional.logprobs import token_logprobs
from instructgpt.functional.masking import widen
from instructgpt.models.forward import network_inputs, run
from instructgpt.models.peft_private import without_adapters
from instructgpt.types import FlatRows


class Predictions(NamedTuple):
    """What a causal language model says about tokens; M of them were asked for."""

    logprobs: Tensor  # [M] float32 nats
    correct: Tensor  # [M] bool: the token is the most likely one
    entropy: Tensor | None  # [M] float32 nats of the distributions they are from; None: not asked
    hidden: Tensor  # [T, d] what the head has read, of every token


def hidden_states(model: nn.Module, rows: FlatRows, *, adapter: bool = True) -> Tensor:
    """What a head reads at every token, [T, d].

    Args:
        model: a causal language model or a trunk, possibly with a LoRA or prefix adapter.
        rows: what it reads.
        adapter: False runs the model as if it had no adapter.
    """
    tokens, mask, where = _padded(rows)
    with nullcontext() if adapter else without_adapters(model):
        network, inputs = network_inputs(model, tokens, mask)
        if network.get_output_embeddings() is None:
            output = network(**inputs, use_cache=False, return_dict=True)
            hidden: Tensor = output.last_hidden_state
            return hidden.flatten(0, 1)[where]
    hidden_of_head = run(model, tokens, mask, hidden=True, adapter=adapter).hidden
    assert hidden_of_head is not None
    return hidden_of_head.flatten(0, 1)[where]


def predict(
    model: nn.Module,
    rows: FlatRows,
    places: Tensor,
    *,
    temperature: float = 1.0,
    entropy: bool = False,
    adapter: bool = True,
    every_id: bool = False,
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
    """
    tokens, mask, where = _padded(rows)
    output = run(model, tokens, mask, hidden=True, adapter=adapter, every_id=every_id)
    assert output.hidden is not None
    logits = widen(output.logits.flatten(0, 1)[where[rows.layout.previous[places]]]) / temperature
    targets = rows.tokens[places]
    return Predictions(
        token_logprobs(logits, targets),
        logits.argmax(-1) == targets,
        entropy_of(logits.detach()) if entropy else None,
        output.hidden.flatten(0, 1)[where],
    )


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
