"""Parts of the page: sections, tables, figures with captions, badges."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from instructgpt.evaluation.report.estimates import (
    MISSING,
    Unit,
    count,
    interval,
    written,
)
from instructgpt.evaluation.report.markup import Html, element, join
from instructgpt.evaluation.report.reading import (
    all_models,
    in_order,
    keys_of,
    label,
    said,
)
from instructgpt.evaluation.report.style import looks
from instructgpt.evaluation.results import Results, Table
from instructgpt.evaluation.statistics import Estimate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BADGES = {  # a sign and words besides the colour
    "holds": ("holds", "✓ holds"),
    "does not hold": ("fails", "✗ does not hold"),
    "not judged": ("open", "○ not judged"),
}


class Section(NamedTuple):
    """A card of the page."""

    id: str
    title: str
    paper: str  # the paper's counterpart
    reading: str  # one sentence on how to read it
    body: Html


class View(NamedTuple):
    """What sections are made from."""

    results: Results
    run: Mapping[str, Any]
    pictures: Mapping[str, Html]  # figures by name, as SVG

    def figures(self, captions: Mapping[str, str], *beside: Html, kind: str = "figures") -> Html:
        """Figures with their captions side by side, and what stands beside them."""
        cells = [
            element(
                "figure",
                self.pictures[name],
                element("figcaption", tied(text)),
                id=f"figure-{name}",
            )
            for name, text in captions.items()
            if name in self.pictures
        ]
        return element("div", *cells, *beside, class_=kind)


Make = Callable[[View], Section | None]
Draw = Callable[[Results], "Iterator[tuple[str, Figure]]"]
"""Draws figures by name; nothing where the results have no numbers for them."""


def no_words(results: Results) -> None:
    """Nothing to say."""


def no_verdicts(results: Results, section: str) -> None:
    """Nothing was judged."""


class Contents(NamedTuple):
    """What a report consists of, in its order."""

    sections: Sequence[Make]
    drawers: Sequence[Draw]
    lede: Callable[[Results], Html | None] = no_words  # below the title
    verdicts: Callable[[Results, str], Html | None] = no_verdicts  # at the top of a section, by id


def badge(verdict: str) -> Html:
    """The verdict on a claim."""
    kind, text = BADGES.get(verdict, ("open", verdict))
    return element("span", text, class_=f"badge {kind}")


def tied(text: str) -> str:
    """Text whose numbers stay on one line with their units."""
    return (
        text
        if isinstance(text, Html)
        else text.replace(" %", "\u00a0%").replace(" = ", "\u00a0=\u00a0")
    )


def table(caption: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Html:
    """A table that scrolls inside itself where the page is narrow.

    Args:
        caption: what the numbers are.
        columns: headings; the first is that of the row headings.
        rows: cells; the first is the heading of the row.
    """
    head = element("tr", *(element("th", tied(column), scope="col") for column in columns))
    body = [
        element(
            "tr",
            element("th", tied(first), scope="row"),
            *(element("td", tied(text)) for text in rest),
        )
        for first, *rest in rows
    ]
    whole = element("table", element("thead", head), element("tbody", *body))
    scrolled = {"class_": "scroll", "tabindex": "0", "role": "region", "aria_label": caption}
    return element(
        "div", element("p", tied(caption), class_="caption"), element("div", whole, **scrolled)
    )


def cell(found: Estimate | None, unit: Unit, with_n: bool = True) -> Html:
    """A value with its unit, its 95 % interval and n."""
    if found is None:
        return Html(MISSING)
    limits = interval(found, unit)
    parts = [written(found.value, unit)]
    if limits:
        parts.append(element("small", limits))
    if with_n:
        parts.append(element("small", f"n\u00a0=\u00a0{count(found.n)}"))
    return join(parts, " ")


def model_name(results: Results, model: str) -> Html:
    """The name of a model with its colour."""
    look, name = looks(all_models(results)).get(model), label(results, model)
    style = f"background:{look.colour}" if look else None
    swatch = element("span", class_="swatch", style=style) if look else None
    return element("span", swatch, name, class_="name" if len(name) > 8 else "short name")


def by_model(
    results: Results,
    found: Table,
    caption: str,
    unit: Unit,
    models_down: bool = True,
) -> Html:
    """A table of estimates by model and key.

    Args:
        results: name and order the models.
        found: {model: {key: estimate}}.
        caption: what the numbers are.
        unit: of the numbers.
        models_down: a row for each model; otherwise a column.
    """
    models, keys = in_order(results, found), keys_of(found.values())
    same = {key: shared_n(found[m].get(key) for m in models) for key in keys}
    heads = [
        join([said(key), element("small", f"n\u00a0=\u00a0{count(n)}") if n else None], " ")
        for key, n in same.items()
    ]

    def at(model: str, key: str) -> Html:
        return cell(found[model].get(key), unit, with_n=same[key] is None)

    if models_down:
        rows = [[model_name(results, m), *(at(m, key) for key in keys)] for m in models]
        return table(caption, ["model", *heads], rows)
    rows = [[head, *(at(m, key) for m in models)] for key, head in zip(keys, heads, strict=True)]
    return table(caption, ["", *(model_name(results, m) for m in models)], rows)


def shared_n(found: Iterable[Estimate | None]) -> int | None:
    """The number of cases where it is the same behind all estimates, otherwise None."""
    counts = {one.n for one in found if one is not None and math.isfinite(one.value)}
    return counts.pop() if len(counts) == 1 else None


def folded(title: str, *content: Html) -> Html:
    """Content that opens on a click."""
    return element("details", element("summary", title), *content)
