"""Accuracy, calibration and their intervals, by hand."""

import math

import pytest
import torch

from instructgpt.evaluation.calibration import (
    Pairs,
    accuracy,
    by_group,
    calibration_error,
    reliability,
    reliability_figure,
)
from instructgpt.evaluation.statistics import share_interval

SURE = math.log(0.8 / 0.2)  # a margin that means 80 %


def test_equal_scores_count_half():
    assert accuracy(torch.tensor([2.0, -1.0, 0.0, 0.0])).item() == 0.5


@pytest.mark.parametrize(
    ("right", "wrong", "error"),
    [(4, 1, 0.0), (5, 0, 0.2), (0, 5, 0.8)],  # |80 % - what happens|
)
def test_calibration_error(right, wrong, error):
    margins = torch.tensor([SURE] * right + [-SURE] * wrong)
    assert calibration_error(margins).item() == pytest.approx(error, abs=1e-5)


def test_reliability_bins():
    # confidence 0.8 lies in the third fifth of [0.5, 1], 0.5 in the first
    rows = reliability(torch.tensor([SURE] * 3 + [-SURE, 0.0]), bins=5)
    assert [(r.pairs, r.accuracy) for r in rows] == [(1, 0.5), (4, 0.75)]
    assert [r.confidence for r in rows] == pytest.approx([0.5, 0.8])
    assert reliability(torch.tensor([50.0]))[0].pairs == 1  # confidence 1 has a place


def test_groups():
    pairs = Pairs(
        torch.tensor([1.0, -1.0, 1.0, 1.0]),
        torch.tensor([1.0, 0.0, 0.5, 1.0]),
        torch.tensor([2, 2, 3, 3]),
        ["ann", "ann", "", "ben"],
        ["a"] * 4,
    )
    assert by_group(pairs, pairs.labelers) == {"ann": (0.5, 0.5, 2), "ben": (1.0, 1.0, 1)}


def test_figure_is_drawn_for_few_pairs(tmp_path):
    figure = reliability_figure(torch.tensor([0.3, -0.2, 9.0]))
    figure.savefig(tmp_path / "figure.png")
    assert "n = 3 pairs" in figure.axes[0].get_title()


def test_wilson_interval():
    # by hand, 8 of 10, z 1.96: middle (0.8 + 0.19208) / 1.38416 = 0.71674
    # spread 1.96 * sqrt(0.016 + 0.009604) / 1.38416 = 0.22658
    low, high = share_interval(0.8, 10)
    assert (low, high) == pytest.approx((0.49016, 0.94332), abs=1e-4)
    assert share_interval(1.0, 5)[0] < 1
    assert share_interval(1.0, 5)[1] == pytest.approx(1)
