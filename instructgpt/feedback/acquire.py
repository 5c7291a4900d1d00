"""The options of choosing what people rank; nothing that takes long to import."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

By = Literal["random", "closeness", "disagreement"]


@dataclass(frozen=True)
class Acquire:
    """Which prompts people rank, where not all of them.

    Args:
        rows: so many prompts are chosen; null: all, in their order.
        by: at random, which is hard to beat; by closeness of the scores of their responses, which
            also finds what nobody can decide, and does harm where labelers are not careful; by
            disagreement of the heads of a reward model, or of two reward models.
        against: folder or hub id of another reward model, which disagrees in place of heads.
    """

    rows: int | None = None
    by: By = "random"
    against: str | None = None
