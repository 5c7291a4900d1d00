"""The table of claims, and the paragraph that sums it up."""

from __future__ import annotations

import math

from instructgpt.evaluation.report.estimates import (
    MISSING,
    SHARE,
    count,
    interval,
    written,
)
from instructgpt.evaluation.report.layout import Section, View, badge, tied
from instructgpt.evaluation.report.markup import Html, element, join
from instructgpt.evaluation.report.reading import safe
from instructgpt.evaluation.results import Claim, Results, Verdict
from instructgpt.evaluation.statistics import Estimate

COLUMNS = ("Claim", "Paper", "Here", "95 % interval", "Verdict")
OWN = "our own check, not in the paper"


def with_verdict(results: Results, verdict: Verdict) -> list[Claim]:
    """Claims with this verdict."""
    return [row for row in results.claims if row.verdict == verdict]


def summary(results: Results) -> Html | None:
    """How many claims hold, in words; None where no claim was computed.

    Args:
        results: with the claims.
    """
    if not results.claims:
        return None
    kept, missed = with_verdict(results, "holds"), with_verdict(results, "does not hold")
    holds, fails = len(kept), len(missed)
    judged, others = holds + fails, len(results.claims) - holds - fails
    if not judged:
        text = f"{others} claims are shown; none was judged in this run."
        return element("p", text, class_="lede")
    own = sum(row.own for row in (*kept, *missed))
    text = f"Of {judged} claims judged ({judged - own} of them the paper's), {holds} "
    text += f"{'holds' if holds == 1 else 'hold'} here and {fails} "
    text += "does not." if fails == 1 else "do not."
    if others:
        text += f" {others} more {'is' if others == 1 else 'are'} shown without a verdict."
    if not fails:
        return element("p", text, class_="lede")
    links = [join([link(row), f" ({OWN})" if row.own else None]) for row in missed]
    return element("p", text, " What does not: ", join(links, "; "), ".", class_="lede")


def link(claim: Claim) -> Html:
    """A claim that leads to its row."""
    return element("a", claim.claim, href=f"#claim-{safe(claim.id)}")


def limits(claim: Claim) -> Html:
    """The interval of a claim, in percent, and n; a difference has its value in front."""
    if claim.n is None:
        return Html(MISSING)
    value, low, high = (
        math.nan if one is None else one for one in (claim.value, claim.low, claim.high)
    )
    found = Estimate(value, low, high, claim.n)
    text = interval(found, SHARE)
    if text and claim.difference:
        text = f"{written(found.value, SHARE, suffix=False)} {text} points"
    elif text:
        text += SHARE.suffix
    known = f"n\u00a0=\u00a0{count(claim.n)} {claim.of}".rstrip()
    return join([text or MISSING, element("small", known)], " ")


def row_of(claim: Claim) -> Html:
    """One claim; on a narrow page its cells stand below each other with their labels."""
    cells = (tied(claim.paper), tied(claim.here), limits(claim), badge(claim.verdict))
    about = element("small", tied(f"Rule: {claim.rule}"))
    own = element("small", f"({OWN})") if claim.own else None
    text = element("a", tied(claim.claim), href=f"#{safe(claim.section)}")
    return element(
        "tr",
        element("th", text, own, about, scope="row"),
        *(
            element("td", element("span", value), data_label=name)
            for name, value in zip(COLUMNS[1:], cells, strict=True)
        ),
        id=f"claim-{safe(claim.id)}",
        class_="fails" if claim.verdict == "does not hold" else None,
    )


def claims_section(view: View) -> Section | None:
    """Claim, the paper's number, what was measured here, its interval and the verdict."""
    claims = view.results.claims
    if not claims:
        return None
    head = element("tr", *(element("th", name, scope="col") for name in COLUMNS))
    body = element(
        "table",
        element("thead", head),
        element("tbody", *(row_of(claim) for claim in claims)),
        class_="claims",
    )
    return Section(
        "claims",
        "Claims",
        "the section, table or figure is named beside the paper's number",
        "Each row puts a claim, with the paper's number, beside what was measured here; the rule "
        "says what makes it hold. A rule that names no interval asks for the measured value alone, "
        "and n counts what the interval is over. Where that is of a difference, the value of the "
        "difference stands before it, in points.",
        body,
    )


def judged_here(results: Results, section: str) -> Html | None:
    """The claims that a section is about, with their verdicts."""
    found = [row for row in results.claims if row.section == section]
    if not found:
        return None
    items = [
        element(
            "li",
            badge(row.verdict),
            link(row),
            element("small", f" ({OWN})") if row.own else None,
        )
        for row in found
    ]
    return element("ul", *items, class_="judged")
