"""What an update on ranked responses needs of memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import nn

from instructgpt.functional.lengths import length_groups, padded_tokens
from instructgpt.modules.memory import (
    Need,
    activation_bytes,
    logit_bytes,
    number_size,
    shape_of,
)

Sizes = tuple[Sequence[int], Sequence[int]]
"""Tokens of the sequences of a row, and of its responses."""


def update_needs(
    policy: nn.Module, batches: Iterable[Sequence[Sizes]], precision: str
) -> list[Need]:
    """Of the batch with the most tokens, and of the one with the most logits.

    Args:
        policy: that learns.
        batches: of each row of each batch the tokens of its sequences, and of its responses.
        precision: of the trainer.
    """
    tokens, logits, targets, longest = 0, 0, 0, 0
    for rows in batches:
        lengths = [length for sequences, _ in rows for length in sequences]
        responses = [length for _, own in rows for length in own]
        tokens = max(tokens, padded_tokens(lengths))
        logits = max(logits, padded_logits(lengths, responses))
        targets, longest = max(targets, sum(responses)), max(longest, *lengths)
    shape, size = shape_of(policy), number_size(precision, policy)
    # Logits of what is kept of each row, those of response tokens, and their log-softmax.
    kept = logit_bytes(shape, logits, 1) + logit_bytes(shape, targets, 2)
    return [
        Need("update", "activations", activation_bytes(shape, tokens, longest, size)),
        Need("update", "logits", kept),
    ]


def padded_logits(lengths: Sequence[int], responses: Sequence[int]) -> int:
    """Positions that have logits: of a group of rows, from its first response token on.

    Args:
        lengths: tokens of each row.
        responses: those of its response.

    Examples:
        >>> padded_logits([3, 4], [1, 2])  # 1 row with 1 response token, 1 with 2, and one before
        5
    """
    whole, prompts = torch.tensor(lengths), torch.tensor(lengths) - torch.tensor(responses)
    groups = length_groups(whole)
    return sum(int(whole[g].amax() - prompts[g].amin() + 1) * len(g) for g in groups)
