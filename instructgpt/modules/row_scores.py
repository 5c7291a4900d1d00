"""What a reward model gave to each validation row, by the step of the weights that gave it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from instructgpt.modules.ranks import everyones
from instructgpt.types import ComparisonBatch


class RowScores:
    """Scores of the rows of the last validation, of all its batches and ranks."""

    def __init__(self) -> None:
        self._parts: list[tuple[int, Tensor]] = []
        self._step, self._scores = -1, dict[int, Tensor]()

    def update(self, batch: ComparisonBatch, scores: Tensor) -> None:
        """Collect the scores of a batch.

        Args:
            batch: ranked responses.
            scores: [B, K] of them.
        """
        real, scores = batch.ranking_mask.cpu(), scores.detach().float().cpu()
        rows = zip(batch.numbers, scores, real, strict=True)
        self._parts += [(number, row[mask]) for number, row, mask in rows if mask.any()]

    def gather(self, step: int) -> None:
        """Take together what all ranks have collected, in place of what there was.

        Args:
            step: of the weights that gave the scores.
        """
        every = everyones(self._parts)
        self._scores = dict(sorted((row for part in every for row in part), key=lambda row: row[0]))
        self._step, self._parts = step, []

    def at(self, step: int) -> dict[int, Tensor]:
        """Number of a validation row -> scores of its responses, [K]; empty for other weights.

        Args:
            step: of the weights.
        """
        return self._scores if step == self._step else {}

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds of it, as few tensors."""
        rows = list(self._scores.values())
        return {
            "step": self._step,
            "numbers": torch.tensor(list(self._scores), dtype=torch.int64),
            "counts": torch.tensor([len(row) for row in rows], dtype=torch.int64),
            "scores": torch.cat([torch.zeros(0), *rows]),
        }

    def restore(self, state: dict[str, Any] | None) -> None:
        """Be as it was.

        Args:
            state: of a checkpoint; None where it holds none.
        """
        self._parts, self._step, self._scores = [], -1, {}
        if state is not None:
            rows = state["scores"].split(state["counts"].tolist())
            self._scores = dict(zip(state["numbers"].tolist(), rows, strict=True))
            self._step = state["step"]
