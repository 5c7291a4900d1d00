"""What a preparation does: its rules in order, in as few passes over the rows as they allow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from instructgpt.hygiene.base import GlobalRule, RowRule, Rule
from instructgpt.hygiene.personal import PersonalData
from instructgpt.hygiene.prefix import CommonPrefix
from instructgpt.hygiene.reading import RowKind
from instructgpt.hygiene.splits import Splits

Write = Literal["jsonl", "parquet"]

VERSION = 1
"""Of what rules do with the same options: output of another version is not up to date."""


class Pass(NamedTuple):
    """What happens to rows between two files: rules on each, then rules on all; places of both."""

    each: tuple[int, ...]
    every: tuple[int, ...]


@dataclass(frozen=True)
class Cleaning:
    """A preparation, but for its input.

    Args:
        wish: what rows are read as.
        rules: in order; those that have nothing to do are here, too, for the report.
        write: format of the output.
    """

    wish: RowKind
    rules: tuple[Rule, ...]
    write: Write

    @property
    def on(self) -> list[int]:
        """Places of the rules that have something to do."""
        return [i for i, rule in enumerate(self.rules) if rule.is_on(self.wish.kind)]

    @property
    def passes(self) -> list[Pass]:
        """A pass ends behind rules on all rows where a rule on each follows; the last writes."""
        found: list[Pass] = []
        each: list[int] = []
        every: list[int] = []
        for place in self.on:
            if isinstance(self.rules[place], RowRule):
                if every:
                    found.append(Pass(tuple(each), tuple(every)))
                    each, every = [], []
                each.append(place)
            else:
                every.append(place)
        found.append(Pass(tuple(each), tuple(every)))
        return [*found, Pass((), ())] if every else found

    def row_rule(self, place: int) -> RowRule:
        """A rule on each row."""
        rule = self.rules[place]
        assert isinstance(rule, RowRule)
        return rule

    def global_rule(self, place: int) -> GlobalRule:
        """A rule on all rows."""
        rule = self.rules[place]
        assert isinstance(rule, GlobalRule)
        return rule

    @property
    def mask(self) -> Callable[[str], str]:
        """What takes personal data out of the report, whatever is done to the rows."""
        found = (rule for rule in self.rules if isinstance(rule, PersonalData))
        return next(found, PersonalData()).mask

    def facts(self) -> dict[str, Any]:
        """What the output depends on besides the input."""
        rules = [[type(rule).__name__, rule.options()] for rule in self.rules]
        sources = sorted({one for place in self.on for one in self.rules[place].made_from()})
        return {
            "version": VERSION,
            "kind": self.wish.kind,
            "on_error": self.wish.on_error,
            "reading": repr(self.wish.reading),
            "write": self.write,
            "rules": rules,
            "on": self.on,
            "made_from": sources,
        }


def in_order(rules: Sequence[Rule], skip: Sequence[str]) -> tuple[Rule, ...]:
    """The rules as they are applied: where personal data are masked, prompts may become the same.

    Args:
        rules: in the order of the report.
        skip: names of rules that are left out.
    """
    kept = [rule for rule in rules if rule.name not in skip]
    masks = [isinstance(rule, PersonalData) and rule.action == "mask" for rule in kept]
    masking = masks.index(True) if any(masks) else None
    if masking is None:
        return tuple(kept)
    again = [rule for rule in kept[:masking] if isinstance(rule, CommonPrefix | Splits)]
    return (*kept[: masking + 1], *again, *kept[masking + 1 :])
