"""What makes resuming exact: data and random numbers depend on the position in the run alone."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from instructgpt.rollout.noise import mix


class StepSeed(Callback):
    """Seeds dropout before each batch by (seed, epoch, batch, rank), so that resuming is exact.

    No state of a generator needs to be in a checkpoint, and ranks differ from each other.

    Args:
        seed: of the run (``--seed_everything``).
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Bring the train loader to where the checkpoint left it.

        Lightning does so when it sets up the data, but a schedule that asks for the number of
        steps makes it set up the data before the checkpoint is read. Our loaders start lazily: it
        is not too late.
        """
        trainer.fit_loop._load_combined_loader_states()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Seed the generators of all devices."""
        torch.manual_seed(mix(self.seed, trainer.current_epoch, batch_idx, trainer.global_rank))
