"""Sections on what the models do: preferences, ratings, properties of the answers, tasks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from instructgpt.evaluation.report.estimates import (
    MISSING,
    SCORE,
    SHARE,
    Estimate,
    estimate,
    interval,
    number,
)
from instructgpt.evaluation.report.layout import (
    Make,
    Section,
    View,
    by_model,
    cell,
    folded,
    model_name,
    table,
)
from instructgpt.evaluation.report.markup import Html, element, join
from instructgpt.evaluation.report.reading import (
    against_baseline,
    decodings,
    judges,
    label,
    safe,
    said,
)

BARS = "Whiskers are 95 % intervals over prompts."


def win_rates(view: View) -> Section | None:
    """How often each model is preferred."""
    results = view.results
    rows = results.get("win_rates")
    if not rows:
        return None
    base = label(results, str(results.get("baseline")))
    names = decodings(results, [row["decoding"] for row in against_baseline(results)])
    captions = {}
    for name in names:
        found = [estimate(r) for r in against_baseline(results) if r["decoding"] == name]
        text = f"Share of prompts on which the judge prefers the model to {base}"
        captions[f"win_rates_{safe(name)}"] = f"{text}; {ns(found, 'prompts')}. {BARS}"
    described = [
        element("div", element("dt", said(name)), element("dd", str(text)))
        for name, text in results.get("judges", {}).items()
    ]
    first = (judges(results, rows)[0], decodings(results, [row["decoding"] for row in rows])[0])
    direct = [
        row
        for row in rows
        if row["against"] != results.get("baseline") and (row["judge"], row["decoding"]) == first
    ]
    body = [view.figures(captions)]
    if direct:
        body.append(win_rate_table(view, direct, "Compared directly"))
    body.append(folded(f"All {len(rows)} win rates as a table", win_rate_table(view, rows, "All")))
    return Section(
        "win_rates",
        "Which model is preferred",
        "Fig. 1 and Fig. 3",
        f"A dot to the right of 50 % means that the judge prefers the model to {base}; if its "
        "whiskers reach 50 %, the difference may be chance.",
        join([element("dl", *described, class_="judges") if described else None, *body]),
    )


def win_rate_table(view: View, rows: list[Mapping[str, Any]], title: str) -> Html:
    """Win rates with both intervals, ties and consistency."""
    columns = ["model", "against", "judge", "answers", "preferred [bootstrap]", "Wilson interval"]
    columns += ["ties", "both orders agree"]

    def line(row: Mapping[str, Any]) -> list[str]:
        wilson = Estimate(0, number(row.get("wilson_low")), number(row.get("wilson_high")))
        limits = interval(wilson, SHARE)
        return [
            model_name(view.results, row["model"]),
            model_name(view.results, row["against"]),
            said(str(row["judge"])),
            said(str(row["decoding"])),
            cell(estimate(row), SHARE),
            limits + SHARE.suffix if limits else MISSING,
            cell(estimate(row.get("ties")), SHARE),
            cell(estimate(row.get("order_consistency")), SHARE),
        ]

    caption = f"{title}: % of prompts, a tie counts half; 95 % intervals in brackets; n = prompts."
    return table(caption, columns, [line(row) for row in rows])


def everything(found: Mapping[str, Mapping[str, Any]]) -> list[Estimate]:
    """All estimates of {a: {b: estimate}}."""
    return [estimate(raw) for inner in found.values() for raw in inner.values()]


def ns(found: list[Estimate], of: str) -> str:
    """How many cases stand behind estimates: ``n = 150 to 400 prompts``."""
    counts = sorted({int(one.n) for one in found if one.n == one.n})
    if not counts:
        return "n not stated"
    span = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"
    return f"n = {span} {of} for each dot or bar"


def simple(
    part: str, title: str, paper: str, reading: str, caption: str, of: str, models_down: bool = True
) -> Make:
    """A maker of sections with one figure and one table of {model: {key: estimate}}.

    Args:
        part: key of the results, also the id and the name of the figure.
        title: of the section.
        paper: the paper's counterpart.
        reading: one sentence on how to read it.
        caption: what the numbers are.
        of: what n counts.
        models_down: the table has a row for each model; otherwise for each key.
    """
    unit = SCORE if part == "use_cases" else SHARE

    def make(view: View) -> Section | None:
        found = view.results.get(part)
        if not found:
            return None
        facts = {int(raw["facts"]) for m in found.values() for raw in m.values() if "facts" in raw}
        cases = f"{of} about {max(facts)} facts" if facts else of
        text = f"In numbers, with [95 % interval] and n {cases}."
        numbers = by_model(view.results, found, text, unit, models_down)
        over = BARS if not facts else "Whiskers are 95 % intervals over facts."
        if part == "nlp":
            over = "Whiskers are 95 % intervals over questions."
        drawn = {part: f"{caption}; {ns(everything(found), cases)}. {over}"}
        kind = "figures" if models_down else "figures wide"
        body = view.figures(drawn, numbers, kind=kind)
        return Section(part, title, paper, reading, body)

    return make
