"""Responses that nobody should imitate: empty, refusing, or marked as unsafe."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

from instructgpt.data.opening import raw_lines, text_of
from instructgpt.hygiene.base import RowRule, Verdict
from instructgpt.hygiene.clean_row import CleanRow
from instructgpt.hygiene.responses import without
from instructgpt.types import UserError

FLAGS = {"flagged": True, "unsafe": True, "toxic": True, "harmful": True}
FLAGS |= {"is_safe": False, "safe": False}
"""Columns that data sets mark unsafe rows with, and what they say of such a row."""

SHORT = 60
"""A longer response (words) does more than refuse."""

_REFUSAL = re.compile(
    r"""
    \W* (?: (?:i (?:'m|\ am)\ )? (?:very\ |so\ |really\ )? sorry\b .{0,40}? )? \b
    (?: as\ an?\ (?: ai | artificial | language\ model | virtual\ assistant )
      | i (?:'m|\ am)\ (?: not\ able | unable | not\ programmed | just\ an\ ai )
      | i\ (?: can(?:no|')t | can\ not | won't | will\ not | do(?:n't|\ not)\ feel\ comfortable )
        (?:\ \w+)?
        \ (?: help | assist | answer | provide | do | fulfil | comply | create | write | discuss
            | engage | support | give | generate | continue | participate | condone )
      | i\ must\ (?: decline | refuse )
    )
    """,
    re.IGNORECASE | re.DOTALL | re.VERBOSE,
)


@dataclass(frozen=True)
class UnsafeResponses(RowRule):
    """Take out responses that are empty, only refuse, or are marked as unsafe.

    A comparison needs bad responses: it loses those that are empty, and is dropped if the one that
    is ranked best is refusing or unsafe.

    Args:
        empty: take out responses of white space and punctuation only.
        refusals: take out those that only refuse ("As an AI, I cannot …", below 60 words).
        flags: metadata columns that mark a row as unsafe, or each of its responses, and what they
            say of unsafe ones; also looked for inside a column ``flags``.
        words: file of words, one a line; a response with one of them, in whatever capitals, is
            unsafe.
    """

    name: ClassVar[str] = "responses"
    title: ClassVar[str] = "unsafe or empty responses"

    empty: bool = True
    refusals: bool = False
    flags: dict[str, bool] | None = field(default_factory=FLAGS.copy)
    words: str | None = None

    def check_options(self, kind: str) -> None:
        """Read the list of words."""
        if self.words:
            _pattern(self.words)

    def made_from(self) -> list[str]:
        """The list of words."""
        return [self.words] if self.words else []

    def check(self, row: CleanRow) -> Verdict:
        """Drop it, or the responses of a comparison that are empty."""
        if row.kind == "text":
            empty = self.empty and _is_empty(row.text)
            return Verdict(None, ("empty",)) if empty else self._judge(row, [row.text])
        bad = [self.empty and _is_empty(text) for text in row.responses]
        left = without(row, bad) if any(bad) else row
        if left is None:
            return Verdict(None, ("empty",))
        verdict = self._judge(left, left.responses)
        return Verdict(left, ("empty",)) if verdict.row is not None and any(bad) else verdict

    def _judge(self, row: CleanRow, judged: Sequence[str]) -> Verdict:
        best = min(range(len(judged)), key=row.ranking.__getitem__) if row.ranking else 0
        if column := _unsafe_by(row.meta, self.flags or {}, best, len(judged)):
            return Verdict(None, (f"marked by {column}",))
        if not judged or (row.ranking and min(row.ranking) > 1):  # judged alone, and as bad
            return Verdict(row)
        text = judged[best]
        if self.words and (found := _pattern(self.words).search(text)):
            return Verdict(None, ("word of the list",), text[max(0, found.start() - 60) :][:120])
        if (
            self.refusals
            and len(text.split()) < SHORT
            and _REFUSAL.match(text.replace("\u2019", "'"))
        ):
            return Verdict(None, ("refusal",), text)
        return Verdict(row)


def _is_empty(text: str) -> bool:
    """Whether nothing in it is a letter, a number or a symbol, such as an emoji."""
    return all(unicodedata.category(sign)[0] in "PZC" for sign in text)


def _unsafe_by(meta: Mapping[str, Any], flags: Mapping[str, bool], best: int, count: int) -> str:
    """The column that marks a row as unsafe, or its best response; "" if none does."""
    inside = meta.get("flags")
    for column, unsafe in flags.items():
        for place in (meta, inside if isinstance(inside, dict) else {}):
            value = place.get(column)
            if isinstance(value, list) and len(value) == count > 0:
                value = value[best]
            if isinstance(value, bool | int) and value in (0, 1) and bool(value) is unsafe:
                return column
    return ""


@lru_cache(maxsize=4)
def _pattern(path: str) -> re.Pattern[str]:
    words = set()
    for where, line in raw_lines(Path(path)):
        if isinstance(line, UserError):
            raise line
        words.add(text_of(where, line).strip())
    listed = sorted(words - {""}, key=len, reverse=True)
    if not listed:
        raise UserError(f"--responses.words: {path} must hold words, one a line, got none")
    return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, listed))})(?!\w)", re.IGNORECASE)
