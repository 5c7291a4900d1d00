"""Rows into batches. Masks come from lengths, so the value of padding never matters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from instructgpt.data.rows import ComparisonRow, LanguageRow, PromptRow
from instructgpt.functional.layout import Layout
from instructgpt.types import ComparisonBatch, FlatRows, LanguageBatch, PromptBatch, flat_rows


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
        return collate_language(rows)
    if isinstance(rows[0], ComparisonRow):
        return collate_comparisons(rows)
    return collate_prompts(rows, pad_id)


def collate_language(rows: list[LanguageRow]) -> LanguageBatch:
    """Each row a document, predicted from its place on."""
    flat = flat_rows([row.tokens for row in rows])
    first = torch.tensor([row.trained for row in rows])
    targets = flat.layout.positions >= first.repeat_interleave(flat.layout.lengths)
    return LanguageBatch(flat, targets)


def collate_comparisons(rows: list[ComparisonRow]) -> ComparisonBatch:
    """Each prompt once, before its responses."""
    counts = torch.tensor([len(row.responses) for row in rows])
    ranked = torch.tensor([len(row.ranking) for row in rows])
    places = torch.arange(int(counts.max()))
    exist, ranking_mask = places < counts[:, None], places < ranked[:, None]
    prompts = [len(row.prompt) for row in rows]
    layout = Layout.shared(prompts, [[len(one) for one in row.responses] for row in rows])
    continued = (layout.parents >= 0).nonzero().squeeze(1)
    nothing = torch.zeros(exist.shape, dtype=torch.int64)
    responses = nothing.masked_scatter(exist, continued)
    ranks = torch.tensor([rank for row in rows for rank in row.ranking], dtype=torch.int64)
    return ComparisonBatch(
        FlatRows(
            torch.cat([part for row in rows for part in (row.prompt, *row.responses)]), layout
        ),
        responses,
        nothing.masked_scatter(ranking_mask, ranks),
        ranking_mask,
        layout.lengths[responses].masked_fill(~ranking_mask, 0),
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
