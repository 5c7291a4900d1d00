"""The table of claims, and the paragraph that sums it up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from instructgpt.evaluation.report.estimates import (
    MISSING,
    SHARE,
    count,
    estimate,
    interval,
    written,
)
from instructgpt.evaluation.report.layout import Section, View, badge, tied
from instructgpt.evaluation.report.markup import Html, element, join
from instructgpt.evaluation.report.reading import Results, safe

COLUMNS = ("Claim", "Paper", "Here", "95 % interval", "Verdict")
OWN = "our own check, not in the paper"


def with_verdict(results: Results, verdict: str) -> list[Mapping[str, Any]]:
    """Claims with this verdict."""
    return [row for row in results.get("claims", []) if row.get("verdict") == verdict]


def summary(results: Results) -> Html | None:
    """How many claims hold, in words; None where no claim was computed.

    Args:
        results: with the claims.
    """
    if not results.get("claims"):
        return None
    holds, fails = (len(with_verdict(results, v)) for v in ("holds", "does not hold"))
    judged, others = holds + fails, len(results["claims"]) - holds - fails
    if not judged:
        text = f"{others} claims are shown; none was judged in this run."
        return element("p", text, class_="lede")
    verdicts = ("holds", "does not hold")
    own = sum(bool(row.get("own")) for v in verdicts for row in with_verdict(results, v))
    text = f"Of {judged} claims judged ({judged - own} of them the paper's), {holds} "
    text += f"{'holds' if holds == 1 else 'hold'} here and {fails} "
    text += "does not." if fails == 1 else "do not."
    if others:
        text += f" {others} more {'is' if others == 1 else 'are'} shown without a verdict."
    if not fails:
        return element("p", text, class_="lede")
    missed = [
        join([link(row), f" ({OWN})" if row.get("own") else None])
        for row in with_verdict(results, "does not hold")
    ]
    return element("p", text, " What does not: ", join(missed, "; "), ".", class_="lede")


def link(claim: Mapping[str, Any]) -> Html:
    """A claim that leads to its row."""
    return element("a", str(claim.get("claim")), href=f"#claim-{safe(str(claim.get('id')))}")


def limits(claim: Mapping[str, Any]) -> Html:
    """The interval of a claim, in percent, and n; a difference has its value in front."""
    found = estimate(claim)
    text = interval(found, SHARE)
    if text and claim.get("difference"):
        text = f"{written(found.value, SHARE, suffix=False)} {text} points"
    elif text:
        text += SHARE.suffix
    known = f"n\u00a0=\u00a0{count(found.n)} {claim.get('of') or ''}".rstrip()
    return join([text or MISSING, element("small", known) if found.n == found.n else None], " ")


def row_of(claim: Mapping[str, Any]) -> Html:
    """One claim; on a narrow page its cells stand below each other with their labels."""
    verdict = str(claim.get("verdict"))
    paper, here = tied(str(claim.get("paper"))), tied(str(claim.get("here")))
    cells = (paper, here, limits(claim), badge(verdict))
    about = element("small", tied(f"Rule: {claim.get('rule')}"))
    own = element("small", f"({OWN})") if claim.get("own") else None
    section = claim.get("section")
    text = tied(str(claim.get("claim")))
    if section:
        text = element("a", text, href=f"#{safe(str(section))}")
    return element(
        "tr",
        element("th", text, own, about, scope="row"),
        *(
            element("td", element("span", value), data_label=name)
            for name, value in zip(COLUMNS[1:], cells, strict=True)
        ),
        id=f"claim-{safe(str(claim.get('id')))}",
        class_="fails" if verdict == "does not hold" else None,
    )


def claims_section(view: View) -> Section | None:
    """Claim, the paper's number, what was measured here, its interval and the verdict."""
    claims = view.results.get("claims")
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
    found = [row for row in results.get("claims", []) if row.get("section") == section]
    if not found:
        return None
    items = [
        element(
            "li",
            badge(str(row.get("verdict"))),
            link(row),
            element("small", f" ({OWN})") if row.get("own") else None,
        )
        for row in found
    ]
    return element("ul", *items, class_="judged")
