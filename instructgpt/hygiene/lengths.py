"""Limits on the length of prompts and responses (paper, appendix C)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

from instructgpt.hygiene.base import RowRule, Verdict
from instructgpt.hygiene.clean_row import CleanRow
from instructgpt.hygiene.responses import without
from instructgpt.types import require

PER_TOKEN = 4
"""Characters that count as a token where there is no tokenizer, about right for English."""


@dataclass(frozen=True)
class LengthLimits(RowRule):
    """Prompts and responses within limits; a response outside of them leaves its comparison.

    Args:
        least_prompt: tokens.
        most_prompt: tokens (paper: 1024).
        least_response: tokens.
        most_response: tokens (paper: 1024).
        tokenizer: folder or hub id of what counts tokens; default: a token is 4 characters.
    """

    least_prompt: int = 1
    most_prompt: int = 1024
    least_response: int = 1
    most_response: int = 1024
    tokenizer: str | None = None

    name: ClassVar[str] = "lengths"
    title: ClassVar[str] = "lengths"

    def check_options(self, kind: str) -> None:
        """Refuse limits that nothing meets, and a tokenizer that is not there."""
        for what in ("prompt", "response"):
            least, most = getattr(self, f"least_{what}"), getattr(self, f"most_{what}")
            require(least >= 0, f"--lengths.least_{what}", ">= 0", least)
            require(most >= least, f"--lengths.most_{what}", f">= least_{what} ({least})", most)
        if self.tokenizer is not None:
            _tokenizer(self.tokenizer)

    def is_on(self, kind: str) -> bool:
        """Text may be as long as it is: it is cut into blocks."""
        return kind != "text"

    def made_from(self) -> list[str]:
        """The tokenizer."""
        return [] if self.tokenizer is None else [self.tokenizer]

    def check(self, row: CleanRow) -> Verdict:
        """Drop a row for its prompt, and responses for their own length."""
        if reason := self._outside("prompt", "\n\n".join(row.texts[: len(row.messages)])):
            return Verdict(None, (reason,))
        reasons = [self._outside("response", one) for one in row.responses]
        if not any(reasons):
            return Verdict(row)
        left = without(row, [bool(one) for one in reasons])
        first = next(i for i, one in enumerate(reasons) if one)
        told = tuple(dict.fromkeys(one for one in reasons if one))
        return Verdict(left, told, row.responses[first])

    def _outside(self, what: str, text: str) -> str:
        """Why a text is outside the limits, or ""."""
        tokens = count(text, self.tokenizer)
        least, most = getattr(self, f"least_{what}"), getattr(self, f"most_{what}")
        unit = "tokens" if self.tokenizer else f"tokens of {PER_TOKEN} characters"
        if tokens < least:
            return f"{what} of fewer than {least:,} {unit}"
        return f"{what} of more than {most:,} {unit}" if tokens > most else ""


def count(text: str, tokenizer: str | None) -> int:
    """Tokens of a text.

    Args:
        text: any.
        tokenizer: that counts; None: by characters.

    >>> count("a text of 24 characters.", None)
    6
    """
    if tokenizer is None:
        return -(-len(text.strip()) // PER_TOKEN)
    return len(_tokenizer(tokenizer)(text, add_special_tokens=False)["input_ids"])


@lru_cache(maxsize=1)
def _tokenizer(source: str) -> Any:
    from instructgpt.models.tokenizer import load_tokenizer

    return load_tokenizer(source)
