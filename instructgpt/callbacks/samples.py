"""Responses to look at, as JSONL and in the loggers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info

from instructgpt.callbacks.common import is_debugging, json_lines, stage_of
from instructgpt.models.folder import make_folder, naming, sync_file, sync_folder, write_bytes
from instructgpt.modules.ranks import shares
from instructgpt.modules.shown import not_shown, show_table


class SampleWriter(Callback):
    """Moves a module's ``samples`` to ``samples.jsonl`` and to a table in the loggers."""

    def __init__(self) -> None:
        self.written = 0  # rows of this run in the file

    def state_dict(self) -> dict[str, Any]:
        """Rows that a resumed run keeps; those behind them are going to be written again."""
        return {"written": self.written}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on behind them."""
        self.written = state_dict["written"]

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say what a logger will not show."""
        for logger in trainer.loggers:
            if hidden := not_shown(logger):
                where = f"; completions are in {self._path(trainer)}" * ("completions" in hidden)
                rank_zero_info(f"{type(logger).__name__} shows no {' and no '.join(hidden)}{where}")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Drop rows that are going to be written again, half rows, and those of an earlier run."""
        if not trainer.is_global_zero or is_debugging(trainer):
            return
        path, rows = self._path(trainer), list[bytes]()
        if path.is_file():
            rows = path.read_bytes().splitlines(keepends=True)[: self.written]
            write_bytes(path, b"".join(rows))
        self.written = len(rows)  # none where the run goes on in another folder

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the samples of all ranks."""
        stage = stage_of(pl_module)
        rows = [row for rank in shares(stage.samples, trainer) for row in rank]
        stage.samples = []
        fitting = trainer.state.fn == TrainerFn.FITTING
        self.written += len(rows) if fitting else 0
        if not rows or is_debugging(trainer) or not trainer.is_global_zero:
            return
        path = self._path(trainer)
        make_folder(path.parent)
        with naming(path), path.open("a" if fitting else "w", encoding="utf-8") as file:
            file.write(json_lines(rows))
            sync_file(file)  # before a checkpoint says how many rows there are
        sync_folder(path.parent)
        show_table(trainer.loggers, "samples", rows, trainer.global_step)

    def _path(self, trainer: Trainer) -> Path:
        verb = trainer.state.fn
        beside = [] if verb in (None, TrainerFn.FITTING) else [verb.value]
        return Path(trainer.default_root_dir, *beside, "samples.jsonl")
