"""Figures of the report: rows left, lengths, use cases."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from instructgpt.evaluation.report.style import COLOURS, INK, new_figure, short, styled
from instructgpt.hygiene.report import Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE = COLOURS[4], COLOURS[2]


def figures_of(report: Report) -> dict[str, Figure]:
    """All figures that there are numbers for, by name.

    Args:
        report: of a preparation.
    """
    with styled():
        found = {"rows": rows_left(report), "lengths": lengths(report)}
        if report["use_cases"]["rows"]:
            found["use_cases"] = shares(report)
    return {name: figure for name, figure in found.items() if figure is not None}


def rows_left(report: Report) -> Figure:
    """Bars of the rows left behind each rule."""
    rules = [rule for rule in report["rules"] if rule["on"]]
    names = ["read", "checked", *(rule["name"] for rule in rules)]
    values = [report["rows"]["read"], report["rows"]["checked"]]
    values += [rule["rows"]["left"] for rule in rules]
    figure = new_figure("Rows left behind each rule", 0.7 + 0.26 * len(names))
    _bars(figure.add_subplot(), names, values, "rows")
    return figure


def _bars(axes: Axes, names: list[str], values: list[int], unit: str) -> None:
    places = range(len(names))
    axes.barh(places, values, 0.7, color=BLUE)
    for place, value in zip(places, values, strict=True):
        axes.annotate(
            f"{value:,}",
            (value, place),
            (3, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            color=INK,
        )
    axes.set_yticks(places, [short(name, 30) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlim(0, 1.18 * max(*values, 1))
    axes.set_xlabel(unit)
    axes.grid(axis="y", visible=False)
    axes.locator_params(axis="x", nbins=5)


def lengths(report: Report) -> Figure | None:
    """Histograms of the lengths of what is written."""
    tables: dict[str, Any] = dict(report["outcome"]["lengths"])
    tables.pop("unit")
    if not tables:
        return None
    sizes = sorted({int(size) for table in tables.values() for size in table})
    every = [2**power for power in range(sizes[0].bit_length() - 1, sizes[-1].bit_length())]
    figure = new_figure("Lengths of what is written", 2.9)
    axes = figure.add_subplot()
    width = 0.8 / len(tables)
    for place, (what, table) in enumerate(tables.items()):
        values = [table.get(str(size), 0) for size in every]
        xs = [at + (place - (len(tables) - 1) / 2) * width for at in range(len(every))]
        label = f"{what} (n = {sum(values):,})"
        axes.bar(xs, values, width * 0.92, color=(BLUE, ORANGE)[place], label=label)
    axes.set_xticks(range(len(every)), [f"{size:,}" for size in every])
    if len(every) > 8:
        axes.tick_params(axis="x", labelrotation=45)
    axes.set_xlabel("tokens (4 characters each), from … to twice as many")
    axes.set_ylabel("texts")
    axes.grid(axis="x", visible=False)
    figure.legend(loc="outside lower center", ncols=2, labelcolor=INK)
    return figure


def shares(report: Report) -> Figure:
    """Shares of use cases beside the paper's."""
    classes = report["use_cases"]["classes"][:16]
    figure = new_figure("Use cases, and those of the paper", 0.9 + 0.34 * len(classes))
    axes = figure.add_subplot()
    for shift, key, colour, label in (
        (-0.2, "share", BLUE, f"these rows (n = {report['use_cases']['rows']:,})"),
        (0.2, "paper_share", ORANGE, "paper, Table 1"),
    ):
        values = [100 * (one[key] or 0) for one in classes]
        places = [place + shift for place in range(len(classes))]
        axes.barh(places, values, 0.36, color=colour, label=label)
    names = [short(one["name"] or one["paper_name"], 24) for one in classes]
    axes.set_yticks(range(len(classes)), names)
    axes.set_ylim(len(classes) - 0.5, -0.5)
    axes.set_xlabel("share of the rows, %")
    axes.grid(axis="y", visible=False)
    figure.legend(loc="outside lower center", ncols=2, labelcolor=INK)
    return figure
