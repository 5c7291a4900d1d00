"""Accuracy of scores against rankings, counted by hand."""

import numpy as np
import pytest

from instructgpt.evaluation.reward_accuracy import (
    Ranked,
    accuracy,
    counts,
    cross_validation,
    ground_truth_accuracy,
    reward_model_results,
)
from instructgpt.functional.intervals import share_interval


def ranked(prompt, labeler, ranking, scores, group="training", lengths=None, utilities=None):
    blank = [np.nan] * len(ranking)
    return Ranked(
        prompt,
        group,
        labeler,
        np.array(ranking),
        np.array(scores, dtype=float),
        np.array(lengths or [1] * len(ranking), dtype=float),
        np.array(utilities or blank, dtype=float),
    )


def test_decided_pairs_of_a_ranking():
    # 1 beats both 2s (which tie): right against the second, level with the third
    row = ranked("p", "ann", [1, 2, 2], [1.0, 0.0, 1.0], lengths=[5, 3, 9])
    assert counts(row) == (2, 1.5, 1.0)


def test_accuracy_is_over_pairs_and_resamples_prompts():
    rows = [
        ranked("p", "ann", [1, 2], [1, 0]),
        ranked("p", "ben", [2, 1], [1, 0]),
        ranked("q", "ann", [1, 2, 3], [3, 2, 1]),
    ]
    found = accuracy(rows, 0)
    assert found.value == pytest.approx((1 + 0 + 3) / 5)
    assert found.n == 5
    assert (found.low, found.high) == (0.5, 1.0)  # of prompt p alone, of q alone


def test_ground_truth_takes_each_prompt_once():
    rows = [
        ranked("p", name, [1, 1, 1], [1, 2, 0], utilities=[3.0, 2.0, 2.0])
        for name in ("ann", "ben")
    ]
    found = ground_truth_accuracy(rows, 0)
    assert found.value == 0.5  # better than the third, not than the second
    assert found.n == 2
    assert ground_truth_accuracy([ranked("p", "ann", [1, 2], [1, 0])], 0) is None


def test_results_by_group():
    rows = [
        ranked("p", "ann", [1, 2], [4, 0], lengths=[2, 1]),
        ranked("q", "ann", [1, 2], [0, 1], lengths=[1, 1]),
        ranked("p", "cy", [2, 1], [4, 0], "held_out", lengths=[2, 1]),
    ]
    found = reward_model_results(rows, "training", 0)
    assert found.accuracy["training"].value == 0.5
    assert found.accuracy["held_out"].value == 0.0
    assert found.longer_wins["training"].value == 0.75
    assert sum(one.pairs for one in found.reliability) == 2  # of the training group
    assert found.ground_truth_accuracy is None


def test_reliability_counts_prompts():
    # Margins of 4 lie in the last of ten bins, of 0.2 in the first: confidence .982 and .550.
    rows = [
        ranked("p", "ann", [1, 2], [4, 0]),
        ranked("p", "ben", [1, 2], [4, 0]),
        ranked("q", "ann", [2, 1], [4, 0]),
        ranked("r", "ann", [1, 2], [0.2, 0]),
        ranked("r", "ben", [1, 2], [0.2, 0]),
    ]
    found = reward_model_results(rows, "training", 0)
    first, last = found.reliability
    assert (first.pairs, first.prompts, first.accuracy) == (2, 1, 1.0)
    assert (first.low, first.high) == share_interval(1.0, 1)
    assert (last.pairs, last.prompts) == (3, 2)
    assert last.accuracy == pytest.approx(2 / 3)
    assert (last.low, last.high) == (0.0, 1.0)  # of q alone, of p alone
    assert last.confidence == pytest.approx(0.98201, abs=1e-5)
    assert found.calibration_prompts == 3


def test_cross_validation_splits_by_labeler():
    def rows(right):  # ann is predicted well where she was trained on, ben never left out
        return [
            ranked("p", "ann", [1, 2], [1, 0] if right else [0, 1]),
            ranked("p", "ben", [1, 2], [1, 0]),
        ]

    found = cross_validation([(rows(False), ["ann"]), (rows(True), ["ben"])], 0)
    assert found.in_group.value == 1.0  # ben in the first fold, ann in the second
    assert found.held_out.value == 0.5  # ann in the first is missed, ben in the second not
    assert [fold.held_out.value for fold in found.folds] == [0.0, 1.0]
    assert found.held_out.n == 2
    gap = found.difference
    assert gap[:4] == (-0.5, -0.5, -0.5, 1)  # of the one prompt


def test_a_ranking_counts_once_and_the_difference_is_paired():
    names = ["ann", "ben", "cy"]

    def rows(wrong):  # prompt p is easy; of q the model of a fold misses one labeler
        return [
            *(ranked("p", name, [1, 2], [1, 0]) for name in names),
            *(ranked("q", name, [1, 2], [name != wrong, name == wrong]) for name in names),
        ]

    found = cross_validation([(rows("ann"), [name]) for name in names], 0)
    assert found.in_group.n == found.held_out.n == 6  # each ranking once
    # ann's ranking of q is missed in all folds: 5 of 6 either way, on every resample
    assert found.in_group.value == pytest.approx(5 / 6)
    assert found.held_out.value == pytest.approx(5 / 6)
    gap = found.difference
    assert list(gap[:3]) == pytest.approx([0, 0, 0])
    assert gap.n == 2
    assert found.held_out.low == pytest.approx(2 / 3)  # of q alone
