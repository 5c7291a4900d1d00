"""Decoding of padded rows with transformers' own cache: for what has no attention that we know."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from itertools import count

import torch
from torch import Tensor, nn

from instructgpt.models.forward import base_network, can_drop_rows, run
from instructgpt.rollout.decoding import LOOKAHEAD, by_length, pace_of
from instructgpt.rollout.drawing import Drawing, Request, Response


@torch.no_grad()
def decode_padded(model: nn.Module, drawing: Drawing, size: int) -> Iterator[list[Response]]:
    """The responses to all requests, a batch of prompts of like length after the other.

    Args:
        model: a causal language model.
        drawing: of its responses, with a seat for each row of a batch.
        size: rows of a batch.
    """
    lengths = [len(request.tokens) for request in drawing.requests]
    order = by_length(lengths, LOOKAHEAD * size)
    for start in range(0, len(order), size):
        numbers = order[start : start + size]
        drawing.seat(range(len(numbers)), numbers)
        _answer(model, drawing, [drawing.requests[number] for number in numbers])
        yield drawing.responses(range(len(numbers)))


def _answer(model: nn.Module, drawing: Drawing, requests: Sequence[Request]) -> None:
    """Draw until every row has ended; finished ones go when they are the half of all."""
    device = next(model.parameters()).device
    new, mask = (t.to(device) for t in _left_padded([request.tokens for request in requests]))
    seats = torch.arange(len(requests), device=device)
    cache, looks = None, pace_of(device).looks
    for step in count():
        output = run(model, new, mask, cache=cache, use_cache=True, keep=1)
        if step == 0 and output.cache is None:
            kind = base_network(model).config.model_type
            warnings.warn(f"{kind} keeps no cache: a token takes as long as a row", stacklevel=2)
        token = drawing.draw(seats, output.logits[:, -1])
        drawing.tell(seats)
        look = (step + 1) % looks == 0 or step + 1 == drawing.ends.limit
        going = drawing.going(seats) if look else []
        if look and not any(going):
            return
        mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
        cache = output.cache
        new = token[:, None] if cache is not None else torch.cat([new, token[:, None]], dim=1)
        if look and 2 * sum(going) <= len(seats) and (cache is None or can_drop_rows(cache)):
            left = torch.tensor([row for row, goes in enumerate(going) if goes], device=device)
            if cache is not None:
                cache.batch_select_indices(left)
            mask, new, seats = mask[left], new[left], seats[left]


def _left_padded(rows: Sequence[list[int]]) -> tuple[Tensor, Tensor]:
    width = max(map(len, rows))
    tokens = torch.tensor([[0] * (width - len(row)) + row for row in rows])
    lengths = torch.tensor([[len(row)] for row in rows])
    return tokens, torch.arange(width) >= width - lengths
