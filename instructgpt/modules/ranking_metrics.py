"""How well the scores of a stage agree with the rankings it is validated on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor
from torch.nn.functional import logsigmoid

from instructgpt.functional.losses import decided_pairs
from instructgpt.functional.ranking import (
    Pairs,
    accuracy,
    by_group,
    calibration_error,
    reliability,
)
from instructgpt.modules.ranks import everyones
from instructgpt.terminal import printable
from instructgpt.types import ComparisonBatch

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class RankingMetrics:
    """Decided pairs of a validation, of all its batches and ranks."""

    def __init__(self) -> None:
        self._parts: list[Pairs] = []

    def update(self, batch: ComparisonBatch, scores: Tensor) -> None:
        """Collect the decided pairs of a batch.

        Args:
            batch: ranked responses.
            scores: [B, K] of them.
        """
        self._parts.append(pairs_of(batch, scores))

    def log(self, module: LightningModule, prefix: str) -> None:
        """Log what all ranks have collected, with a reliability diagram, and forget it.

        Args:
            module: which logs.
            prefix: of the names, ``val`` or ``test``.
        """
        pairs, self._parts = gather_pairs(self._parts), []
        if not len(pairs.margins):
            return
        module.log_dict({f"{prefix}/{name}": value for name, value in measured(pairs).items()})
        for logger in module.loggers:
            if isinstance(logger, TensorBoardLogger) and module.trainer.is_global_zero:
                figure = reliability_figure(pairs.margins)
                logger.experiment.add_figure(f"{prefix}/reliability", figure, module.global_step)


def pairs_of(batch: ComparisonBatch, scores: Tensor) -> Pairs:
    """The decided pairs of a batch, on the CPU."""
    decided = decided_pairs(batch.ranking, batch.ranking_mask)
    rows, winners, losers = decided.nonzero(as_tuple=True)
    won, lost = batch.response_lengths[rows, winners], batch.response_lengths[rows, losers]
    prompts = rows.tolist()
    return Pairs(
        (scores[rows, winners] - scores[rows, losers]).float().cpu(),
        ((won > lost).float() + 0.5 * (won == lost).float()).cpu(),
        batch.ranking_mask.sum(1)[rows].cpu(),
        [batch.labelers[i] for i in prompts],
        [batch.sources[i] for i in prompts],
    )


def gather_pairs(parts: list[Pairs]) -> Pairs:
    """The pairs of all batches and ranks."""
    parts = [pairs for rank in everyones(parts) for pairs in rank]
    empty = [torch.empty(0)]
    return Pairs(
        torch.cat(empty + [part.margins for part in parts]),
        torch.cat(empty + [part.longer for part in parts]),
        torch.cat(empty + [part.responses for part in parts]),
        [name for part in parts for name in part.labelers],
        [name for part in parts for name in part.sources],
    )


def measured(pairs: Pairs) -> dict[str, float]:
    """Metrics of the pairs by name: of all, and of each K, labeler and data set."""
    metrics = {
        "pairs": float(len(pairs.margins)),
        "accuracy": float(accuracy(pairs.margins)),
        "accuracy_longer_wins": float(pairs.longer.mean()),
        "margin": float(pairs.margins.mean()),
        "loss_per_pair": float(-logsigmoid(pairs.margins).mean()),
        "calibration_error": float(calibration_error(pairs.margins)),
    }
    sizes = [f"k{int(k)}" for k in pairs.responses]
    groups = {"k": sizes, "labeler": pairs.labelers, "source": pairs.sources}
    for kind, names in groups.items():
        for name, group in by_group(pairs, names).items():
            name = printable(name)
            metrics[f"accuracy_by_{kind}/{name}"] = group.accuracy
            metrics[f"longer_wins_by_{kind}/{name}"] = group.longer_wins
            metrics[f"pairs_by_{kind}/{name}"] = group.pairs
    return metrics


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
        xlabel="confidence of the model, sigmoid(|score difference|)",
        ylabel="share of pairs in which the labeler\nprefers the higher score",
        title=f"n = {len(margins):,} pairs, calibration error {error:.3f}",
    )
    axes.legend(loc="lower right", frameon=False)
    axes.grid(alpha=0.2)
    return figure
