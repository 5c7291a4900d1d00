"""At most so many prompts a user (paper, section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from instructgpt.hygiene.base import Decision, GlobalRule, Keys, digest, keep_all
from instructgpt.hygiene.clean_row import CleanRow
from instructgpt.hygiene.words import mixed
from instructgpt.types import require


@dataclass(frozen=True)
class UserCap(GlobalRule):
    """Of a user with more prompts than that, the ones that stay are chosen by a hash of them.

    Args:
        most: prompts of one user (paper: 200); all rows of a prompt that stays stay.
    """

    most: int = 200

    name: ClassVar[str] = "users"
    title: ClassVar[str] = "prompts a user"

    def check_options(self, kind: str) -> None:
        """Refuse to keep no prompts of anybody."""
        require(self.most >= 1, "--users.most", ">= 1", self.most)

    def is_on(self, kind: str) -> bool:
        """Text has no users."""
        return kind != "text"

    def keys(self, rows: Sequence[CleanRow]) -> dict[str, np.ndarray]:
        """User (0 where it is not known) and prompt."""
        user = digest([row.user for row in rows])
        user[np.array([not row.user for row in rows])] = 0
        return {"user": user, "prompt": digest([row.key for row in rows])}

    def decide(self, keys: Keys, splits: np.ndarray) -> Decision:
        """Number each user's prompts in the order of their hash, and drop from ``most`` on."""
        user = keys["user"]
        known = int((user != 0).sum())
        who = f"{len(np.unique(user[user != 0])):,} users wrote {known:,} of {len(user):,} rows"
        notes = (who if known else f"none of {len(user):,} rows names its user",)
        if not known:
            return keep_all(len(user), notes)
        pairs = np.stack([user, mixed(keys["prompt"], 1)], axis=1)
        unique, inverse = np.unique(pairs, axis=0, return_inverse=True)  # sorted by user
        starts = np.r_[0, np.flatnonzero(unique[1:, 0] != unique[:-1, 0]) + 1]
        lengths = np.diff(np.r_[starts, len(unique)])
        place = np.arange(len(unique)) - np.repeat(starts, lengths)
        dropped = (place[inverse.reshape(-1)] >= self.most) & (user != 0)
        none = np.full(len(user), -1)
        reason = f"more than {self.most:,} prompts of one user"
        return Decision(dropped, none, (reason,), np.zeros(len(user), np.uint8), notes)
