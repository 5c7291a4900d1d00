"""Figures of the models by name; ``make_figures`` draws those whose numbers are there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from instructgpt.evaluation.report.estimates import SHARE, Unit
from instructgpt.evaluation.report.layout import Draw
from instructgpt.evaluation.report.plots import Series, bars, dots, legend, reference_line
from instructgpt.evaluation.report.reading import (
    all_models,
    decodings,
    in_order,
    judges,
    keys_of,
    label,
    safe,
    said,
)
from instructgpt.evaluation.report.style import MARKS, MUTED, looks, new_figure, styled
from instructgpt.evaluation.results import Results, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Drawn = Iterator[tuple[str, "Figure"]]
Read = Callable[[Results], Table]


def draw_win_rates(results: Results) -> Drawn:
    """Win rates against the baseline, one figure for each decoding (Fig. 1 of the paper)."""
    rows = results.over_baseline
    for decoding in decodings(results, [row.decoding for row in rows]):
        chosen = [row for row in rows if row.decoding == decoding]
        models = in_order(results, [row.model for row in chosen])
        colours = [looks(all_models(results))[model].colour for model in models]
        series = []
        for place, judge in enumerate(judges(results, chosen)):
            found = {row.model: row.estimate for row in chosen if row.judge == judge}
            values = [found.get(model) for model in models]
            series.append(
                Series(said(judge), values, colours, MARKS[place % len(MARKS)], place > 0)
            )
        baseline = label(results, results.baseline)
        figure = new_figure(f"Preferred to {baseline}, {said(decoding)}", 1.3 + 0.62 * len(models))
        axes = figure.subplots()
        dots(axes, [label(results, model) for model in models], series, SHARE)
        reference_line(axes, 50, "as good")
        axes.set(xlim=(0, 100), xlabel="% of comparisons (a tie counts half), 95 % interval")
        legend(figure, series, MUTED)
        yield f"win_rates_{safe(decoding)}", figure


def by_key(part: str, read: Read, title: str, axis: str, unit: Unit, height: float) -> Draw:
    """A drawer of rows of dots: keys down the page, models in colour.

    Args:
        part: name of the figure.
        read: what it shows, by model and key.
        title: of the figure.
        axis: label of the x axis.
        unit: of the values.
        height: of a row in inches.
    """

    def draw(results: Results) -> Drawn:
        found = read(results)
        if not found:
            return
        keys, series = series_by_model(results, found)
        figure = new_figure(title, 1.2 + height * len(keys))
        axes = figure.subplots()
        dots(axes, [said(key) for key in keys], series, unit)
        axes.set(xlim=(0, 100) if unit is SHARE else (1, 7), xlabel=axis)
        legend(figure, series)
        yield part, figure

    return draw


def by_model(part: str, read: Read, title: str, axis: str) -> Draw:
    """A drawer of bars: keys in groups, models in colour.

    Args:
        part: name of the figure.
        read: shares by model and key.
        title: of the figure.
        axis: label of the y axis.
    """

    def draw(results: Results) -> Drawn:
        found = read(results)
        if not found:
            return
        keys, series = series_by_model(results, found)
        figure = bar_figure(title, [said(key) for key in keys], series, axis)
        legend(figure, [one._replace(mark="s") for one in series])
        yield part, figure

    return draw


def draw_pairs(part: str, read: Read, title: str, axis: str) -> Draw:
    """A drawer of bars: models in groups and colours, the keys light and full.

    Args:
        part: name of the figure.
        read: shares by model and key.
        title: of the figure.
        axis: label of the y axis.
    """

    def draw(results: Results) -> Drawn:
        found = read(results)
        if not found:
            return
        models = in_order(results, found)
        colours = [looks(all_models(results))[model].colour for model in models]
        keys = keys_of(found.values())
        series = [
            Series(
                said(key),
                [found[model].get(key) for model in models],
                colours,
                "s",
                open=place < len(keys) - 1,
            )
            for place, key in enumerate(keys)
        ]
        figure = bar_figure(title, [label(results, model) for model in models], series, axis)
        legend(figure, series, MUTED)
        yield part, figure

    return draw


def bar_figure(title: str, groups: list[str], series: list[Series], axis: str) -> Figure:
    """Groups of bars of shares, from 0."""
    figure = new_figure(title, 3.3)
    axes = figure.subplots()
    bars(axes, groups, series, SHARE)
    axes.set_ylim(bottom=0)
    axes.set_ylabel(axis)
    return figure


def series_by_model(results: Results, found: Table) -> tuple[list[str], list[Series]]:
    """Keys, and one series for each model over them."""
    keys = keys_of(found.values())
    look = looks(all_models(results))
    return keys, [
        Series(
            label(results, model),
            [found[model].get(key) for key in keys],
            [look[model].colour] * len(keys),
            look[model].mark,
        )
        for model in in_order(results, found)
    ]


def make_figures(results: Results, drawers: Sequence[Draw]) -> dict[str, Figure]:
    """Every figure whose numbers are in the results, by name.

    Args:
        results: as in results.json.
        drawers: of the figures.
    """
    with styled():
        return {name: figure for draw in drawers for name, figure in draw(results)}
