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
    batch = collate_language([demonstration(1, 1), demonstration(2, 2)])
    assert batch.rows.tokens.tolist() == [5, 6, 5, 5, 6, 6]
    assert batch.rows.layout.lengths.tolist() == [2, 4]
    assert batch.rows.layout.parents.tolist() == [-1, -1]
    assert batch.targets.tolist() == [F, T, F, F, T, T]


@pytest.mark.parametrize(
    ("limits", "lengths"),
    [
        ((None, None), [[2, 4, 3, 9]]),
        ((6, None), [[2, 4], [3], [9]]),
        ((1, None), [[2], [4], [3], [9]]),  # a longer row is alone
        ((None, 3), [[2, 4, 3], [9]]),
    ],
)
def test_a_language_batch_in_pieces_is_the_same_rows(limits, lengths):
    rows = [demonstration(*sizes) for sizes in ((1, 1), (2, 2), (2, 1), (4, 5))]
    batch = collate_language(rows)
    parts = batch.pieces(*limits)
    assert [part.rows.layout.lengths.tolist() for part in parts] == lengths
    assert torch.cat([part.rows.tokens for part in parts]).equal(batch.rows.tokens)
    assert torch.cat([part.targets for part in parts]).equal(batch.targets)


def test_blank_language_row_trains_nothing_but_can_be_run():
    batch = collate_language([demonstration(1, 2).blank()])
    assert batch.rows.tokens.tolist() == [5, 6, 6]
    assert not batch.targets.any()


def comparison(lengths, ranking, name, prompt=1):
    responses = tuple(torch.tensor([8] * (length - 1) + [9]) for length in lengths)
    return ComparisonRow(torch.tensor([7] * prompt), responses, tuple(ranking), "l", "s", name)


def test_comparison_batch_with_different_k():
    """Each prompt once, before its responses; both ends are seen in the ids."""
    batch = collate_comparisons(
        [comparison([1, 3], [2, 1], "a"), comparison([2, 1, 1], [1, 2, 2], "b", prompt=2)]
    )
    assert batch.rows.tokens.tolist() == [7, 9, 8, 8, 9, 7, 7, 8, 9, 9, 9]
    assert batch.rows.layout.lengths.tolist() == [1, 1, 3, 2, 2, 1, 1]
    assert batch.rows.layout.parents.tolist() == [-1, 0, 0, -1, 3, 3, 3]
    assert batch.responses.tolist() == [[1, 2, 0], [4, 5, 6]]
    assert batch.ranking.tolist() == [[2, 1, 0], [1, 2, 2]]
    assert batch.ranking_mask.tolist() == [[T, T, F], [T, T, T]]
    assert batch.response_lengths.tolist() == [[1, 3, 0], [2, 1, 1]]
    assert (batch.labelers, batch.sources, batch.ids) == (["l", "l"], ["s", "s"], ["a", "b"])
    assert batch.prompts.tolist() == [0, 3]
    assert batch.row_tokens.tolist() == [5, 6]
    assert batch.response_tokens.tolist() == [4, 4]


def test_blank_comparison_ranks_nothing_but_can_be_run():
    blank = comparison([1, 3], [2, 1], "a", prompt=5).blank()
    batch = collate_comparisons([comparison([2, 2], [1, 1], "b"), blank])
    assert batch.rows.layout.lengths.tolist() == [1, 2, 2, 1, 1]
    assert batch.ranking_mask.tolist() == [[T, T], [F, F]]
    assert batch.ranking.tolist() == [[1, 1], [0, 0]]
    assert batch.response_lengths.tolist() == [[2, 2], [0, 0]]
    assert batch.ids == ["b", ""]


def test_one_response_judged_alone():
    batch = collate_comparisons([comparison([3], [2], "a"), comparison([1], [1], "b")])
    assert batch.responses.tolist() == [[1], [3]]
    assert batch.ranking.tolist() == [[2], [1]]


@pytest.mark.parametrize(
    ("max_tokens", "sizes"),
    [
        (1, [[5], [6], [2], [3]]),
        (5, [[5], [6], [2, 3]]),
        (10, [[5], [6, 2], [3]]),
        (11, [[5, 6], [2, 3]]),
        (None, [[5, 6, 2, 3]]),
    ],
)
def test_pieces_keep_the_responses_to_a_prompt_together(max_tokens, sizes):
    rows = [
        comparison([1, 3], [2, 1], "a"),
        comparison([2, 1, 1], [1, 2, 2], "b", prompt=2),
        comparison([1], [1], "c").blank(),
        comparison([1, 1], [1, 2], "d"),
    ]
    batch = collate_comparisons(rows)
    pieces = batch.pieces(max_tokens)
    assert [piece.row_tokens.tolist() for piece in pieces] == sizes
    first = 0
    for piece in pieces:
        count = len(piece.ids)
        alone = collate_comparisons(rows[first : first + count])
        columns = alone.responses.shape[1]
        assert torch.equal(piece.rows.tokens, alone.rows.tokens)
        assert torch.equal(piece.rows.layout.parents, alone.rows.layout.parents)
        for name in ("responses", "ranking", "ranking_mask", "response_lengths"):
            assert torch.equal(getattr(piece, name)[:, :columns], getattr(alone, name)), name
        assert not piece.ranking_mask[:, columns:].any()
        assert (piece.ids, piece.numbers) == (alone.ids, alone.numbers)
        first += count
    assert first == 4


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
