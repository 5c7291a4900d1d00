"""Rows that say nearly the same as an earlier one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from instructgpt.hygiene.base import Decision, GlobalRule, Keys, keep_all
from instructgpt.hygiene.clean_row import CleanRow, texts_of
from instructgpt.hygiene.minhash import clusters, signatures
from instructgpt.hygiene.words import ngrams, numbers, words
from instructgpt.types import require

SHOWN = 5
"""Clusters whose sizes the report names."""


@dataclass(frozen=True)
class NearDuplicates(GlobalRule):
    """Of texts that overlap in most of their words only the first is kept (MinHash).

    Two texts are compared by the share of the runs of words that they have in common (Jaccard);
    capitals, punctuation and white space do not count. What chains of similar texts connect is one
    cluster.

    Args:
        similarity: from which on, from 0 to 1, estimated from 128 hashes to within 0.04; null: the
            rule is off.
        words: in a run; with 3 one changed word in 20 costs 0.3 of the similarity, in 100 0.06.
            Of copies with 5 % of their words changed, 0.7 and 3 found four times as many as the
            more common 5, and took as few for copies that are none (``docs/hygiene.md``).
        of: compare the ``prompt`` with all its turns, or the whole ``row`` with its responses.
    """

    name: ClassVar[str] = "near_duplicates"
    title: ClassVar[str] = "near duplicates"

    similarity: float | None = 0.7
    words: int = 3
    of: Literal["prompt", "row"] = "prompt"

    def check_options(self, kind: str) -> None:
        """Refuse what is no share, and runs of no words."""
        share = self.similarity
        require(share is None or 0.3 <= share <= 1, f"{self.name}.similarity", "0.3 to 1", share)
        require(self.words >= 1, f"{self.name}.words", ">= 1", self.words)

    def is_on(self, kind: str) -> bool:
        """Whether a similarity is set."""
        return self.similarity is not None

    def keys(self, rows: Sequence[CleanRow]) -> dict[str, np.ndarray]:
        """The signatures of the texts."""
        texts = texts_of(rows) if self.of == "row" else [row.asked for row in rows]
        numbered = numbers([words(text) for text in texts])
        return {"signature": signatures(ngrams(numbered, self.words))}

    def decide(self, keys: Keys, splits: np.ndarray) -> Decision:
        """Drop all of a cluster but its first."""
        signed = keys["signature"]
        if not len(signed) or self.similarity is None:
            return keep_all(len(signed))
        first = clusters(signed, self.similarity)
        dropped = first != np.arange(len(first))
        sizes = np.bincount(first)[np.unique(first)]
        notes: tuple[str, ...] = ()
        if dropped.any():
            largest = sorted(sizes[sizes > 1].tolist(), reverse=True)
            shown = ", ".join(f"{size:,}" for size in largest[:SHOWN])
            notes = (f"{len(largest):,} clusters; the largest have {shown} rows",)
        because = np.where(dropped, first, -1).astype(np.int64)
        reason = np.zeros(len(first), np.uint8)
        return Decision(dropped, because, ("near duplicate",), reason, notes)
