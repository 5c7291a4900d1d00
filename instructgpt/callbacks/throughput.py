"""How fast training reads."""

from __future__ import annotations

import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from instructgpt.types import ComparisonBatch, LanguageBatch


class Throughput(Callback):
    """Logs the tokens that all ranks train on in a second.

    Waiting for data counts, validation does not. PPO, which makes its own tokens, logs its own
    rate. ``rate`` is the last one, of the first batch before any was logged.
    """

    def __init__(self) -> None:
        self.rate: float | None = None
        self._restart()

    def _restart(self) -> None:
        self._tokens = 0
        self._batches, self._since = 0, time.monotonic()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._restart()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock again."""
        self._restart()

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Count, and log where Lightning logs."""
        if not isinstance(batch, (LanguageBatch, ComparisonBatch)):
            return
        self._tokens += len(batch.rows.tokens)
        self._batches += 1
        window_ends = self._batches == trainer.log_every_n_steps  # type: ignore[attr-defined]
        if not window_ends and self.rate is not None:
            return
        mine = batch.rows.tokens.new_tensor(self._tokens)
        tokens = trainer.strategy.reduce(mine, reduce_op="sum")
        self.rate = float(tokens) / (time.monotonic() - self._since)
        if window_ends:
            for logger in trainer.loggers:
                logger.log_metrics({"tokens_per_second": self.rate}, step=trainer.global_step)
            self._restart()
