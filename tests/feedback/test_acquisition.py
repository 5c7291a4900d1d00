"""Which rows are chosen, with heads that are known."""

import numpy as np
import pytest

from instructgpt.feedback.acquire import Acquire
from instructgpt.feedback.acquisition import acquire, standardised, worth


def heads(*rows):
    return np.array(rows, dtype=float)


KNOWN = [
    heads([0, 0], [1, 1]),  # the margin is -1 by both heads: deviation 0, difference 1
    heads([0, 0], [3, 1]),  # -3 and -1: deviation 1, difference 2
    heads([9, 0], [9, 5]),  # 0 and -5: deviation 2.5, difference 2.5
    heads([5, -7], [5, -7]),  # 0 and 0, whatever the heads' zeros
]


def test_heads_that_disagree_most_about_a_margin_come_first():
    assert [worth(one, "disagreement") for one in KNOWN] == [0, 1, 2.5, 0]
    found = acquire(KNOWN, 4, Acquire(rows=3, by="disagreement"), seed=0)
    assert [(one.number, one.value) for one in found] == [(2, 2.5), (1, 1.0), (0, 0.0)]


def test_the_closest_come_first():
    found = acquire(KNOWN, 4, Acquire(rows=9, by="closeness"), seed=0)
    assert [(one.number, one.value) for one in found] == [(3, 0), (0, -1), (1, -2), (2, -2.5)]


def test_a_row_of_three_counts_by_the_mean_of_its_pairs():
    # Margins of two heads: (-2, 0), (-4, 1), (-2, 1); deviations 1, 2.5, 1.5
    assert worth(heads([0, 1], [2, 1], [4, 0]), "disagreement") == pytest.approx(5 / 3)


def test_at_random_every_row_is_as_likely_and_the_seed_decides():
    how = Acquire(rows=10)
    numbers = [[one.number for one in acquire(None, 40, how, seed)] for seed in range(200)]
    assert numbers[0] == [one.number for one in acquire(None, 40, how, 0)]
    assert all(len(set(some)) == 10 for some in numbers)
    counts = np.bincount(np.concatenate(numbers), minlength=40)
    # Each 200 times with probability 1 / 4: 50, deviation 6.1
    assert 25 < counts.min() <= counts.max() < 75


def test_two_models_disagree_on_one_scale():
    """A scale and a zero of a model play no part."""
    one, other = [np.array([0.0, 1.0]), np.array([2.0, 3.0])], [np.array([1, 0]), np.array([2, 3])]
    scaled = [10.0 * row + 7 for row in other]
    for mine, yours in zip(standardised([one, other]), standardised([one, scaled]), strict=True):
        np.testing.assert_allclose(mine, yours)
    found = standardised([one, one])
    assert all(worth(row, "disagreement") == 0 for row in found)
    assert worth(standardised([one, other])[0], "disagreement") > 0.5
