"""What an update on ranked responses needs of memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from torch import nn

from instructgpt.functional.layout import pieces
from instructgpt.modules.memory import (
    Need,
    activation_bytes,
    logit_bytes,
    number_size,
    shape_of,
)

Sizes = tuple[int, Sequence[int]]
"""Tokens of a prompt, and of the responses to it."""


def largest_piece(batches: Iterable[Sequence[Sizes]], max_tokens: int | None) -> int:
    """Tokens of the largest forward pass.

    Args:
        batches: sizes of the rows of each batch.
        max_tokens: of a forward pass, unless a row has more; None: no limit.

    Examples:
        >>> largest_piece([[(2, [1, 1]), (3, [4])], [(5, [1])]], 10)  # 4 | 7 and 6
        7
    """
    return max(sum(map(_tokens, piece)) for piece in _pieces(batches, max_tokens))


def update_needs(
    policy: nn.Module,
    batches: Iterable[Sequence[Sizes]],
    max_tokens: int | None,
    precision: str,
) -> list[Need]:
    """Of the forward pass with the most tokens, and of the one with the most logits.

    Args:
        policy: that learns.
        batches: sizes of the rows of each batch.
        max_tokens: of a forward pass.
        precision: of the trainer.
    """
    tokens, targets, longest = 0, 0, 0
    for piece in _pieces(batches, max_tokens):
        tokens = max(tokens, sum(map(_tokens, piece)))
        targets = max(targets, sum(sum(responses) for _, responses in piece))
        longest = max(longest, *(prompt + max(responses) for prompt, responses in piece))
    shape, size = shape_of(policy), number_size(precision, policy)
    return [
        Need("update", "activations", activation_bytes(shape, tokens, longest, size)),
        # Logits of response tokens, their log-softmax, and what is gathered for it.
        Need("update", "logits", logit_bytes(shape, targets, 3)),
    ]


def _pieces(
    batches: Iterable[Sequence[Sizes]], max_tokens: int | None
) -> Iterator[Sequence[Sizes]]:
    for rows in batches:
        for piece in pieces([_tokens(row) for row in rows], max_tokens):
            yield rows[piece.start : piece.stop]


def _tokens(row: Sizes) -> int:
    prompt, responses = row
    return prompt + sum(responses)
