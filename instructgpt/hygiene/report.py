"""The report of a preparation, as JSON data and as lines for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from instructgpt.data.summary import Summary
from instructgpt.hygiene.account import Account, Outcome, merged
from instructgpt.hygiene.balance import SourceMixture
from instructgpt.hygiene.clean_row import SPLITS
from instructgpt.hygiene.lengths import PER_TOKEN
from instructgpt.hygiene.reading import about
from instructgpt.hygiene.recipe import Cleaning
from instructgpt.hygiene.steps import DECISION, stage_of
from instructgpt.hygiene.use_cases import PAPER, of_paper
from instructgpt.hygiene.work import RAW, Work

Report = Mapping[str, Any]


def report_of(work: Work, recipe: Cleaning, names: Sequence[str]) -> dict[str, Any]:
    """All that was counted.

    Args:
        work: folder of the preparation.
        recipe: what was done.
        names: of the input.
    """
    cut = work.read_json(RAW, "all")
    shards = [f"{number:05d}" for number in range(cut["shards"])]
    summary, parts = Summary(), list[list[Any]]()
    for note in cut["notes"]:
        summary.note(note)
    for number in range(len(recipe.passes)):
        parts.append([work.read_json(stage_of(number), shard) for shard in shards])
    told: set[str] = set()
    for one in parts[0]:
        part = Summary.from_json(one["summary"])
        # A column that is left out is told by each part.
        part.notes = [line for line in part.notes if about(line) not in told]
        told |= {about(line) for line in part.notes}
        summary.merge(part)
    outcome = Outcome()
    for one in parts[-1]:
        outcome.merge(Outcome(**one["outcome"]))
    accounts = _accounts(work, recipe, parts)
    checked = sum(one["came"] for one in parts[0])
    return {
        "title": f"Preparation of {recipe.wish.kind}",
        "kind": recipe.wish.kind,
        "input": list(names),
        "rows": {
            "read": cut["rows"],
            "not read (bad, or marked as not to be used)": summary.skipped.count
            + sum(noted.count for noted in summary.dropped.values()),
            "checked": checked,
            "written": sum(outcome.rows.values()),
        },
        "reading": [*summary.reading(), *summary.all_notes()],
        "rules": [_rule(recipe, place, accounts.get(place)) for place in range(len(recipe.rules))],
        "outcome": _outcome(outcome),
        "use_cases": use_cases(outcome.use_cases),
        "mixed": _mixed(recipe, accounts),
    }


def _accounts(work: Work, recipe: Cleaning, parts: list[list[Any]]) -> dict[int, Account]:
    accounts: dict[int, Account] = {}
    for number, own in enumerate(recipe.passes):
        for place in own.each:
            accounts[place] = merged(part["rules"][str(place)] for part in parts[number])
        if own.every:
            decided = work.read_json(stage_of(number), DECISION)
            accounts |= {place: Account.from_json(decided[str(place)]) for place in own.every}
    return accounts


def _rule(recipe: Cleaning, place: int, account: Account | None) -> dict[str, Any]:
    rule = recipe.rules[place]
    again = any(one.name == rule.name for one in recipe.rules[:place])
    known = account or Account()
    came, dropped = sum(known.came.values()), sum(known.dropped.values())
    return {
        "name": rule.name,
        "title": rule.title + (" (again, now that personal data are masked)" if again else ""),
        "on": account is not None,
        "options": rule.options(),
        "rows": {
            "came": came,
            "dropped": dropped,
            "changed": sum(known.changed.values()),
            "left": came - dropped,
        },
        "splits": {
            split: {
                "came": n,
                "dropped": known.dropped.get(split, 0),
                "changed": known.changed.get(split, 0),
            }
            for split, n in sorted(known.came.items())
            if split
        },
        "reasons": dict(sorted(known.reasons.items(), key=lambda pair: (-pair[1], pair[0]))),
        "examples": {
            reason: [asdict(one) for one in some] for reason, some in known.examples.items()
        },
        "notes": known.notes,
    }


def _outcome(outcome: Outcome) -> dict[str, Any]:
    return {
        "rows": {split: outcome.rows.get(split, 0) for split in SPLITS},
        "characters": {split: outcome.characters.get(split, 0) for split in SPLITS},
        "sources": dict(sorted(outcome.sources.items(), key=lambda pair: (-pair[1], pair[0]))),
        "lengths": {
            "unit": f"tokens of {PER_TOKEN} characters; from the power of two that is the key",
            **{
                what: {str(2 ** int(size)): n for size, n in sorted(table.items(), key=_size)}
                for what, table in outcome.lengths.items()
            },
        },
    }


def _size(pair: tuple[str, int]) -> int:
    return int(pair[0])


def use_cases(found: Mapping[str, int]) -> dict[str, Any]:
    """Shares of the use cases, with those of the paper's Table 1 beside.

    Args:
        found: rows by the name in the data.
    """
    total = sum(found.values())
    rows: list[dict[str, Any]] = []
    for name, n in sorted(found.items(), key=lambda pair: (-pair[1], pair[0])):
        of = of_paper(name)
        rows.append(
            {
                "name": name,
                "paper_name": of,
                "rows": n,
                "share": round(n / total, 6),
                "paper_share": PAPER.get(of),
            }
        )
    missing = [one for one in PAPER if one not in {row["paper_name"] for row in rows}]
    rows += [
        {"name": "", "paper_name": one, "rows": 0, "share": 0.0, "paper_share": PAPER[one]}
        for one in missing
        if total
    ]
    return {"rows": total, "classes": rows}


def _mixed(recipe: Cleaning, accounts: Mapping[int, Account]) -> dict[str, int]:
    """Training rows of each source before the mixture, so that a second one starts from them."""
    for place, account in accounts.items():
        if isinstance(rule := recipe.rules[place], SourceMixture):
            return {**account.counts, **(rule.sizes or {})}
    return {}


def lines_of(report: Report) -> list[str]:
    """What is printed.

    Args:
        report: of a preparation.
    """
    rows = report["rows"]
    lines = [f"prepare: {rows['read']:,} rows read, {rows['written']:,} written"]
    lines += [f"  {line}" for line in report["reading"]]
    for rule in report["rules"]:
        if not rule["on"]:
            lines.append(f"  {rule['title']}: off")
            continue
        own = rule["rows"]
        changed = f", {own['changed']:,} changed" if own["changed"] else ""
        lines.append(
            f"  {rule['title']}: {own['dropped']:,} of {own['came']:,} rows dropped{changed}"
        )
        lines += [f"    {n:,} {reason}" for reason, n in list(rule["reasons"].items())[:5]]
        lines += [f"    {note}" for note in rule["notes"][:5]]
    found = report["outcome"]["rows"]
    return [*lines, "  " + ", ".join(f"{n:,} rows in {split}" for split, n in found.items())]
