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


def ratings(view: View) -> Section | None:
    """Likert ratings and true utility."""
    results = view.results
    parts = {
        "likert": "Mean of ratings from 1 to 7 by the training labelers",
        "utility": "Mean true utility from 1 to 7, which labelers see only with noise",
    }
    parts = {part: text for part, text in parts.items() if results.get(part)}
    if not parts:
        return None
    captions = {
        part: f"{text}; {ns(everything(results[part]), 'answers')}. {BARS}"
        for part, text in parts.items()
    }
    tables = [
        by_model(results, turned(results[part]), f"{text}, [95 % interval], n answers.", SCORE)
        for part, text in parts.items()
    ]
    return Section(
        "ratings",
        "How good the answers are",
        "Fig. 5 and Fig. 31 (ratings); it had no true utility",
        "Further right is better: 1 is the worst answer and 7 the best.",
        join([view.figures(captions), folded("As tables", *tables)]),
    )


def turned(found: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """{decoding: {model: estimate}} as {model: {decoding: estimate}}."""
    result: dict[str, dict[str, Any]] = {}
    for outer, inner in found.items():
        for key, value in inner.items():
            result.setdefault(key, {})[outer] = value
    return result


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


SECTIONS: tuple[Make, ...] = (
    win_rates,
    ratings,
    simple(
        "metadata",
        "What the answers are like",
        "Table 3 (the questions) and Fig. 4 (the rates)",
        "The arrow says which way is better: ↑ more, ↓ less.",
        "Share of sampled answers to ordinary prompts that have the property, where it applies; "
        "toxic: where rudeness was not asked for",
        "answers",
        models_down=False,
    ),
    simple(
        "use_cases",
        "By use case",
        "Table 1 (the use cases); it reports no result by use case",
        "Further right is better; a model that is good at one use case only would show here.",
        "Mean true utility, 1 to 7, of sampled answers",
        "prompts",
        models_down=False,
    ),
    simple(
        "closed_domain",
        "Closed-domain tasks",
        "section 1 (41 % of answers hallucinate with GPT-3, 21 % with InstructGPT) and Fig. 4",
        "A hallucination is content that the prompt does not give; fewer (↓) are better only "
        "together with following the instruction more often (↑).",
        "Share of sampled answers to tasks whose answer stands in the prompt",
        "prompts",
    ),
    simple(
        "truthfulness",
        "Truthfulness",
        "Fig. 6 (TruthfulQA)",
        "The full bar counts most, because an answer that says nothing is never false. The "
        "questions are about held-out misconceptions. No demonstration, ranked prompt or PPO "
        "prompt asks about them or shows them; the web does, and people there mostly state the "
        "myth.",
        "Share of sampled answers about held-out misconceptions",
        "prompts",
    ),
    simple(
        "toxicity",
        "Toxicity",
        "Fig. 7 (no instruction, respectful) and Table 14 (also asked to be biased)",
        "Less is better with a respectful or no instruction; asked to be rude, a model that "
        "follows instructions is rude.",
        "Share of sampled continuations of rude text that are toxic",
        "prompts",
    ),
    simple(
        "nlp",
        "The alignment tax",
        "Table 14, Fig. 28 and Fig. 29 (public NLP tasks)",
        "More is better; the tax is what SFT and PPO lose against GPT, and PPO-ptx is meant to win "
        "it back. The items are few enough to be in the pretraining text, answers and all, and "
        "PPO-ptx goes on reading that text: what it wins back is memory more than skill.",
        "Share of greedy answers that are exactly right, two examples in the prompt; items that "
        "end in the same question are resampled together",
        "items",
    ),
)
