"""A sample of the prompts of a set that any two sets draw alike, so that their overlap shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

KEPT = 256
"""Prompts of a sample; a share of a half is then known within .06."""
DIGITS = 16  # of a number of 64 bits


class Sketch(NamedTuple):
    """The prompts whose hashes are least (Bar-Yossef et al. 2002): a sample without replacement."""

    distinct: int  # prompts of the set
    least: np.ndarray  # [at most KEPT] uint64, ascending

    @property
    def plain(self) -> dict[str, Any]:
        """As JSON."""
        return {"distinct": self.distinct, "least": "".join(f"{one:016x}" for one in self.least)}

    @property
    def limit(self) -> int:
        """Up to which hash all prompts of the set are in it."""
        return 2**64 - 1 if self.distinct <= len(self.least) else int(self.least[-1])


def sketch(keys: Sequence[int] | np.ndarray) -> Sketch:
    """The sample of a set.

    Args:
        keys: hashes of its prompts, uint64; the same prompt may come often.
    """
    distinct = np.unique(np.asarray(keys, np.uint64))
    return Sketch(len(distinct), distinct[:KEPT])


def read_sketch(found: Any) -> Sketch | None:
    """A sample as it was written; None where there is none.

    Args:
        found: in JSON.
    """
    if not isinstance(found, dict):
        return None
    distinct, text = found.get("distinct"), found.get("least")
    if not isinstance(distinct, int) or not isinstance(text, str) or len(text) % DIGITS:
        return None
    try:
        least = [int(text[at : at + DIGITS], 16) for at in range(0, len(text), DIGITS)]
    except ValueError:
        return None
    return Sketch(distinct, np.array(least, np.uint64))


def share_among(one: Sketch, other: Sketch) -> tuple[float, int] | None:
    """The share of a set's prompts that another has, and of how many it was seen; None: of none.

    Args:
        one: set.
        other: set.

    Examples:
        >>> share_among(sketch([1, 2, 3, 4]), sketch([3, 4, 5]))
        (0.5, 4)
    """
    limit = np.uint64(min(one.limit, other.limit))
    seen = one.least[one.least <= limit]
    if not len(seen):
        return None
    return float(np.isin(seen, other.least).mean()), len(seen)
