"""Logging no more than is looked at."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor

from instructgpt.callbacks.common import stage_of
from instructgpt.callbacks.lightning_private import step_is_read


class LogWhereRead(Callback):
    """Has steps log only where a logger or a hook reads it: it was a fifth of a small model's step.

    The first step logs too, for the progress to show. Callbacks of the user may look at any step:
    beside one, every step logs.
    """

    def __init__(self) -> None:
        self._always, self._first = True, True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """See who looks."""
        others = [c for c in trainer.callbacks if not isinstance(c, LearningRateMonitor)]  # type: ignore[attr-defined]
        self._always = not all(type(c).__module__.startswith("instructgpt.") for c in others)
        self._first = True

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Tell the stage."""
        read = self._always or self._first or step_is_read(trainer)
        stage_of(pl_module).logs_step, self._first = read, False
