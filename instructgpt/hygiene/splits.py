"""Training, validation and test rows, by user (paper, section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from instructgpt.hygiene.base import Decision, GlobalRule, Keys, digest
from instructgpt.hygiene.clean_row import SPLITS, CleanRow
from instructgpt.hygiene.words import mixed
from instructgpt.types import UserError

OPEN = 255
"""Of rows whose file says nothing about their split."""

LEAKED = "prompt is in another split: {} stays"
TRAIN, VALIDATION, TEST = range(3)


@dataclass(frozen=True)
class Splits(GlobalRule):
    """No user and no prompt is in two splits: rows are split by a hash of user, else of prompt.

    What a folder of the input calls train, validation or test stays that. A prompt that users of
    two splits gave stays with the training rows.

    Args:
        validation: share of the users, else prompts, in validation.jsonl (demonstrations of the
            paper: 1,653 of 14,378 prompts, 11 %).
        test: share in test.jsonl (the paper: 3,196 prompts).
        seed: another seed holds out others.
    """

    validation: float = 0.1
    test: float = 0.05
    seed: int = 0

    name: ClassVar[str] = "splits"
    title: ClassVar[str] = "splits by user"

    def check_options(self, kind: str) -> None:
        """Refuse shares that leave nothing to train on."""
        for name, share in {"validation": self.validation, "test": self.test}.items():
            if not 0 <= share < 1:
                raise UserError(f"--splits.{name} must be from 0 to below 1, got {share}")
        if self.validation + self.test >= 1:
            both = f"{self.validation} + {self.test}"
            raise UserError(f"--splits.validation + --splits.test must be below 1, got {both}")

    def keys(self, rows: Sequence[CleanRow]) -> dict[str, np.ndarray]:
        """Whom a row goes with, its prompt, and the split that its file says."""
        names = [f"user {row.user}" if row.user else f"prompt {row.key}" for row in rows]
        given = [SPLITS.index(row.split) if row.split in SPLITS else OPEN for row in rows]
        return {
            "name": digest(names),
            "prompt": digest([row.key for row in rows]),
            "given": np.array(given, np.uint8),
        }

    def decide(self, keys: Keys, splits: np.ndarray) -> Decision:
        """Choose names below a threshold of their hash; a name stays where it is as data grow."""
        given, prompt = keys["given"], keys["prompt"]
        split = np.where(given == OPEN, TRAIN, given).astype(np.uint8)
        shares = [(TEST, self.test), (VALIDATION, self.validation)]
        # What a file gives need not be held out again.
        shares = [(one, share) for one, share in shares if share and not (given == one).any()]
        free = (given == OPEN) | (given == TRAIN)
        self._hold_out(split, free, keys["name"], shares)
        out = _leaked(split, prompt)
        reasons = tuple(LEAKED.format(name) for name in SPLITS)
        none = np.full(len(split), -1)
        by = "the files" if (given != OPEN).all() else "a hash of user, else prompt"
        counts = np.bincount(split[out < 0], minlength=3)
        sizes = ", ".join(f"{n:,} {name}" for n, name in zip(counts, SPLITS, strict=True))
        reason = np.maximum(out, 0).astype(np.uint8)
        return Decision(out >= 0, none, reasons, reason, (f"{sizes} rows, by {by}",), split)

    def _hold_out(
        self, split: np.ndarray, free: np.ndarray, name: np.ndarray, shares: list[tuple[int, float]]
    ) -> None:
        """Give free rows of chosen names another split; at least one name each, if there are."""
        names, inverse = np.unique(name[free], return_inverse=True)
        at = mixed(names, self.seed + 2).astype(np.float64) / 2.0**64
        chosen = np.full(len(names), TRAIN, np.uint8)
        low = 0.0
        for one, share in shares:
            chosen[(at >= low) & (at < low + share)] = one
            low += share
        for one in (TRAIN, *(one for one, _ in shares)):
            sizes = np.bincount(chosen, minlength=3)
            if not sizes[one] and sizes.max(initial=0) > 1:
                others = np.flatnonzero(chosen == sizes.argmax())
                chosen[others[np.argmin(at[others])]] = one
        split[free] = chosen[inverse]


def _leaked(split: np.ndarray, prompt: np.ndarray) -> np.ndarray:
    """The split that a row's prompt stays in instead, -1 where it stays in its own."""
    out = np.full(len(split), -1)
    for stays in (TRAIN, TEST):
        there = np.unique(prompt[split == stays])
        leaks = (split != stays) & (split != TRAIN) & (out < 0) & np.isin(prompt, there)
        out[leaks] = stays
    return out
