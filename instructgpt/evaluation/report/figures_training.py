"""Figures of the reward model, the labelers, over-optimisation and training."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from instructgpt.evaluation.report.estimates import SCORE, SHARE
from instructgpt.evaluation.report.layout import Draw
from instructgpt.evaluation.report.plots import Series, dots, legend, reference_line, whiskers
from instructgpt.evaluation.report.reading import (
    all_models,
    curve_panels,
    in_order,
    label,
    over_optimisation,
    safe,
    said,
)
from instructgpt.evaluation.report.style import INK, MUTED, Look, looks, new_figure, short
from instructgpt.evaluation.results import BestOf, Checkpoint, Curve, Results
from instructgpt.evaluation.statistics import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Drawn = Iterator[tuple[str, "Figure"]]
BLUE, ORANGE = "#1b7fc4", "#d55e00"
BEST = Look(INK, "o")  # no model has this colour
MOST_POINTS, MOST_PANELS = 150, 8


def draw_reliability(results: Results) -> Drawn:
    """Accuracy of the reward model against its confidence."""
    found = results.reward_model
    if found is None or not found.reliability:
        return
    rows = found.reliability
    figure = new_figure("Calibration of the reward model", 3.3)
    axes = figure.subplots()
    axes.plot([50, 100], [50, 100], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    largest = max(row.pairs for row in rows)
    xs = [100 * row.confidence for row in rows]
    axes.plot(xs, [100 * row.accuracy for row in rows], color=BLUE, linewidth=1)
    for x, row in zip(xs, rows, strict=True):
        limits = [100 * row.low, 100 * row.high]
        axes.plot([x, x], limits, color=BLUE, linewidth=1.3)
    axes.scatter(
        xs,
        [100 * row.accuracy for row in rows],
        s=[12 + 120 * row.pairs / largest for row in rows],
        color=BLUE,
    )
    axes.annotate("perfect", (97, 97), (-4, 0), textcoords="offset points", ha="right", color=MUTED)
    axes.set(
        xlim=(49, 101),
        ylim=(0, 104),
        xlabel="confidence, % = sigmoid(|score difference|); size: number of pairs",
        ylabel="% in which the labeler\nprefers the higher score",
    )
    yield "reliability", figure


def draw_reward_accuracy(results: Results) -> Drawn:
    """Accuracy of the reward model by group of labelers, with the best that is possible."""
    found = results.reward_model
    if found is None:
        return
    nan = float("nan")
    rows: list[tuple[str, Estimate, float]] = [
        (said(group), one, found.ceiling.get(group, nan)) for group, one in found.accuracy.items()
    ]
    if found.ground_truth_accuracy is not None:
        rows.append(("ground truth", found.ground_truth_accuracy, nan))
    if (crossed := found.cross_validation) is not None:
        rows.append(("folds: trained on them", crossed.in_group, nan))
        rows.append(("folds: left out", crossed.held_out, nan))
    figure = new_figure("Accuracy of the reward model", 1.25 + 0.34 * len(rows))
    axes = figure.subplots()
    measured = Series("accuracy", [row[1] for row in rows], [BLUE] * len(rows))
    best = Series("best that any model can reach", [], [ORANGE], "|")
    dots(axes, [row[0] for row in rows], [measured], SHARE)
    for place, row in enumerate(rows):
        axes.plot(100 * row[2], place, "|", color=ORANGE, markersize=15, markeredgewidth=2)
    reference_line(axes, 50, "chance")
    lowest = min(
        (x for _, one, _ in rows for x in (100 * one.value, 100 * one.low) if x == x), default=50
    )
    axes.set(xlim=(min(45, lowest - 2), 100), xlabel="% of decided pairs, 95 % interval")
    legend(figure, [measured, best] if found.ceiling else [measured])
    yield "reward_accuracy", figure


def draw_agreement(results: Results) -> Drawn:
    """How often two labelers of a group agree, one figure for each group."""
    for group, found in results.agreement.items():
        names = [short(said(name), 12) for name in found.labelers]
        values = [
            [100 * value if i != j else float("nan") for j, value in enumerate(row)]
            for i, row in enumerate(found.matrix)
        ]
        figure = new_figure(said(group).capitalize(), 1.1 + 0.36 * len(names))
        axes = figure.subplots()
        axes.pcolormesh(values, cmap="Blues", vmin=45, vmax=105)
        for i, row in enumerate(values):
            for j, value in enumerate(row):
                if value == value:
                    colour = "#101418" if value < 84 else "#fdfdfd"
                    text = axes.text(j + 0.5, i + 0.5, f"{value:.0f}", color=colour, fontsize=8.5)
                    text.set(ha="center", va="center")
        ticks = [i + 0.5 for i in range(len(names))]
        rotation = 30 if sum(map(len, names)) > 45 else 0
        axes.set_xticks(ticks, names, color=INK, rotation=rotation)
        axes.set_yticks(ticks, names)
        axes.invert_yaxis()
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        axes.set_xlabel("% of pairs in which both labelers prefer the same response")
        yield f"agreement_{safe(group)}", figure


class Path(NamedTuple):
    """A line of one colour through points with whiskers."""

    name: str
    look: Look
    kls: list[float]
    measured: list[Estimate | None]
    marks: list[str]  # beside the points; empty where there are none


def paths(
    results: Results, measure: Callable[[BestOf | Checkpoint], Estimate | None]
) -> list[Path]:
    """Best-of-n and every model in training, by their distance from the start.

    Args:
        results: of the evaluation.
        measure: what stands on the y axis.
    """
    found, look = over_optimisation(results), looks(all_models(results))
    best = found.best_of_n
    marks = [str(row.n) for row in best]
    lines = [
        Path("best of n", BEST, [row.kl for row in best], [measure(row) for row in best], marks)
    ]
    for model in in_order(results, found.checkpoints):
        curve = found.checkpoints[model]
        name = f"{label(results, model)} in training"
        kls = [one.kl for one in curve]
        lines.append(Path(name, look[model], kls, [measure(one) for one in curve], []))
    return [line for line in lines if any(line.measured)]


def draw_over_optimisation(results: Results) -> Drawn:
    """True utility and the reward model's score against the distance from the baseline."""
    base = label(results, results.baseline)
    parts: dict[str, tuple[str, str, list[Path]]] = {
        "utility": ("Utility", "true utility, 1 to 7", paths(results, lambda one: one.utility)),
        "score": (
            "Score of the reward model",
            "score of the reward model",
            paths(results, lambda one: one.score),
        ),
    }
    for measure, (title, axis, lines) in parts.items():
        if not lines:
            continue
        figure = new_figure(f"{title} and distance from {base}", 3.3)
        axes = figure.subplots()
        for line in lines:
            draw_path(axes, line)
        axes.set(xlabel=f"KL from {base}, nats (best of n: at most); 95 % interval", ylabel=axis)
        legend(figure, [Series(one.name, [], [one.look.colour], one.look.mark) for one in lines])
        yield f"over_optimisation_{measure}", figure


def draw_path(axes: Axes, line: Path) -> None:
    """One line with whiskers, where both numbers are known; n stands beside best-of-n's points."""
    known = [(kl, one) for kl, one in zip(line.kls, line.measured, strict=True) if one and kl == kl]
    axes.errorbar(
        [kl for kl, _ in known],
        [one.value for _, one in known],
        whiskers([one for _, one in known], SCORE),
        color=line.look.colour,
        marker=line.look.mark,
        markersize=4.5,
        linewidth=1.4,
        elinewidth=1,
    )
    for (kl, one), text in zip(known, line.marks, strict=False):
        at = (kl, one.value)
        axes.annotate(text, at, (4, 5), textcoords="offset points", fontsize=8, color=MUTED)


def thinned(points: Curve) -> tuple[list[float], list[float]]:
    """A curve as means of neighbours, so that it has few enough points to be drawn.

    >>> thinned([(0, 1.0), (1, 3.0)])
    ([0.0, 1.0], [1.0, 3.0])
    """
    kept = [pair for pair in points if math.isfinite(pair[1])]
    size = -(-len(kept) // MOST_POINTS)
    groups = [kept[start : start + size] for start in range(0, len(kept), max(size, 1))]
    means = [[sum(column) / len(group) for column in zip(*group, strict=True)] for group in groups]
    return [mean[0] for mean in means], [mean[1] for mean in means]


def stage_name(results: Results, stage: str) -> str:
    """How a stage is called: as its model where there is one."""
    return label(results, stage) if stage in results.labels else said(stage)


def draw_curves(results: Results) -> Drawn:
    """Learning curves, one figure for each stage."""
    looks_of = {"train": (MUTED, "-", ""), "": (BLUE, "-", "")}
    for stage, curves in results.curves.items():
        panels = list(curve_panels(curves).items())[:MOST_PANELS]
        if not panels:
            continue
        rows, columns = -(-len(panels) // 2), min(len(panels), 2)
        title = f"Learning curves: {stage_name(results, stage)}"
        figure = new_figure(title, 0.75 + 1.55 * rows)
        grid = list(figure.subplots(rows, columns, squeeze=False).flat)
        for axes, (name, kinds) in zip(grid, panels, strict=False):
            for kind, points in kinds.items():
                colour, line, mark = looks_of.get(kind, (BLUE, "-", "o"))
                xs, ys = thinned(points)
                axes.plot(xs, ys, line, color=colour, marker=mark, markersize=3, label=kind)
            axes.set_title(short(said(name), 30))
            axes.tick_params(labelsize=8)
            axes.locator_params(nbins=4)
            if len(kinds) > 1:
                axes.legend(labelcolor=INK)
        for axes in grid[len(panels) :]:
            axes.set_axis_off()
        figure.supxlabel("step", fontsize=9, color=MUTED)
        yield f"curves_{safe(stage)}", figure


DRAWERS: tuple[Draw, ...] = (
    draw_reliability,
    draw_reward_accuracy,
    draw_agreement,
    draw_over_optimisation,
    draw_curves,
)
