"""Batches: padding, masks, targets, index; nothing depends on the value of padding."""

import pytest
import torch

from instructgpt.data.collate import collate_comparisons, collate_language, collate_prompts
from instructgpt.data.rows import ComparisonRow, LanguageRow, PromptRow
from instructgpt.types import Prompt

T, F = True, False


def demonstration(prompt, response, fill=5):
    tokens = torch.tensor([fill] * prompt + [fill + 1] * response)
    return LanguageRow(tokens, prompt)


def test_language_batch():
    short, long = demonstration(1, 1), demonstration(2, 2)
    batch = collate_language([short, long], pad_id=9)
    assert batch.tokens.tolist() == [[5, 6, 9, 9], [5, 5, 6, 6]]
    assert batch.mask.tolist() == [[T, T, F, F], [T, T, T, T]]
    assert batch.targets.tolist() == [[F, T, F, F], [F, F, T, T]]
    assert batch.positions.tolist() == [[0, 1, 0, 0], [0, 1, 2, 3]]
    assert batch.documents.eq(0).all()


@pytest.mark.parametrize("pad_id", [5, 6, 9])
def test_masks_do_not_look_at_ids(pad_id):
    rows = [demonstration(1, 1), demonstration(2, 2)]
    batch, other = collate_language(rows, pad_id), collate_language(rows, 0)
    for name in ("mask", "targets", "positions", "documents"):
        assert torch.equal(getattr(batch, name), getattr(other, name))


def test_blank_language_row_trains_nothing_but_can_be_run():
    batch = collate_language([demonstration(1, 2).blank()], 0)
    assert batch.mask.all()
    assert not batch.targets.any()


def comparison(lengths, ranking, name):
    sequences = tuple(torch.tensor([7] + [8] * length) for length in lengths)
    return ComparisonRow(sequences, tuple(lengths), tuple(ranking), "l", "s", name)


def test_comparison_batch_with_different_k():
    batch = collate_comparisons(
        [comparison([1, 3], [2, 1], "a"), comparison([2, 1, 1], [1, 2, 2], "b")], 0
    )
    assert batch.tokens.tolist() == [
        [7, 8, 0, 0],
        [7, 8, 8, 8],
        [7, 8, 8, 0],
        [7, 8, 0, 0],
        [7, 8, 0, 0],
    ]
    assert batch.mask.sum(1).tolist() == [2, 4, 3, 2, 2]
    assert batch.response_mask.tolist() == [
        [F, T, F, F],
        [F, T, T, T],
        [F, T, T, F],
        [F, T, F, F],
        [F, T, F, F],
    ]
    assert batch.rows.tolist() == [[0, 1, 0], [2, 3, 4]]
    assert batch.ranking.tolist() == [[2, 1, 0], [1, 2, 2]]
    assert batch.ranking_mask.tolist() == [[T, T, F], [T, T, T]]
    assert batch.response_lengths.tolist() == [[1, 3, 0], [2, 1, 1]]
    assert (batch.labelers, batch.sources, batch.ids) == (["l", "l"], ["s", "s"], ["a", "b"])


def test_blank_comparison_ranks_nothing():
    batch = collate_comparisons([comparison([1, 3], [2, 1], "a").blank()], 0)
    assert batch.mask.any(1).all()  # it can be run
    assert not batch.ranking_mask.any()
    assert not batch.response_mask.any()
    assert not batch.ranking.any()
    assert batch.ids == [""]


def test_prompt_batch_is_left_padded():
    prompt = Prompt("x", [], "1", {})
    rows = [
        PromptRow(torch.tensor([3]), prompt, 4),
        PromptRow(torch.tensor([3, 4]), prompt, 5).blank(),
    ]
    batch = collate_prompts(rows, 3)
    assert batch.tokens.tolist() == [[3, 3], [3, 4]]
    assert batch.mask.tolist() == [[F, T], [T, T]]
    assert batch.sample_ids.tolist() == [4, -1]
    assert batch.prompts == [prompt, prompt]
