"""Sections with sample answers, and with what was run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from instructgpt.evaluation.report.estimates import MISSING, SCORE, number, written
from instructgpt.evaluation.report.layout import (
    Make,
    Section,
    View,
    folded,
    model_name,
    table,
    tied,
)
from instructgpt.evaluation.report.markup import Html, element, join
from instructgpt.evaluation.report.reading import decodings, in_order, said
from instructgpt.evaluation.report.style import short
from instructgpt.evaluation.results import ShownAnswer, ShownPrompt

OPEN = 3  # samples that are unfolded at first
MANY_LINES = 12


def samples(view: View) -> Section | None:
    """Prompts with the answers of every model side by side."""
    found = view.results.samples
    if not found:
        return None
    rows = [sample(view, row, place < OPEN) for place, row in enumerate(found)]
    return Section(
        "samples",
        "Sample answers",
        "Fig. 8, Fig. 9 and appendix F",
        "The same prompt answered by every model, not chosen by hand; click on a prompt to open "
        "it. Where an answer was graded, its true utility from 1 to 7 stands above it.",
        join(rows),
    )


def sample(view: View, row: ShownPrompt, opened: bool) -> Html:
    """One prompt and its answers."""
    tag = element("span", said(row.category), class_="tag") if row.category else None
    prompt = row.prompt.strip("\n")
    title = short(prompt, 140)
    cards = [
        answer(view, model, row.answers[model]) for model in in_order(view.results, row.answers)
    ]
    return element(
        "details",
        element("summary", element("pre", title), tag),
        element("pre", prompt, class_="prompt") if title != prompt else None,
        element("div", *cards, class_="answers"),
        class_="sample",
        open="open" if opened else None,
    )


def answer(view: View, model: str, found: Mapping[str, ShownAnswer]) -> Html:
    """What one model answers, with each decoding."""
    parts: list[Html] = []
    for decoding in decodings(view.results, found):
        text, utility = found[decoding]
        notes = [said(decoding)]
        if utility is not None:
            notes.append(f"utility {written(utility, SCORE)}")
        parts.append(element("p", *(element("small", tied(note)) for note in notes)))
        parts.append(element("pre", text) if text.strip() else element("small", "(empty)"))
    return element("div", element("h4", model_name(view.results, model)), *parts, class_="answer")


def duration(seconds: float) -> str:
    """Seconds as people say them.

    >>> duration(9.31), duration(252.4)
    ('9.3 s', '4 min 12 s')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{int(seconds // 60)} min {int(seconds % 60)} s"


def what_was_run(view: View) -> Section | None:
    """Configuration, seed, versions and seconds."""
    run = view.run
    seed = run.get("seed", view.results.seed)
    lines = {
        "Command": code(run["command"]) if run.get("command") else None,
        "Configuration": code(run["config"]) if run.get("config") else None,
        "Seed": element("p", str(seed)) if seed is not None else None,
    }
    parts: list[Html | None] = []
    for title, content in lines.items():
        if content is not None:
            parts += [element("h3", title), content]
    tables = [made for made in (stage_table(run), version_table(run)) if made is not None]
    if tables:
        parts.append(element("div", *tables, class_="figures"))
    return Section(
        "run",
        "What was run",
        "",
        "The same configuration, seed and versions on one thread give the same numbers again.",
        element("div", *parts, class_="run"),
    )


def code(text: Any) -> Html:
    """Text as it was typed; folded where it is long."""
    typed = element("pre", str(text).strip())
    lines = len(str(text).strip().splitlines())
    return folded(f"All {lines} lines", typed) if lines > MANY_LINES else typed


def stage_table(run: Mapping[str, Any]) -> Html | None:
    """Seconds per stage, with a bar each."""
    stages = run.get("stages")
    if not stages:
        return None
    known_times = [number(stage.get("seconds")) for stage in stages if stage.get("seconds")]
    longest = max(known_times, default=1.0)
    rows: list[list[str]] = []
    for stage in stages:
        seconds = number(stage.get("seconds"))
        known = seconds == seconds
        width = f"width:{100 * seconds / longest:.0f}%" if known else "width:0"
        rows.append(
            [
                str(stage["name"]),
                str(stage.get("verb", "")),
                duration(seconds) if known else MISSING,
                element("div", element("div", style=width), class_="length"),
            ]
        )
    caption = "Wall time of each stage"
    total = number(run.get("total_seconds"))
    if total == total:
        caption += f"; the last call took {duration(total)} until this report"
    return table(f"{caption}.", ["stage", "verb", "time", ""], rows)


def version_table(run: Mapping[str, Any]) -> Html | None:
    """Versions of what was used."""
    versions = run.get("versions")
    if not versions:
        return None
    rows = [[name, str(version)] for name, version in versions.items()]
    return table("Versions.", ["package", "version"], rows)


SECTIONS: tuple[Make, ...] = (samples, what_was_run)
