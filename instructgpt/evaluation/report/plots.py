"""The few kinds of plots that the figures are made of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from textwrap import fill
from typing import TYPE_CHECKING, NamedTuple

from instructgpt.evaluation.report.estimates import Unit
from instructgpt.evaluation.report.style import GRID, GROUND, INK, MUTED, short
from instructgpt.evaluation.statistics import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class Series(NamedTuple):
    """Estimates that share a label; None where there is none."""

    label: str
    values: Sequence[Estimate | None]
    colours: Sequence[str]  # of each value
    mark: str = "o"
    open: bool = False  # the mark is an outline


def drawable(values: Sequence[Estimate | None]) -> list[tuple[int, Estimate]]:
    """Values that are known, with their places."""
    return [
        (i, one) for i, one in enumerate(values) if one is not None and math.isfinite(one.value)
    ]


def whiskers(found: Sequence[Estimate], unit: Unit) -> list[list[float]]:
    """Lengths down and up to the ends of the intervals; nothing where no interval is known."""
    ends = []
    for one in found:
        known = math.isfinite(one.low) and math.isfinite(one.high)
        down, up = (one.value - one.low, one.high - one.value) if known else (0.0, 0.0)
        ends.append((max(down, 0.0) * unit.scale, max(up, 0.0) * unit.scale))
    return [list(side) for side in zip(*ends, strict=True)]


def dots(axes: Axes, rows: Sequence[str], series: Sequence[Series], unit: Unit) -> None:
    """Rows of dots with whiskers, the first row on top.

    Args:
        axes: drawn into.
        rows: labels.
        series: drawn a little below each other in every row.
        unit: of the values.
    """
    step = 0.72 / max(len(series), 1)
    for place, one in enumerate(series):
        for colour in dict.fromkeys(one.colours):
            found = [
                (row, value) for row, value in drawable(one.values) if one.colours[row] == colour
            ]
            if not found:
                continue
            axes.errorbar(
                [value.value * unit.scale for _, value in found],
                [row + (place - (len(series) - 1) / 2) * step for row, _ in found],
                xerr=whiskers([value for _, value in found], unit),
                fmt=one.mark,
                color=colour,
                markerfacecolor=GROUND if one.open else colour,
                markersize=5,
                elinewidth=1.3,
            )
    axes.set_yticks(range(len(rows)), [short(row, 32) for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    for edge in range(1, len(rows)):
        axes.axhline(edge - 0.5, color=GRID, linewidth=0.8)
    axes.spines["left"].set_visible(False)


def bars(axes: Axes, groups: Sequence[str], series: Sequence[Series], unit: Unit) -> None:
    """Groups of bars with whiskers; the value stands above a bar that has room for it.

    Args:
        axes: drawn into.
        groups: labels.
        series: one bar in every group each.
        unit: of the values.
    """
    width = 0.8 / max(len(series), 1)
    for place, one in enumerate(series):
        found = drawable(one.values)
        if not found:
            continue
        xs = [group + (place - (len(series) - 1) / 2) * width for group, _ in found]
        heights = [value.value * unit.scale for _, value in found]
        axes.bar(xs, heights, width * 0.9, color=GROUND)  # hides the grid behind a light bar
        colours = [one.colours[group] for group, _ in found]
        axes.bar(xs, heights, width * 0.9, color=colours, alpha=0.35 if one.open else 1.0)
        ends = whiskers([value for _, value in found], unit)
        axes.errorbar(xs, heights, ends, fmt="none", ecolor=INK, elinewidth=1)
        if len(series) * len(groups) <= 12:
            for x, height, end in zip(xs, heights, ends[1], strict=True):
                number = f"{height:.0f}" if unit.scale == 100 else f"{height:.2f}"
                at = (x, height + end)
                text = axes.annotate(number, at, (0, 2), textcoords="offset points", fontsize=8)
                text.set_horizontalalignment("center")
    room = max(6, 60 // max(len(groups), 1))  # characters
    axes.set_xticks(range(len(groups)), [fill(short(group, 22), room) for group in groups])
    axes.tick_params(axis="x", labelcolor=INK)
    axes.grid(axis="x", visible=False)


def legend(figure: Figure, series: Sequence[Series], colour: str | None = None) -> None:
    """One line of labels below the plot.

    Args:
        figure: gets the legend.
        series: what is named.
        colour: of all marks, where the colour says something else; None: each its own.
    """
    from matplotlib.lines import Line2D

    handles = [
        Line2D(
            [],
            [],
            linestyle="none",
            marker=one.mark,
            markersize=5.5,
            color=colour or one.colours[0],
            markerfacecolor=GROUND if one.open else colour or one.colours[0],
            label=short(one.label, 30),
        )
        for one in series
    ]
    columns = min(len(handles), 3)
    figure.legend(
        # matplotlib fills column by column; people read line by line
        handles=[handle for column in range(columns) for handle in handles[column::columns]],
        loc="outside lower center",
        ncols=columns,
        labelcolor=INK,
        handletextpad=0.2,
        columnspacing=1.4,
    )


def reference_line(axes: Axes, at: float, label: str, upright: bool = True) -> None:
    """A dashed line at a value with its meaning beside it."""
    draw = axes.axvline if upright else axes.axhline
    draw(at, color=MUTED, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    where = (at, 1.0) if upright else (1.0, at)
    transform = axes.get_xaxis_transform() if upright else axes.get_yaxis_transform()
    axes.annotate(
        label,
        where,
        (3, 2) if upright else (0, 2),
        xycoords=transform,
        textcoords="offset points",
        ha="left" if upright else "right",
        fontsize=8,
        color=MUTED,
    )
