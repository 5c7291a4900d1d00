"""Intervals against formulas and simulation."""

import numpy as np
import pytest

from instructgpt.evaluation.statistics import (
    RESAMPLES,
    by_cluster,
    clustered,
    draws,
    mean,
    rate,
    ratio,
    ratio_draws,
    resampling,
)
from instructgpt.functional.intervals import share_interval


def test_resamples_have_as_many_units():
    counts = resampling(7, 0)
    assert counts.shape == (RESAMPLES, 7)
    assert (counts.sum(1) == 7).all()
    assert counts.mean() == pytest.approx(1)
    assert (resampling(7, 1) != counts).any()


def test_mean_of_normal_numbers():
    numbers = np.random.default_rng(0).normal(2.0, 3.0, size=400)
    found = mean(numbers)
    error = 1.96 * numbers.std() / 20  # standard error of a mean of 400
    assert found.value == pytest.approx(numbers.mean())
    assert found.n == 400
    assert found.low == pytest.approx(found.value - error, rel=0.03)
    assert found.high == pytest.approx(found.value + error, rel=0.03)


def test_intervals_cover_the_truth_as_often_as_they_say():
    rng, hits, rounds = np.random.default_rng(1), 0, 300
    for _ in range(rounds):
        found = mean(rng.exponential(size=100), seed=0)
        hits += found.low <= 1 <= found.high
    # 95 % ± 1.3 % by chance; the percentile interval of a skewed mean is slightly short
    assert 0.90 <= hits / rounds <= 0.985


def test_rate_is_sure_of_nothing():
    assert rate([True, False, True, True]).value == 0.75
    assert rate([0.0] * 150)[:2] == (0, 0)
    assert rate([0.0] * 150).high == pytest.approx(0.02497, abs=1e-5)  # 3.8416 / 153.8416
    assert rate([1, 0])[1:3] == share_interval(0.5, 2)


def test_ratio_counts_pairs_and_resamples_prompts():
    # prompts with 1, 2 and 3 pairs: (1 + 1 + 0) / 6
    found = ratio([1, 1, 0], [1, 2, 3])
    assert found.value == pytest.approx(1 / 3)
    assert found.n == 6
    assert found.low == 0  # of only the third prompt
    assert found.high == 1  # of only the first
    same = ratio([1, 0, 1, 1], [1, 1, 1, 1])
    assert same == mean([1, 0, 1, 1])


def test_ratio_where_some_prompts_have_no_pairs():
    found = ratio([1, 0], [2, 0])  # a resample of the second alone has no ratio
    assert found[:4] == (0.5, 0.5, 0.5, 2)


def test_ratio_is_sure_of_nothing():
    # Wilson's interval of 5 prompts, though there are 15 pairs
    found = ratio([3, 3, 3, 3, 3, 0], [3, 3, 3, 3, 3, 0])
    assert found[:4] == (1.0, *share_interval(1.0, 5), 15)
    assert ratio([0, 0], [1, 2])[:3] == (0.0, *share_interval(0.0, 2))


def test_clusters_by_hand():
    sums, counts = by_cluster([[1, 0], [0, 1], [1, 1]], ["b", "a", "b"])
    assert sums.tolist() == [[0, 1], [2, 1]]
    assert counts.tolist() == [1, 2]
    both = ratio_draws(sums, counts)
    assert both.value.tolist() == pytest.approx([2 / 3, 2 / 3])
    for column in (0, 1):
        alone = ratio_draws(sums[:, column], counts)
        assert np.allclose(both.resampled[:, column], alone.resampled)


def test_clusters_widen_the_interval():
    rng = np.random.default_rng(0)
    facts = np.repeat(rng.random(17), 15)  # 15 prompts on each of 17 facts
    known = [float(rng.random() < p) for p in facts]
    names = [f"fact {i // 15}" for i in range(len(known))]
    apart, together = mean(known), clustered(known, names)
    assert apart.value == pytest.approx(together.value)
    assert together.n == 255
    assert together.high - together.low > 1.5 * (apart.high - apart.low)
    alone = clustered(known, [str(i) for i in range(len(known))])  # nothing is shared
    assert alone.high - alone.low == pytest.approx(apart.high - apart.low, rel=0.1)


def test_estimates_over_the_same_units_are_paired():
    numbers = np.random.default_rng(0).normal(size=50)
    one, other = draws(numbers), draws(numbers + 1)
    assert np.allclose(other.resampled - one.resampled, 1)
    both = draws(np.stack([numbers, numbers + 1], 1))
    assert np.allclose(both.resampled[:, 1], other.resampled)


def test_wilson_interval():
    # by hand, 8 of 10, z 1.96: middle (0.8 + 0.19208) / 1.38416 = 0.71674
    # spread 1.96 * sqrt(0.016 + 0.009604) / 1.38416 = 0.22658
    low, high = share_interval(0.8, 10)
    assert (low, high) == pytest.approx((0.49016, 0.94332), abs=1e-4)
    assert share_interval(1.0, 5)[0] < 1
    assert share_interval(1.0, 5)[1] == pytest.approx(1)
