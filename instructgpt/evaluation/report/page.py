"""The report: one page that needs nothing beside itself, and its figures as PNG."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from instructgpt.evaluation.report.css import CSS
from instructgpt.evaluation.report.drawing import drawn
from instructgpt.evaluation.report.estimates import number
from instructgpt.evaluation.report.figures import draw_win_rates, make_figures
from instructgpt.evaluation.report.figures_training import DRAWERS as TRAINING_FIGURES
from instructgpt.evaluation.report.layout import Contents, Section, View, tied
from instructgpt.evaluation.report.markup import Html, element
from instructgpt.evaluation.report.reading import all_models, label
from instructgpt.evaluation.report.sections import trained, win_rates
from instructgpt.evaluation.report.sections_run import SECTIONS as RUN
from instructgpt.evaluation.report.sections_run import duration
from instructgpt.evaluation.report.sections_texts import texts
from instructgpt.evaluation.report.sections_training import SECTIONS as TRAINING
from instructgpt.evaluation.results import Results
from instructgpt.models.folder import write_bytes

# A page that loads nothing and runs nothing, whatever stands in its texts.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"

PLAIN = Contents((win_rates, texts, trained, *TRAINING, *RUN), (draw_win_rates, *TRAINING_FIGURES))
"""The report on answers that nobody has graded."""


def write_report(
    results: Results, run: Mapping[str, Any], folder: Path, contents: Contents = PLAIN
) -> Path:
    """Write report.html and figures/*.png; return the path of the page.

    Args:
        results: as in results.json; sections exist for what is there.
        run: config, seed, versions, stages, total_seconds and command, as far as known.
        folder: to write into.
        contents: sections and figures.
    """
    pictures = drawn(make_figures(results, contents.drawers), folder / "figures")
    page = folder / "report.html"
    write_bytes(page, page_of(View(results, run, pictures), contents).encode())
    return page


def page_of(view: View, contents: Contents) -> str:
    """The whole page."""
    results = view.results
    made = [section for make in contents.sections if (section := make(view)) is not None]
    header = element(
        "header", element("h1", results.title), contents.lede(results), facts(view), links(made)
    )
    main = element("main", *(card(one, contents.verdicts(results, one.id)) for one in made))
    footer = (
        "Made by instructgpt, after Ouyang et al. 2022, “Training language models to follow "
        "instructions with human feedback” (arXiv:2203.02155). The numbers are in "
        "results.json, the figures as PNG in figures/."
    )
    return whole_page(results.title, header, main, footer)


def whole_page(title: str, header: Html, main: Html, footer: str) -> str:
    """A page in the style of the house.

    Args:
        title: for the browser.
        header: with the heading.
        main: the sections.
        footer: in a few words.
    """
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("title", title),
        element("style", Html(CSS)),
    )
    body = element("body", header, main, element("footer", footer))
    return f"<!DOCTYPE html>\n{element('html', head, body, lang='en')}\n"


def facts(view: View) -> Html:
    """The run in a few numbers."""
    results, run = view.results, view.run
    ns = [row.n for row in results.win_rates]
    # Not the time of a call, which may have run but some of them.
    seconds = [number(stage.get("seconds")) for stage in run.get("stages") or []]
    total = sum(one for one in seconds if one == one)
    known = {
        "models": str(len(all_models(results))),
        "baseline": label(results, results.baseline) or None,
        "prompts in a win rate": f"{max(ns):,.0f}" if ns else None,
        "seed": str(results.seed),
        "time of all stages": duration(total) if total else None,
    }
    cells = [
        element("div", element("dt", name), element("dd", value))
        for name, value in known.items()
        if value is not None
    ]
    return element("dl", *cells, class_="facts")


def links(sections: list[Section]) -> Html:
    """Links to the sections."""
    items = [element("li", element("a", one.title, href=f"#{one.id}")) for one in sections]
    return element("nav", element("ul", *items), aria_label="Contents")


def card(section: Section, verdicts: Html | None) -> Html:
    """One section with its title, what it is in the paper, how to read it, and verdicts on it."""
    paper = element("p", element("b", "In the paper: "), tied(section.paper), ".", class_="paper")
    return element(
        "section",
        element("h2", section.title),
        paper if section.paper else None,
        element("p", tied(section.reading)),
        verdicts,
        section.body,
        class_="card",
        id=section.id,
    )
