"""Accuracy and calibration of decided pairs, by hand."""

import math

import pytest
import torch
from torchmetrics.functional.classification import binary_calibration_error

from instructgpt.functional.ranking import (
    Pairs,
    accuracy,
    by_group,
    calibration_error,
    correct_shares,
    reliability,
)

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
        ["pig"] * 4,
    )
    assert by_group(pairs, pairs.labelers) == {"ann": (0.5, 0.5, 2), "ben": (1.0, 1.0, 1)}


def test_calibration_error_is_that_of_torchmetrics():
    margins = torch.randn(500, generator=torch.Generator().manual_seed(0)) * 3
    margins[:3] = torch.tensor([0.0, 99.0, -99.0])  # confidences at both ends
    confidence = margins.abs().sigmoid()
    for bins in (1, 7, 15):
        expected = binary_calibration_error(confidence, (margins > 0).int(), n_bins=bins)
        assert calibration_error(margins, bins) == expected


def test_correct_shares_leave_ties_and_padding_out():
    scores = torch.tensor([[3.0, 1.0, 2.0], [1.0, 1.0, 9.0], [1.0, 2.0, 3.0]])
    ranking = torch.tensor([[1, 2, 3], [1, 2, 0], [1, 1, 1]])
    mask = torch.tensor([[True, True, True], [True, True, False], [True, True, True]])
    # 1 > 2 and 1 > 3 hold, 2 > 3 does not; an equal score is half right; all tied is none
    torch.testing.assert_close(
        correct_shares(scores, ranking, mask), torch.tensor([2 / 3, 0.5, 0.0])
    )
