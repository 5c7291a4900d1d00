"""The report of a preparation as a page that needs nothing beside itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from instructgpt.evaluation.report.drawing import draw
from instructgpt.evaluation.report.estimates import MISSING
from instructgpt.evaluation.report.layout import Section, folded, table, tied
from instructgpt.evaluation.report.markup import Html, element, join
from instructgpt.evaluation.report.page import card, links, whole_page
from instructgpt.hygiene.clean_row import SPLITS
from instructgpt.hygiene.figures import figures_of
from instructgpt.hygiene.report import Report
from instructgpt.models.folder import write_bytes

PAPER = {
    "prefix": "prompts that share a long common prefix are dropped (section 3.2)",
    "users": "at most 200 prompts a user (section 3.2)",
    "splits": "train, validation and test are split by user (section 3.2)",
    "personal": "prompts of the training split are filtered for personal data (section 3.2)",
    "lengths": "prompts and responses of at most 1,024 tokens (appendix C)",
}


def write_page(report: Report, folder: Path) -> None:
    """Write report.html.

    Args:
        report: of a preparation.
        folder: to write into.
    """
    pictures = {name: draw(name, figure)[0] for name, figure in figures_of(report).items()}
    write_bytes(folder / "report.html", page_of(report, pictures).encode())


def page_of(report: Report, pictures: Mapping[str, Html]) -> str:
    """The whole page.

    Args:
        report: of a preparation.
        pictures: figures as SVG.
    """
    sections = [
        overview(report, pictures),
        *(rule_section(rule) for rule in report["rules"] if rule["on"]),
        written(report, pictures),
        reading(report),
    ]
    header = element(
        "header",
        element("h1", report["title"]),
        element("p", f"Made of {', '.join(report['input'])}.", class_="lede"),
        facts(report),
        links(sections),
    )
    footer = (
        "Made by instructgpt, after Ouyang et al. 2022 (arXiv:2203.02155), appendix A. The numbers "
        "are in report.json. Personal data that the rule knows are masked in all examples."
    )
    main = element("main", *(card(one, None) for one in sections))
    return whole_page(report["title"], header, main, footer)


def facts(report: Report) -> Html:
    """The preparation in a few numbers."""
    rows, out = report["rows"], report["outcome"]["rows"]
    known = {"rows read": rows["read"], "rows written": rows["written"]}
    known |= {f"in {split}": n for split, n in out.items()}
    cells = [
        element("div", element("dt", name), element("dd", f"{n:,}")) for name, n in known.items()
    ]
    return element("dl", *cells, class_="facts")


def overview(report: Report, pictures: Mapping[str, Html]) -> Section:
    """All rules in one table."""
    rows = []
    for rule in report["rules"]:
        own = rule["rows"]
        if not rule["on"]:
            rows.append([rule["title"], "off", "", "", ""])
            continue
        counts = [f"{own[key]:,}" for key in ("came", "dropped", "changed", "left")]
        counts[1] += share(own["dropped"], own["came"])
        counts[2] += share(own["changed"], own["came"])
        rows.append([rule["title"], *counts])
    heads = ["rule", "rows that came", "dropped", "changed", "left"]
    found = table(
        "Rows at each rule, in their order; shares are of the rows that came.", heads, rows
    )
    reading = "Each rule sees the rows that the rules above it have left."
    body = element("div", found, figure(pictures, "rows"))
    return Section("rules", "Rules", "", reading, body)


def rule_section(rule: Mapping[str, Any]) -> Section:
    """What one rule did."""
    parts: list[Html | None] = []
    if rule["reasons"]:
        came = rule["rows"]["came"]
        cells = [[why, f"{n:,}{share(n, came)}"] for why, n in rule["reasons"].items()]
        caption = f"Reasons; a row may have several; shares are of {came:,} rows that came."
        parts.append(table(caption, ["reason", "rows"], cells))
    if rule["splits"]:
        names = [split for split in SPLITS if split in rule["splits"]]
        splits = [
            [split, *(f"{rule['splits'][split][key]:,}" for key in ("came", "dropped", "changed"))]
            for split in names
        ]
        parts.append(table("Rows by split.", ["split", "came", "dropped", "changed"], splits))
    parts += [element("p", tied(note)) for note in rule["notes"][:12]]
    if len(rule["notes"]) > 12:
        rest = [element("p", tied(note)) for note in rule["notes"][12:]]
        parts.append(folded(f"{len(rest)} more notes", *rest))
    for reason, some in rule["examples"].items():
        parts.append(folded(f"Examples: {reason}", *map(example, some)))
    options = json.dumps(rule["options"], indent=1, ensure_ascii=False)
    parts.append(folded("Options", element("div", element("pre", options), class_="run")))
    own = rule["rows"]
    reading = (
        f"{own['dropped']:,} of {own['came']:,} rows dropped{share(own['dropped'], own['came'])}, "
        f"{own['changed']:,} changed."
    )
    name = f"rule-{rule['name']}" + ("-again" if "again" in rule["title"] else "")
    title = rule["title"][:1].upper() + rule["title"][1:]
    return Section(name, title, PAPER.get(rule["name"], ""), reading, join(parts))


def example(one: Mapping[str, str]) -> Html:
    """A row that was dropped or changed."""
    stays = None
    if one["stays"]:
        stays = element("p", element("small", f"stays: {one['stays']}"))
    instead = element("pre", one["instead"]) if one["instead"] else None
    heading = element("p", element("small", one["place"]))
    answers = [element("div", heading, element("pre", one["text"]), class_="answer")]
    if instead is not None:
        answers.append(
            element(
                "div", stays or element("p", element("small", "is now")), instead, class_="answer"
            )
        )
    return element("div", element("div", *answers, class_="answers"), class_="sample")


def written(report: Report, pictures: Mapping[str, Html]) -> Section:
    """What is in the files."""
    outcome, parts = report["outcome"], []
    rows = [
        [split, f"{n:,}", f"{outcome['characters'][split]:,}"]
        for split, n in outcome["rows"].items()
    ]
    parts.append(table("What is written.", ["split", "rows", "characters"], rows))
    if len(outcome["sources"]) > 1:
        total = sum(outcome["sources"].values())
        counts = outcome["sources"].items()
        sources = [[one or MISSING, f"{n:,}{share(n, total)}"] for one, n in counts]
        parts.append(
            table(f"Training rows by source (n = {total:,}).", ["source", "rows"], sources)
        )
    found = report["use_cases"]
    if found["rows"]:
        cells = [
            [
                one["name"] or MISSING,
                one["paper_name"] or MISSING,
                f"{one['rows']:,}",
                f"{100 * one['share']:.1f} %",
                MISSING if one["paper_share"] is None else f"{100 * one['paper_share']:.1f} %",
            ]
            for one in found["classes"]
        ]
        caption = f"Use cases (n = {found['rows']:,} rows), and the paper's prompts (Table 1)."
        heads = ["use case", "in the paper", "rows", "share", "share in the paper"]
        parts.append(table(caption, heads, cells))
    drawn = element(
        "div", *(figure(pictures, name) for name in ("lengths", "use_cases")), class_="figures"
    )
    return Section(
        "written", "What is written", "", "Rows behind all rules.", join([*parts, drawn])
    )


def figure(pictures: Mapping[str, Html], name: str) -> Html | None:
    """A figure, where there is one."""
    return element("figure", pictures[name], id=f"figure-{name}") if name in pictures else None


def reading(report: Report) -> Section:
    """What was read, and what each column was used as."""
    text = "\n".join(report["reading"])
    body = element("div", element("pre", text), class_="run")
    return Section("reading", "What was read", "", "Files, formats and columns.", body)


def share(n: int, of: int) -> str:
    """A share behind a number."""
    return f" ({100 * n / of:.1f} %)" if of and n else ""
