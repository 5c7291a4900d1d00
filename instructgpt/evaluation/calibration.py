"""How well a reward model's pair probabilities agree with the labelers' choices."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torchmetrics.functional.classification import binary_calibration_error

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Pairs(NamedTuple):
    """Decided pairs, one element each: the winner is the response that the labeler preferred."""

    margins: Tensor  # [M] score of the winner minus score of the loser
    longer: Tensor  # [M] 1 where the winner is longer, 0.5 where equal, 0 where shorter
    responses: Tensor  # [M] K of the prompt
    labelers: list[str]
    sources: list[str]


class ReliabilityBin(NamedTuple):
    """Pairs whose predicted confidence lies in one interval."""

    confidence: float
    accuracy: float
    pairs: int


def accuracy(margins: Tensor) -> Tensor:
    """Share of pairs in which the winner scores higher; an equal score counts half.

    >>> accuracy(torch.tensor([1.0, -1.0, 0.0, 2.0])).item()
    0.625
    """
    return (margins > 0).float().mean() + 0.5 * (margins == 0).float().mean()


def calibration_error(margins: Tensor, bins: int = 15) -> Tensor:
    """Expected calibration error of the pair probabilities σ(|margin|), between 0 and 1.

    The confidence is that of the response the model prefers, so the measure does not depend on the
    order in which a pair is written.
    """
    confidence = margins.abs().sigmoid()
    return binary_calibration_error(confidence, (margins > 0).int(), n_bins=bins)


def bin_of(margins: Tensor, bins: int = 10) -> Tensor:
    """Which of so many equal intervals of confidence from 0.5 to 1 each pair lies in.

    >>> bin_of(torch.tensor([0.0, 9.0]), bins=2).tolist()
    [0, 1]
    """
    confidence = margins.abs().sigmoid()
    return ((confidence - 0.5) * 2 * bins).long().clamp(0, bins - 1)


def reliability(margins: Tensor, bins: int = 10) -> list[ReliabilityBin]:
    """Mean confidence and accuracy of pairs in equal intervals of confidence from 0.5 to 1.

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


def reliability_figure(margins: Tensor) -> Figure:
    """The reliability diagram: accuracy against confidence, dots sized by the number of pairs."""
    from matplotlib.figure import Figure

    rows = reliability(margins)
    figure = Figure(figsize=(5, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.plot([0.5, 1], [0.5, 1], color="0.6", linewidth=1, linestyle="--", label="perfect")
    largest = max((row.pairs for row in rows), default=1)
    axes.plot([r.confidence for r in rows], [r.accuracy for r in rows], color="C0", linewidth=1)
    axes.scatter(
        [r.confidence for r in rows],
        [r.accuracy for r in rows],
        s=[12 + 150 * r.pairs / largest for r in rows],
        color="C0",
        alpha=0.8,
        label="pairs (size: how many)",
    )
    error = float(calibration_error(margins))
    axes.set(
        xlim=(0.48, 1.02),
        ylim=(-0.02, 1.02),
        xlabel="confidence of the reward model, sigmoid(|score difference|)",
        ylabel="share of pairs in which the labeler\nprefers the higher score",
        title=f"n = {len(margins):,} pairs, calibration error {error:.3f}",
    )
    axes.legend(loc="lower right", frameon=False)
    axes.grid(alpha=0.2)
    return figure


class Group(NamedTuple):
    """The pairs of one labeler, data set or K."""

    accuracy: float
    longer_wins: float
    pairs: int


def by_group(pairs: Pairs, names: list[str]) -> dict[str, Group]:
    """Accuracy, "longer wins" accuracy and pairs of each group; unnamed pairs are left out."""
    result = {}
    for name in sorted(set(names) - {""}):
        chosen = torch.tensor([other == name for other in names])
        margins, longer = pairs.margins[chosen], pairs.longer[chosen]
        result[name] = Group(float(accuracy(margins)), float(longer.mean()), len(margins))
    return result
