"""How well the scores of a stage agree with the rankings it is validated on."""

from __future__ import annotations

import hashlib
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from instructgpt.functional.intervals import Interval, ratio_interval
from instructgpt.functional.losses import decided_pairs
from instructgpt.functional.ranking import (
    Pairs,
    accuracy,
    by_group,
    calibration_error,
    reliability,
)
from instructgpt.modules.base import StageModule
from instructgpt.modules.ranks import shares
from instructgpt.modules.shown import show_figure
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

    def log(self, module: StageModule, prefix: str) -> None:
        """Log what all ranks have collected, with a reliability diagram, and forget it.

        Args:
            module: which logs.
            prefix: of the names, ``val`` or ``test``.
        """
        pairs, self._parts = gather_pairs(self._parts, module.trainer), []
        if not len(pairs.margins):
            return
        module.log_dict({f"{prefix}/{name}": value for name, value in measured(pairs).items()})
        module.say_intervals(prefix, intervals(pairs))
        if module.trainer.is_global_zero:
            draw = partial(reliability_figure, pairs.margins)
            show_figure(module.loggers, f"{prefix}/reliability", draw, module.global_step)


def pairs_of(batch: ComparisonBatch, scores: Tensor) -> Pairs:
    """The decided pairs of a batch, on the CPU."""
    decided = decided_pairs(batch.ranking, batch.ranking_mask)
    rows, winners, losers = decided.nonzero(as_tuple=True)
    won, lost = batch.response_lengths[rows, winners], batch.response_lengths[rows, losers]
    prompts, names = rows.tolist(), prompt_names(batch)
    return Pairs(
        (scores[rows, winners] - scores[rows, losers]).float().cpu(),
        ((won > lost).float() + 0.5 * (won == lost).float()).cpu(),
        batch.ranking_mask.sum(1)[rows].cpu(),
        [batch.labelers[i] for i in prompts],
        [batch.sources[i] for i in prompts],
        [names[i] for i in prompts],
    )


def gather_pairs(parts: list[Pairs], trainer: Any) -> Pairs:
    """The pairs of all batches and ranks.

    Args:
        parts: of this rank.
        trainer: of the run.
    """
    parts = [pairs for rank in shares(parts, trainer) for pairs in rank]
    empty = [torch.empty(0)]
    return Pairs(
        torch.cat(empty + [part.margins for part in parts]),
        torch.cat(empty + [part.longer for part in parts]),
        torch.cat(empty + [part.responses for part in parts]),
        [name for part in parts for name in part.labelers],
        [name for part in parts for name in part.sources],
        [name for part in parts for name in part.prompts],
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
    for kind, names in groups_of(pairs).items():
        for name, group in by_group(pairs, names).items():
            name = printable(name)
            metrics[f"accuracy_by_{kind}/{name}"] = group.accuracy
            metrics[f"longer_wins_by_{kind}/{name}"] = group.longer_wins
            metrics[f"pairs_by_{kind}/{name}"] = group.pairs
    return metrics


def groups_of(pairs: Pairs) -> dict[str, list[str]]:
    """What each pair is in, by the kind of group."""
    sizes = [f"k{int(k)}" for k in pairs.responses]
    return {"k": sizes, "labeler": pairs.labelers, "source": pairs.sources}


def intervals(pairs: Pairs) -> dict[str, Interval]:
    """Intervals of the metrics that are means; what is said of one prompt is not independent."""
    right = (pairs.margins > 0).double() + 0.5 * (pairs.margins == 0).double()
    shares = {"accuracy": right, "accuracy_longer_wins": pairs.longer}
    means = {"margin": pairs.margins, "loss_per_pair": -logsigmoid(pairs.margins)}
    number = {name: i for i, name in enumerate(dict.fromkeys(pairs.prompts))}
    places = torch.tensor([number[name] for name in pairs.prompts])
    found = {name: _by_prompt(places, value, True) for name, value in shares.items()}
    found |= {name: _by_prompt(places, value, False) for name, value in means.items()}
    for kind, names in groups_of(pairs).items():
        for group in sorted(set(names) - {""}):
            inside = torch.tensor([name == group for name in names])
            end = f"by_{kind}/{printable(group)}"
            found[f"accuracy_{end}"] = _by_prompt(places[inside], right[inside], True)
            found[f"longer_wins_{end}"] = _by_prompt(places[inside], pairs.longer[inside], True)
    return {name: interval for name, interval in found.items() if interval is not None}


def _by_prompt(places: Tensor, values: Tensor, share: bool) -> Interval | None:
    """The interval of the mean of values of pairs, each of the prompt with a number."""
    sums = torch.zeros(2, int(places.max()) + 1, dtype=torch.float64)
    values = values.double()
    sums.index_add_(1, places, torch.stack([values, torch.ones_like(values)]))
    return ratio_interval(sums[0], sums[1], share)


def prompt_names(batch: ComparisonBatch) -> list[str]:
    """Digests of the prompts of a batch: the same for the same tokens, on any rank."""
    layout, tokens = batch.rows.layout, batch.rows.tokens.cpu()
    ends = layout.lengths.cumsum(0)
    names = []
    for prompt in batch.prompts.tolist():
        own = tokens[int(ends[prompt] - layout.lengths[prompt]) : int(ends[prompt])]
        names.append(hashlib.sha256(own.numpy().tobytes()).hexdigest()[:16])
    return names


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
