"""Sections on what the models do: preferences, ratings, properties of the answers, tasks."""

from __future__ import annotations

from collections.abc import Callable

from instructgpt.evaluation.arms import arms
from instructgpt.evaluation.report.estimates import (
    MISSING,
    SCORE,
    SHARE,
    Unit,
    interval,
    written,
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
    decodings,
    judges,
    label,
    safe,
    said,
)
from instructgpt.evaluation.results import Results, Table, WinRate
from instructgpt.evaluation.statistics import Estimate

BARS = "Whiskers are 95 % intervals over prompts."


def win_rates(view: View) -> Section | None:
    """How often each model is preferred."""
    results = view.results
    rows = results.win_rates
    if not rows:
        return None
    base, over = label(results, results.baseline), results.over_baseline
    names = decodings(results, [row.decoding for row in over])
    captions = {}
    for name in names:
        found = [row.estimate for row in over if row.decoding == name]
        text = f"Share of prompts on which the judge prefers the model to {base}"
        captions[f"win_rates_{safe(name)}"] = f"{text}; {ns(found, 'prompts')}. {BARS}"
    described = [
        element("div", element("dt", said(name)), element("dd", text))
        for name, text in results.judges.items()
    ]
    first = (judges(results, rows)[0], decodings(results, [row.decoding for row in rows])[0])
    direct = [
        row
        for row in rows
        if row.against != results.baseline and (row.judge, row.decoding) == first
    ]
    body = [view.figures(captions)]
    if direct:
        body.append(win_rate_table(view, direct, "Compared directly"))
    body += [part for part in (order_table(view), training_table(view)) if part is not None]
    body.append(folded(f"All {len(rows)} win rates as a table", win_rate_table(view, rows, "All")))
    return Section(
        "win_rates",
        "Which model is preferred",
        "Fig. 1 and Fig. 3",
        f"A dot to the right of 50 % means that the judge prefers the model to {base}; if its "
        "whiskers reach 50 %, the difference may be chance.",
        join([element("dl", *described, class_="judges") if described else None, *body]),
    )


def win_rate_table(view: View, rows: list[WinRate], title: str) -> Html:
    """Win rates with both intervals, ties and consistency."""
    columns = ["model", "against", "judge", "answers", "preferred [bootstrap]", "at equal length"]
    columns += ["Wilson interval", "ties", "both orders agree"]

    def line(row: WinRate) -> list[str]:
        limits = interval(Estimate(row.value, row.wilson_low, row.wilson_high, row.n), SHARE)
        return [
            model_name(view.results, row.model),
            model_name(view.results, row.against),
            said(row.judge),
            said(row.decoding),
            cell(row.estimate, SHARE),
            cell(row.length_controlled, SHARE, with_n=False),
            limits + SHARE.suffix if limits else MISSING,
            written(row.ties, SHARE),
            written(row.order_consistency, SHARE),
        ]

    caption = (
        f"{title}: % of prompts; a tie counts half, and so does who wins in one order only. At "
        "equal length: what a regression on the difference of the lengths leaves to the model, as "
        "in AlpacaEval 2. 95 % intervals in brackets; n = prompts."
    )
    return table(caption, columns, [line(row) for row in rows])


def order_table(view: View) -> Html | None:
    """How far the order of two answers swayed those who see both."""
    rows: list[list[str]] = [
        [
            said(row.judge),
            said(row.decoding),
            cell(row.first_preferred, SHARE),
            cell(row.flips, SHARE, with_n=False),
            f"{row.unusable:,}",
        ]
        for row in view.results.showing_orders
    ]
    if not rows:
        return None
    columns = ["judge", "answers", "prefers what is shown first", "changes its mind", "no verdict"]
    caption = (
        "Each pair was shown in both orders: 50 % in the third column is a judge whom the order "
        "does not sway; the fourth is in how many pairs the other order had another winner. "
        "[95 % interval over prompts], n pairs; pairs without a verdict are left out."
    )
    return table(caption, columns, rows)


def training_table(view: View) -> Html | None:
    """What is known of two reward models that judge."""
    rows: list[list[str]] = [
        [
            said(name),
            one.started_from or MISSING,
            "; ".join(one.data) or MISSING,
            "; ".join(one.shares) or MISSING,
        ]
        for name, one in view.results.reward_models.items()
    ]
    if not rows:
        return None
    columns = ["", "started from", "trained on", "in common with the reward model"]
    caption = "The reward models, as far as their weights and their folders tell."
    return table(caption, columns, rows)


def trained(view: View) -> Section | None:
    """Every trained policy in a row."""
    results = view.results
    found = arms(results)
    if not found:
        return None
    base, judge = label(results, results.baseline), said(next(iter(results.judges), "the judge"))
    rows: list[list[str]] = [
        [
            model_name(results, arm.model),
            cell(arm.win_rate, SHARE),
            cell(arm.utility, SCORE),
            cell(arm.end.score, SCORE),
            written(arm.end.kl),
        ]
        for arm in found
    ]
    columns = [f"preferred to {base}", "true utility", "score of the reward model", "KL, nats"]
    caption = (
        f"Preference by {judge} and true utility of sampled answers; score, and KL from where the "
        "training started, of its last validation. [95 % interval], n prompts."
    )
    return Section(
        "trained",
        "What training came to",
        "none; it compares PPO and PPO-ptx without their KL",
        "Of two policies that are preferred as often, the one with the lower KL has gone less far "
        "from where it started, and has more of what it could do there.",
        table(caption, ["model", *columns], rows),
    )


def everything(found: Table) -> list[Estimate]:
    """All estimates of a table."""
    return [one for inner in found.values() for one in inner.values()]


def ns(found: list[Estimate], of: str) -> str:
    """How many cases stand behind estimates: ``n = 150 to 400 prompts``."""
    counts = sorted({one.n for one in found})
    if not counts:
        return "n not stated"
    span = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"
    return f"n = {span} {of} for each dot or bar"


def simple(
    part: str,
    read: Callable[[Results], Table],
    title: str,
    paper: str,
    reading: str,
    caption: str,
    of: str,
    over: str = BARS,
    unit: Unit = SHARE,
    models_down: bool = True,
) -> Make:
    """A maker of sections with one figure and one table of {model: {key: estimate}}.

    Args:
        part: the id and the name of the figure.
        read: the table.
        title: of the section.
        paper: the paper's counterpart.
        reading: one sentence on how to read it.
        caption: what the numbers are.
        of: what n counts.
        over: what the whiskers are over.
        unit: of the numbers.
        models_down: the table has a row for each model; otherwise for each key.
    """

    def make(view: View) -> Section | None:
        found = read(view.results)
        if not found:
            return None
        facts = [one.facts for one in everything(found) if one.facts is not None]
        cases = f"{of} about {max(facts)} facts" if facts else of
        text = f"In numbers, with [95 % interval] and n {cases}."
        numbers = by_model(view.results, found, text, unit, models_down)
        drawn = {part: f"{caption}; {ns(everything(found), cases)}. {over}"}
        kind = "figures" if models_down else "figures wide"
        body = view.figures(drawn, numbers, kind=kind)
        return Section(part, title, paper, reading, body)

    return make
