"""How well scores agree with rankings: accuracy of decided pairs, and calibration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from instructgpt.functional.losses import decided_pairs


class Pairs(NamedTuple):
    """Decided pairs, one element each: the winner is the response that the labeler preferred."""

    margins: Tensor  # [M] score of the winner minus score of the loser
    longer: Tensor  # [M] 1 where the winner is longer, 0.5 where equal, 0 where shorter
    responses: Tensor  # [M] K of the prompt
    labelers: list[str]
    sources: list[str]
    prompts: list[str]  # what tells them apart


class ReliabilityBin(NamedTuple):
    """Pairs whose predicted confidence lies in one interval."""

    confidence: float
    accuracy: float
    pairs: int


class GroupMetrics(NamedTuple):
    """The pairs of one labeler, data set or K."""

    accuracy: float
    longer_wins: float
    pairs: int


def accuracy(margins: Tensor) -> Tensor:
    """Share of pairs in which the winner scores higher; an equal score counts half.

    Args:
        margins: [M] score of the winner minus score of the loser.

    Examples:
        >>> accuracy(torch.tensor([1.0, -1.0, 0.0, 2.0])).item()
        0.625
    """
    return (margins > 0).float().mean() + 0.5 * (margins == 0).float().mean()


def correct_shares(scores: Tensor, ranking: Tensor, mask: Tensor) -> Tensor:
    """Share of each prompt's decided pairs that the scores get right; 0 without such pairs.

    Args:
        scores: [B, K].
        ranking: [B, K] int64, 1 = best, equal = tie.
        mask: [B, K] bool, responses that exist.

    Returns:
        [B].

    Examples:
        >>> ranking, mask = torch.tensor([[1, 2, 2]]), torch.tensor([[True, True, True]])
        >>> correct_shares(torch.tensor([[0.5, 0.1, 0.9]]), ranking, mask)
        tensor([0.5000])
    """
    decided = decided_pairs(ranking, mask)
    difference = scores[:, :, None] - scores[:, None, :]
    right = (difference > 0).float() + 0.5 * (difference == 0).float()
    return (right * decided).sum((1, 2)) / decided.sum((1, 2)).clamp_min(1)


def calibration_error(margins: Tensor, bins: int = 15) -> Tensor:
    """Expected calibration error of the pair probabilities σ(|margin|), between 0 and 1.

    The confidence is that of the response with the higher score, so the measure does not depend on
    the order in which a pair is written. An equal score is taken as wrong.

    Args:
        margins: [M] score of the winner minus score of the loser.
        bins: equal intervals of confidence from 0 to 1.

    Examples:
        >>> calibration_error(torch.tensor([0.0, 99.0]))  # one of two is half wrong
        tensor(0.2500)
    """
    confidence = margins.abs().sigmoid()
    # One place more than intervals: a confidence of exactly 1 has its own.
    edges = torch.linspace(0, 1, bins + 1, device=margins.device)
    place = torch.bucketize(confidence, edges, right=True) - 1
    sums = margins.new_zeros(3, bins + 1)
    rows = torch.stack([torch.ones_like(confidence), confidence, (margins > 0).float()])
    count, sure, right = sums.scatter_add_(1, place.expand(3, -1), rows).unbind()
    gap = (right / count - sure / count).nan_to_num()
    return (gap.abs() * (count / count.sum())).sum()


def bin_of(margins: Tensor, bins: int = 10) -> Tensor:
    """Which of so many equal intervals of confidence from 0.5 to 1 each pair lies in.

    Args:
        margins: [M] score of the winner minus score of the loser.
        bins: number of intervals.

    Examples:
        >>> bin_of(torch.tensor([0.0, 9.0]), bins=2).tolist()
        [0, 1]
    """
    confidence = margins.abs().sigmoid()
    return ((confidence - 0.5) * 2 * bins).long().clamp(0, bins - 1)


def reliability(margins: Tensor, bins: int = 10) -> list[ReliabilityBin]:
    """Mean confidence and accuracy of pairs in equal intervals of confidence from 0.5 to 1.

    Args:
        margins: [M] score of the winner minus score of the loser.
        bins: number of intervals; those without pairs are left out.

    Examples:
        >>> reliability(torch.tensor([0.0, 9.0, 9.0]), bins=2)[1].pairs
        2
    """
    confidence, place = margins.abs().sigmoid(), bin_of(margins, bins)
    rows = []
    for index in range(bins):
        inside = place == index
        if inside.any():
            rows.append(
                ReliabilityBin(
                    float(confidence[inside].mean()),
                    float(accuracy(margins[inside])),
                    int(inside.sum()),
                )
            )
    return rows


def by_group(pairs: Pairs, names: Sequence[str]) -> dict[str, GroupMetrics]:
    """Accuracy, "longer wins" accuracy and pairs of each group; unnamed pairs are left out.

    Args:
        pairs: of all groups.
        names: [M] of the group of each pair.
    """
    result = {}
    for name in sorted(set(names) - {""}):
        chosen = torch.tensor([other == name for other in names])
        margins, longer = pairs.margins[chosen], pairs.longer[chosen]
        result[name] = GroupMetrics(float(accuracy(margins)), float(longer.mean()), len(margins))
    return result
