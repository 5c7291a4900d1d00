"""What makes resuming exact: data and random numbers depend on the position in the run alone."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from instructgpt.callbacks.lightning_private import restart, settle_counters
from instructgpt.row_shares import place_of
from instructgpt.seeds import mix, seed_everywhere
from instructgpt.types import UserError


class StepSeed(Callback):
    """Seeds dropout before each batch by (seed, epoch, batch, rank), so that resuming is exact.

    No state of a generator needs to be in a checkpoint, and ranks differ from each other. It also
    brings a resumed run to the very batch at which it was left.

    Args:
        seed: of the run (``--seed_everything``).
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Say where the checkpoint stands, before Lightning takes its counters."""
        endless = getattr(trainer.datamodule, "endless", False)  # type: ignore[attr-defined]
        done = settle_counters(checkpoint, trainer.accumulate_grad_batches, endless)
        most = trainer.max_epochs
        if trainer.state.fn == TrainerFn.FITTING and most is not None and -1 < most < done:
            raise UserError(
                f"--trainer.max_epochs must be at least the {done} epochs that the checkpoint has "
                f"done, got {most}"
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go there."""
        restart(trainer)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Seed the generators of all devices."""
        seed_everywhere(mix(self.seed, trainer.current_epoch, batch_idx, place_of(trainer).rank))
