"""Intervals: items are independent, what belongs to one item is not."""

from types import SimpleNamespace

import pytest
import torch

from instructgpt.functional.intervals import ratio_interval, share_interval
from instructgpt.functional.ranking import Pairs
from instructgpt.modules.estimates import Estimates
from instructgpt.modules.ranking_metrics import intervals


def test_a_mean_has_the_interval_of_the_textbook():
    values = torch.tensor([1.0, 2.0, 3.0, 4.0])
    # s² = 5/3, so 1.96 · √(5/3 / 4) = 1.2652
    low, high, n = ratio_interval(values, torch.ones(4))
    assert (low, high, n) == pytest.approx((2.5 - 1.2652, 2.5 + 1.2652, 4), abs=1e-4)


def test_a_share_has_wilsons_and_copies_add_nothing():
    wins = torch.tensor([1.0, 0.0, 1.0, 1.0])
    assert ratio_interval(wins, torch.ones(4), share=True) == pytest.approx(
        (*share_interval(0.75, 4), 4)
    )
    copied = ratio_interval(6 * wins, torch.full((4,), 6.0), share=True)
    assert copied == pytest.approx((*share_interval(0.75, 4), 4))
    assert ratio_interval(torch.ones(5), torch.ones(5), share=True) == pytest.approx(
        (*share_interval(1.0, 5), 5)
    )


def test_items_that_agree_by_chance_say_no_more_than_their_cases():
    found = ratio_interval(torch.tensor([3.0, 4.0]), torch.tensor([6.0, 6.0]), share=True)
    assert found == pytest.approx((*share_interval(7 / 12, 12), 2))


def test_items_without_counts_play_no_part_and_one_item_says_nothing():
    values, counts = torch.tensor([3.0, 0.0, 5.0]), torch.tensor([1.0, 0.0, 2.0])
    assert ratio_interval(values, counts) == ratio_interval(values[[0, 2]], counts[[0, 2]])
    assert ratio_interval(values[:2], counts[:2]) is None


def test_the_interval_covers_as_often_as_it_says():
    """Of 400 samples of 100 documents with tokens that go together, near 95 % cover the truth."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 30, (400, 100), generator=generator).double()
    losses = 2 + torch.randn(400, 100, generator=generator).double()  # of all tokens of a document
    found = [ratio_interval(loss * n, n) for loss, n in zip(losses, lengths, strict=True)]
    covered = sum(low <= 2 <= high for low, high, _ in found) / 400
    assert 0.92 <= covered <= 0.98


ALONE = SimpleNamespace(global_rank=0, world_size=1)


def test_batches_add_up():
    values = torch.rand(9, generator=torch.Generator().manual_seed(0))
    estimates = Estimates()
    for part in (values[:4], values[4:4], values[4:]):
        estimates.add("score", part)
    assert estimates.take(ALONE) == {"score": ratio_interval(values, torch.ones(9))}
    assert estimates.take(ALONE) == {}


def test_pairs_of_a_prompt_are_one_item():
    margins = torch.tensor([1.0, 2.0, -1.0, 0.0, 3.0])
    longer, sizes = torch.tensor([1.0, 0.0, 0.5, 1.0, 0.0]), torch.tensor([3, 3, 3, 2, 2])
    prompts = ["pig", "pig", "pig", "owl", "hen"]
    pairs = Pairs(margins, longer, sizes, [""] * 5, ["a", "a", "a", "a", "b"], prompts)
    found = intervals(pairs)
    # right: pig 2 of 3, owl half of 1, hen 1 of 1
    right, counts = torch.tensor([2.0, 0.5, 1.0]), torch.tensor([3.0, 1.0, 1.0])
    assert found["accuracy"] == ratio_interval(right, counts, share=True)
    assert found["margin"] == ratio_interval(torch.tensor([2.0, 0.0, 3.0]), counts)
    assert found["accuracy_by_source/a"] == ratio_interval(right[:2], counts[:2], share=True)
    assert found["accuracy_by_k/k2"].n == 2
    assert "accuracy_by_source/b" not in found  # one prompt
    assert "accuracy_by_k/k3" not in found
