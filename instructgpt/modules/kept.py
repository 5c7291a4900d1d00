"""Log-probabilities of the reference, by row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from instructgpt.types import ComparisonBatch


class Kept(NamedTuple):
    """Log-probabilities of all response tokens of a split, one row behind the other."""

    values: Tensor  # [tokens] float32
    starts: np.ndarray  # of the rows, and the end of the last

    @classmethod
    def empty(cls, tokens: Sequence[int] | np.ndarray) -> Kept:
        """Room for those of rows whose responses have so many tokens."""
        starts = np.concatenate([[0], np.cumsum(tokens, dtype=np.int64)])
        return cls(torch.zeros(int(starts[-1])), starts)

    def places(self, batch: ComparisonBatch) -> list[slice]:
        """Where those of each prompt of a batch are."""
        starts = [int(self.starts[number]) for number in batch.numbers]
        sizes = batch.response_tokens.tolist()
        return [slice(start, start + size) for start, size in zip(starts, sizes, strict=True)]

    def put(self, batch: ComparisonBatch, logprobs: Tensor) -> None:
        """Keep those of a batch, [M]; not of a row that fills it up, whose place is another's."""
        parts = logprobs.cpu().split(batch.response_tokens.tolist())
        ranked = batch.ranking_mask.any(1).tolist()
        for place, values, real in zip(self.places(batch), parts, ranked, strict=True):
            if real:
                self.values[place] = values

    def of(self, batch: ComparisonBatch) -> Tensor:
        """Those of a batch, [M], where the batch is."""
        found = torch.cat([self.values[place] for place in self.places(batch)])
        return found.to(batch.ranking.device)
