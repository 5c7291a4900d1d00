"""What ``predict`` leaves behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from instructgpt.callbacks.common import gather, json_lines
from instructgpt.models.folder import write_text


class PredictionWriter(Callback):
    """Writes the rows of ``predict_step`` to ``predictions.jsonl``, in the order of the data."""

    def __init__(self) -> None:
        self._batches: list[list[dict[str, Any]]] = []

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget an earlier call."""
        self._batches = []

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the rows of this rank."""
        self._batches.append(outputs or [])

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Merge the ranks: each has its share of every batch."""
        ranks = gather(self._batches, trainer.world_size)
        if not trainer.is_global_zero:
            return
        batches = zip(*ranks, strict=True)
        rows = [row for shares in batches for share in shares for row in share]
        path = Path(trainer.default_root_dir, "predictions.jsonl")
        write_text(path, json_lines(rows))
        rank_zero_info(f"wrote {len(rows)} rows to {path}")
