"""Rows into batches. Masks come from lengths, so the value of padding never matters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from instructgpt.data.rows import ComparisonRow, LanguageRow, PromptRow
from instructgpt.types import ComparisonBatch, LanguageBatch, PromptBatch


def pad(rows: Sequence[Tensor], value: int, left: bool = False) -> tuple[Tensor, Tensor]:
    """Put rows of different lengths into one tensor.

    Args:
        rows: tensors of one dimension.
        value: of the padding.
        left: pad on the left instead of the right.

    Returns:
        Tokens and mask, both [N, T] with T the longest row.
    """
    width = max(len(row) for row in rows)
    tokens = torch.full((len(rows), width), value)
    mask = torch.zeros(len(rows), width, dtype=torch.bool)
    for i, row in enumerate(rows):
        where = slice(width - len(row), width) if left else slice(len(row))
        tokens[i, where] = row
        mask[i, where] = True
    return tokens, mask


def collate(rows: list[Any], pad_id: int) -> Any:
    """The batch that rows of their kind make.

    Args:
        rows: of one kind.
        pad_id: what fills the others up to the longest.
    """
    if isinstance(rows[0], LanguageRow):
        return collate_language(rows, pad_id)
    make = collate_comparisons if isinstance(rows[0], ComparisonRow) else collate_prompts
    return make(rows, pad_id)


def collate_language(rows: list[LanguageRow], pad_id: int) -> LanguageBatch:
    """Right-padded rows with targets, positions and document numbers."""
    tokens, mask = pad([row.tokens for row in rows], pad_id)
    targets = torch.zeros_like(mask)
    positions, documents = torch.zeros_like(tokens), torch.zeros_like(tokens)
    for i, row in enumerate(rows):
        targets[i, row.trained : len(row.tokens)] = True
        positions[i, : len(row.tokens)] = torch.arange(len(row.tokens))
    return LanguageBatch(tokens, mask, targets, positions, documents)


def collate_comparisons(rows: list[ComparisonRow], pad_id: int) -> ComparisonBatch:
    """Every response is a row of its own; ``rows`` says which belong to a prompt."""
    tokens, mask = pad([sequence for row in rows for sequence in row.sequences], pad_id)
    shape = len(rows), max(len(row.sequences) for row in rows)
    places, ranking, lengths = (torch.zeros(shape, dtype=torch.int64) for _ in range(3))
    ranking_mask, response_mask = torch.zeros(shape, dtype=torch.bool), torch.zeros_like(mask)
    first = 0
    for i, row in enumerate(rows):
        count = len(row.sequences)
        if row.ranked:
            places[i, :count] = torch.arange(first, first + count)
            ranking[i, :count] = torch.tensor(row.ranking)
            lengths[i, :count] = torch.tensor(row.response_lengths)
            ranking_mask[i, :count] = True
            for k, (sequence, response) in enumerate(
                zip(row.sequences, row.response_lengths, strict=True), first
            ):
                response_mask[k, len(sequence) - response : len(sequence)] = True
        first += count
    return ComparisonBatch(
        tokens,
        mask,
        response_mask,
        places,
        ranking,
        ranking_mask,
        lengths,
        [row.labeler for row in rows],
        [row.source for row in rows],
        [row.id for row in rows],
        [row.number for row in rows],
    )


def collate_prompts(rows: list[PromptRow], pad_id: int) -> PromptBatch:
    """Left-padded prompts."""
    tokens, mask = pad([row.tokens for row in rows], pad_id, left=True)
    ids = torch.tensor([row.sample_id for row in rows])
    return PromptBatch(tokens, mask, ids, [row.prompt for row in rows])
