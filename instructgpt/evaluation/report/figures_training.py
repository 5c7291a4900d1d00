"""Figures of the reward model, the labelers, over-optimisation and training."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from instructgpt.evaluation.report.estimates import SCORE, SHARE, Estimate, estimate, number
from instructgpt.evaluation.report.layout import Draw
from instructgpt.evaluation.report.plots import Series, dots, legend, reference_line, whiskers
from instructgpt.evaluation.report.reading import (
    Results,
    all_models,
    baseline,
    curve_panels,
    in_order,
    label,
    safe,
    said,
)
from instructgpt.evaluation.report.style import INK, MUTED, looks, new_figure, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Drawn = Iterator[tuple[str, "Figure"]]
BLUE, ORANGE = "#1b7fc4", "#d55e00"
MOST_POINTS, MOST_PANELS = 150, 8


def draw_reliability(results: Results) -> Drawn:
    """Accuracy of the reward model against its confidence."""
    found = results.get("reward_model", {})
    rows = found.get("reliability")
    if not rows:
        return
    figure = new_figure("Calibration of the reward model", 3.3)
    axes = figure.subplots()
    axes.plot([50, 100], [50, 100], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    largest = max(row["pairs"] for row in rows)
    xs = [100 * row["confidence"] for row in rows]
    axes.plot(xs, [100 * row["accuracy"] for row in rows], color=BLUE, linewidth=1)
    for x, row in zip(xs, rows, strict=True):
        limits = [100 * number(row.get("low")), 100 * number(row.get("high"))]
        axes.plot([x, x], limits, color=BLUE, linewidth=1.3)
    axes.scatter(
        xs,
        [100 * row["accuracy"] for row in rows],
        s=[12 + 120 * row["pairs"] / largest for row in rows],
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
    found = results.get("reward_model", {})
    rows: list[tuple[str, Estimate, float]] = [
        (f"{said(group)}", estimate(raw), number(found.get("ceiling", {}).get(group)))
        for group, raw in found.get("accuracy", {}).items()
    ]
    if "ground_truth_accuracy" in found:
        rows.append(("ground truth", estimate(found["ground_truth_accuracy"]), float("nan")))
    crossed = found.get("cross_validation", {})
    for key, text in (("in_group", "trained on them"), ("held_out", "left out")):
        if key in crossed:
            rows.append((f"folds: {text}", estimate(crossed[key]), float("nan")))
    if not rows:
        return
    figure = new_figure("Accuracy of the reward model", 1.25 + 0.34 * len(rows))
    axes = figure.subplots()
    measured = Series("accuracy", [row[1] for row in rows], [BLUE] * len(rows))
    best = Series(
        "best that any model can reach",
        [Estimate(row[2]) for row in rows],
        [ORANGE] * len(rows),
        "|",
    )
    dots(axes, [row[0] for row in rows], [measured], SHARE)
    for place, row in enumerate(rows):
        axes.plot(100 * row[2], place, "|", color=ORANGE, markersize=15, markeredgewidth=2)
    reference_line(axes, 50, "chance")
    lowest = min(
        (x for _, one, _ in rows for x in (100 * one.value, 100 * one.low) if x == x), default=50
    )
    axes.set(xlim=(min(45, lowest - 2), 100), xlabel="% of decided pairs, 95 % interval")
    legend(figure, [measured, best] if found.get("ceiling") else [measured])
    yield "reward_accuracy", figure


def draw_agreement(results: Results) -> Drawn:
    """How often two labelers of a group agree, one figure for each group."""
    for group, found in results.get("agreement", {}).items():
        matrix = found.get("matrix")
        if not matrix:
            continue
        names = [short(said(str(name)), 12) for name in found["labelers"]]
        values = [
            [100 * number(value) if i != j else float("nan") for j, value in enumerate(row)]
            for i, row in enumerate(matrix)
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


def draw_over_optimisation(results: Results) -> Drawn:
    """True utility and the reward model's score against the distance from the baseline."""
    found = results.get("over_optimisation", {})
    paths: dict[str, Sequence[Mapping[str, Any]]] = {}
    if found.get("best_of_n"):
        paths["best of n"] = found["best_of_n"]
    checkpoints = found.get("checkpoints", {})
    look, base = looks(all_models(results)), baseline(results)
    styles = {"best of n": (ORANGE, "o")}
    for model in in_order(results, checkpoints):
        name = f"{label(results, model)} in training"
        paths[name], styles[name] = checkpoints[model], look[model]
    measures = {"utility": "true utility, 1 to 7", "score": "score of the reward model"}
    for measure, axis in measures.items():
        chosen = {n: [r for r in rows if measure in r and "kl" in r] for n, rows in paths.items()}
        chosen = {name: rows for name, rows in chosen.items() if rows}
        if not chosen:
            continue
        title = "Utility" if measure == "utility" else "Score of the reward model"
        figure = new_figure(f"{title} and distance from {base}", 3.3)
        axes = figure.subplots()
        series = []
        for name, rows in chosen.items():
            colour, mark = styles[name]
            draw_path(axes, rows, measure, colour, mark)
            series.append(Series(name, [], [colour], mark))
        axes.set(xlabel=f"KL from {base}, nats (best of n: at most); 95 % interval", ylabel=axis)
        legend(figure, series)
        yield f"over_optimisation_{measure}", figure


def draw_path(
    axes: Axes, rows: Sequence[Mapping[str, Any]], measure: str, colour: str, mark: str
) -> None:
    """One line with whiskers; n or the step stands at a few of its points."""
    points = [estimate(row[measure]) for row in rows]
    xs = [number(row["kl"]) for row in rows]
    axes.errorbar(
        xs,
        [point.value for point in points],
        whiskers(points, SCORE),
        color=colour,
        marker=mark,
        markersize=4.5,
        linewidth=1.4,
        elinewidth=1,
    )
    if "n" not in rows[0]:
        return
    for x, point, row in zip(xs, points, rows, strict=True):
        axes.annotate(
            str(row["n"]),
            (x, point.value),
            (4, 5),
            textcoords="offset points",
            fontsize=8,
            color=MUTED,
        )


def thinned(points: Sequence[Sequence[float]]) -> tuple[list[float], list[float]]:
    """A curve as means of neighbours, so that it has few enough points to be drawn.

    >>> thinned([[0, 1.0], [1, 3.0]])
    ([0.0, 1.0], [1.0, 3.0])
    """
    pairs = [(number(step), number(value)) for step, value in points]
    kept = [pair for pair in pairs if math.isfinite(pair[0]) and math.isfinite(pair[1])]
    size = -(-len(kept) // MOST_POINTS)
    groups = [kept[start : start + size] for start in range(0, len(kept), max(size, 1))]
    means = [[sum(column) / len(group) for column in zip(*group, strict=True)] for group in groups]
    return [mean[0] for mean in means], [mean[1] for mean in means]


def stage_name(results: Results, stage: str) -> str:
    """How a stage is called: as its model where there is one."""
    return label(results, stage) if stage in results.get("labels", {}) else said(stage)


def draw_curves(results: Results) -> Drawn:
    """Learning curves, one figure for each stage."""
    looks_of = {"train": (MUTED, "-", ""), "": (BLUE, "-", "")}
    for stage, curves in results.get("curves", {}).items():
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
