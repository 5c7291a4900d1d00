"""Figures as files and as SVG inside the page."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from instructgpt.evaluation.report.markup import Html, element
from instructgpt.evaluation.report.style import GRID, GROUND, INK, MUTED, styled
from instructgpt.models.folder import write_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Colours that follow the reader's choice of light or dark.
THEME = {INK: "var(--ink)", MUTED: "var(--muted)", GRID: "var(--line)", GROUND: "var(--card)"}
PNG_DPI = 144
DROPPED = re.compile(
    r"<metadata>.*?</metadata>|<!--.*?-->|<style.*?</style>| xmlns\S*=\"[^\"]*\"", re.S
)


def draw(name: str, figure: Figure) -> tuple[Html, bytes]:
    """A figure as SVG for the page and as PNG.

    Args:
        name: of the figure, unique on the page.
        figure: drawn once; its layout is fixed by that.
    """
    svg, png = io.StringIO(), io.BytesIO()
    with styled(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the browser has the fonts
        engine = figure.get_layout_engine()
        if engine is not None:  # computed once for both
            engine.execute(figure)
            figure.set_layout_engine(None)
        figure.savefig(svg, format="svg", facecolor="none")
        figure.savefig(png, format="png", dpi=PNG_DPI, metadata={"Software": None})
    return inline(name, svg.getvalue(), figure.get_suptitle()), png.getvalue()


def inline(name: str, svg: str, title: str) -> Html:
    """SVG as it can stand in a page: ids unique, nothing that points outside, colours of the page.

    Args:
        name: of the figure.
        svg: as matplotlib writes it.
        title: for those who do not see the figure.
    """
    svg = DROPPED.sub("", svg[svg.index("<svg") :])
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', svg))

    def renamed(found: re.Match[str]) -> str:
        return f' id="{name}-{found[1]}"' if found[1] in used else ""

    svg = re.sub(r' id="([^"]+)"', renamed, svg)
    svg = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", svg)
    for colour, variable in THEME.items():
        svg = svg.replace(colour, variable)
    opening = element("svg", role="img", aria_label=title)
    start = opening[: -len("></svg>")]
    return Html(svg.replace("<svg", start, 1))


def drawn(figures: Mapping[str, Figure], folder: Path) -> dict[str, Html]:
    """Write every figure as PNG and return them as SVG for the page.

    Args:
        figures: by name.
        folder: gets one PNG each.
    """
    pictures = {}
    for name, figure in figures.items():
        pictures[name], png = draw(name, figure)
        write_bytes(folder / f"{name}.png", png)
    return pictures
