"""How figures look: colours, marks and fonts, the same in all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH = 4.9  # inches: two figures stand side by side on a page of 1100 pixels

# These stand in the SVG as they are here, so that the page can replace them in the dark.
INK, MUTED, GRID, GROUND = "#1f2731", "#5c6671", "#e2e5e9", "#fffffe"


class Look(NamedTuple):
    """Colour and mark of a model: both differ, so that colour is not the only sign."""

    colour: str
    mark: str


# Okabe and Ito's colours, which people with any colour vision can tell apart; then three more.
COLOURS = (
    *("#848b96", "#cc79a7", "#e69f00", "#009e73", "#1b7fc4", "#d55e00", "#56b4e9"),
    *("#7b61c9", "#97a31f", "#8c564b"),
)
SHAPES = ("o", "s", "^", "D", "P", "v", "X", "*", "<", "p")
MARKS = ("o", "D", "s", "^", "v", "P", "X")  # of judges

RC: Any = {
    "font.family": ["DejaVu Sans"],  # comes with matplotlib: the same layout everywhere
    "font.size": 9,
    "text.parse_math": False,  # a label of the user's is text, also with a dollar sign
    "text.color": INK,
    "figure.titlesize": 10.5,
    "figure.titleweight": "bold",
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "xtick.labelcolor": MUTED,
    "ytick.color": MUTED,
    "ytick.labelcolor": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.6,
    "svg.fonttype": "none",  # text stays text: smaller, sharp, can be selected
    "svg.hashsalt": "instructgpt",  # the same bytes every time
}


@contextmanager
def styled() -> Iterator[None]:
    """The style for whatever is drawn or saved inside."""
    from matplotlib import rc_context

    with rc_context(RC):
        yield


def looks(models: Sequence[str]) -> dict[str, Look]:
    """A look for each model by its place; after ten the colours come again with other marks."""
    count = len(COLOURS)
    return {
        name: Look(COLOURS[i % count], SHAPES[(i + i // count) % count])
        for i, name in enumerate(models)
    }


def new_figure(title: str, height: float) -> Figure:
    """An empty figure with a title.

    Args:
        title: what is shown; also the text for those who do not see it.
        height: in inches.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained", facecolor="white")
    figure.suptitle(title, x=0.01, ha="left")
    return figure


def short(text: str, longest: int = 26) -> str:
    """A label that fits.

    >>> short("a very long name of a model indeed")
    'a very long name of a mod…'
    """
    text = " ".join(text.split())
    return text if len(text) <= longest else text[: longest - 1] + "…"
