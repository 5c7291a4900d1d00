"""Long-common-prefix deduplication of prompts (paper, section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from instructgpt.hygiene.base import Decision, GlobalRule, Keys, digest
from instructgpt.hygiene.clean_row import CleanRow
from instructgpt.types import require

SHARED = "shares its first {} characters with an earlier prompt"
ROW = "repeats an earlier row"
PROMPT = "repeats the prompt of an earlier row"


@dataclass(frozen=True)
class CommonPrefix(GlobalRule):
    """Of prompts that begin with the same characters the first stays; others are dropped.

    System turns do not count, nor does white space. Rows with exactly the prompt that stays are
    further answers to it (other responses, other labelers) and stay too; whole rows never repeat.

    Args:
        characters: a common prefix is long from so many characters on (the paper names no number);
            a shorter prompt is dropped only where it repeats one.
        one_row_a_prompt: drop further answers to a prompt as well.
    """

    characters: int = 200
    one_row_a_prompt: bool = False

    name: ClassVar[str] = "prefix"
    title: ClassVar[str] = "long common prefixes of prompts"

    def check_options(self, kind: str) -> None:
        """Refuse a prefix without a character."""
        require(self.characters >= 1, "--prefix.characters", ">= 1", self.characters)

    def is_on(self, kind: str) -> bool:
        """Text has no prompts."""
        return kind != "text"

    def keys(self, rows: Sequence[CleanRow]) -> dict[str, np.ndarray]:
        """The beginning, the prompt, and the whole row."""
        return {
            "prefix": digest([self._prefix(row) for row in rows]),
            "prompt": digest([row.key for row in rows]),
            "row": digest([_content(row) for row in rows]),
        }

    def _prefix(self, row: CleanRow) -> str:
        said = " ".join(row.asked.split())
        if len(said) < self.characters:
            return f"whole {row.key}"
        return f"begin {said[: self.characters]}"

    def decide(self, keys: Keys, splits: np.ndarray) -> Decision:
        """The first of each group stays, in the order of the input."""
        prompt = keys["prompt"]
        of_prefix, of_row = first_with(keys["prefix"]), first_with(keys["row"])
        own = np.arange(len(prompt))
        shared = prompt != prompt[of_prefix]
        again = ~shared & (of_row != own)
        repeated = (
            ~shared & ~again & (of_prefix != own) if self.one_row_a_prompt else np.zeros_like(again)
        )
        dropped = shared | again | repeated
        because = np.where(again, of_row, of_prefix)
        reason = np.where(shared, 0, np.where(again, 1, 2)).astype(np.uint8)
        reasons = (SHARED.format(self.characters), ROW, PROMPT)
        return Decision(dropped, np.where(dropped, because, -1), reasons, reason)


def first_with(values: np.ndarray) -> np.ndarray:
    """For each entry, the place of the first entry with its value.

    >>> first_with(np.array([7, 5, 7, 5])).tolist()
    [0, 1, 0, 1]
    """
    _, first, inverse = np.unique(values, return_index=True, return_inverse=True)
    return first[inverse]


def _content(row: CleanRow) -> str:
    return repr((row.kind, row.key, row.text, row.responses, row.ranking, row.labeler))
