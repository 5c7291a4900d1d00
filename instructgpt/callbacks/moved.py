"""A word where a run has moved nothing."""

from __future__ import annotations

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn

from instructgpt.callbacks.common import is_debugging, stage_of
from instructgpt.modules.moved import run_of, standing_still


class MovedNothing(Callback):
    """Warns at the end of a fit that changed nothing beyond noise, and says what would."""

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at what was logged last."""
        if is_debugging(trainer):
            return
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        if line := standing_still(run_of(stage_of(pl_module), metrics)):
            rank_zero_warn(line)
