"""Completions and figures in whatever logger a run has."""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from lightning.pytorch.loggers import CometLogger, Logger, MLFlowLogger, TensorBoardLogger

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

SHOWN_ROWS = 16  # of each kind
SHOWN_CHARACTERS = 2000
OWN_WAYS = (TensorBoardLogger, MLFlowLogger, CometLogger)
"""Loggers that show things by what their ``experiment`` can do; others by methods of their own."""


def show_table(loggers: Iterable[Any], name: str, rows: list[dict[str, Any]], step: int) -> None:
    """Show the first rows of each kind in the loggers that can.

    Args:
        loggers: of the run.
        name: of the table.
        rows: with any keys; those of the first row become columns.
        step: that they are from.
    """
    columns, cells = list(rows[0]), first_cells(rows)
    for logger in loggers:
        if "completions" in not_shown(logger):
            continue
        to: Any = logger.experiment if isinstance(logger, OWN_WAYS) else logger
        if isinstance(logger, TensorBoardLogger):
            to.add_text(name, markdown_table(columns, cells), step)
        elif isinstance(logger, MLFlowLogger):  # adds to the table that is there
            data = dict(zip(columns, map(list, zip(*cells, strict=True)), strict=True))
            to.log_table(logger.run_id, data=data, artifact_file=f"{name}.json")
        elif isinstance(logger, CometLogger):
            to.log_table(f"{name}-{step}.csv", tabular_data=cells, headers=columns)
        else:
            to.log_table(key=name, columns=columns, data=cells, step=step)


def show_figure(loggers: Iterable[Any], name: str, draw: Callable[[], Figure], step: int) -> None:
    """Show a figure in the loggers that can.

    Args:
        loggers: of the run.
        name: of the figure.
        draw: makes it, for each of them.
        step: that it is from.
    """
    for logger in loggers:
        if "figures" in not_shown(logger):
            continue
        figure = draw()
        to: Any = logger.experiment if isinstance(logger, OWN_WAYS) else logger
        if isinstance(logger, TensorBoardLogger):
            to.add_figure(name, figure, step)
        elif isinstance(logger, MLFlowLogger):
            to.log_figure(logger.run_id, figure, f"{name}-{step}.png")
        elif isinstance(logger, CometLogger):
            to.log_figure(figure_name=name, figure=figure, step=step)
        else:
            to.log_image(key=name, images=[pixels(figure)], step=step)


def not_shown(logger: Logger) -> list[str]:
    """What a logger has no way to show."""
    if isinstance(logger, OWN_WAYS):
        return []
    ways = {"completions": "log_table", "figures": "log_image"}
    return [what for what, way in ways.items() if not hasattr(logger, way)]


def pixels(figure: Figure) -> NDArray[np.uint8]:
    """A figure as an image, [height, width, 3]."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[:, :, :3].copy()


def first_cells(rows: list[dict[str, Any]]) -> list[list[Any]]:
    """The first rows of each kind as cells, texts cut to what a page can hold.

    Args:
        rows: with any keys; those of the first row become columns.
    """
    kinds, cells = Counter[str](), []
    for row in rows:
        kinds[row.get("kind", "")] += 1
        if kinds[row.get("kind", "")] <= SHOWN_ROWS:
            values = [row.get(column) for column in rows[0]]
            cells.append([v[:SHOWN_CHARACTERS] if isinstance(v, str) else v for v in values])
    return cells


def markdown_table(columns: list[str], cells: list[list[Any]]) -> str:
    """A markdown table in which a response cannot change the page.

    Args:
        columns: their names.
        cells: of each row.
    """
    lines = ["| " + " | ".join(map(_escaped, columns)) + " |", "|" + " --- |" * len(columns)]
    lines += ["| " + " | ".join(map(_escaped, row)) + " |" for row in cells]
    return "\n".join(lines)


def _escaped(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    text = re.sub(r"([\\`*_{}\[\]()#+\-.!|])", r"\\\1", html.escape(str(value)))
    return "<br>".join(text.splitlines())
