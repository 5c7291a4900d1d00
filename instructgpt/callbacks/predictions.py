"""What ``predict`` leaves behind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from instructgpt.callbacks.common import stage_of
from instructgpt.callbacks.unfinished import UnfinishedRows, network_hash, rows_hash
from instructgpt.data.loader import StatefulLoader
from instructgpt.modules.ranks import shares
from instructgpt.row_shares import place_of
from instructgpt.types import UserError

HARDWARE_OPTIONS = ("batch_size", "validation_batch_size", "num_workers", "num_proc", "cache")
"""Options of data modules that change no row."""


class PredictionWriter(Callback):
    """Writes the rows of ``predict_step`` to ``predictions.jsonl``, in the order of the data.

    They are written batch by batch, to ``predictions.jsonl.partial`` until all are there: after an
    interruption the same command goes on behind the last batch. ``predict_step`` must return a row
    for each row of the data.

    Args:
        config: of the run.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self._file: UnfinishedRows | None = None  # on the first rank, while it is written

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go on where an earlier call was interrupted, if one was."""
        loader: StatefulLoader = trainer.predict_dataloaders  # type: ignore[assignment]
        batch = loader.batch_size * place_of(trainer).ranks
        begun: int | str = 0
        if trainer.is_global_zero:
            path = Path(trainer.default_root_dir, "predictions.jsonl")
            file = UnfinishedRows(path, self._facts(trainer, stage_of(pl_module), loader))
            try:
                begun = file.open(batch)
                self._file = file
            except UserError as error:
                begun = str(error)  # of every rank: the others wait for this one
        begun = trainer.strategy.broadcast(begun)
        if isinstance(begun, str):
            raise UserError(begun)
        if begun:
            rank_zero_info(f"going on behind the {begun:,} rows that are there already")
            loader.load_state_dict({"epoch": 0, "yielded": begun // batch})
            trainer.num_predict_batches[0] -= begun // batch  # Lightning counts from 0 again

    def _facts(
        self, trainer: Trainer, pl_module: LightningModule, loader: StatefulLoader
    ) -> dict[str, Any]:
        """What the rows depend on: not on how many are computed at once, or by how many ranks."""
        most = int(trainer.num_predict_batches[0]) * loader.batch_size * place_of(trainer).ranks
        options = dict(_leaves("--model", self.config["model"]))
        options |= _leaves("--data", self.config["data"])
        options = {
            name.replace(".init_args", ""): value
            for name, value in options.items()
            if name.rpartition(".")[2] not in HARDWARE_OPTIONS
        }
        return {
            **options,
            "--trainer.precision": trainer.precision,
            "device": pl_module.device.type,
            "network (hash)": network_hash(pl_module),
            "set of rows (hash)": rows_hash(loader.rows[:most]),
        }

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write the rows of all ranks: each has its share of every batch."""
        each = shares(outputs or [], trainer)
        if self._file is not None:
            self._file.add([row for share in each for row in share])

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the file its name."""
        if self._file is not None:
            self._file.finish()
            rank_zero_info(f"wrote {self._file.rows:,} rows to {self._file.path}")
            self._file = None

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Say how to go on."""
        if self._file is not None:
            self._file.interrupt()
            self._file = None


def _leaves(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Every option in nested ones, by its path on the command line."""
    if not isinstance(value, dict):
        yield path, value
        return
    for key, inner in value.items():
        yield from _leaves(f"{path}.{key}", inner)
