"""Checkpoints from which a run goes on exactly, also after Ctrl-C."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from instructgpt.callbacks.common import StepWatch, is_debugging, stage_of
from instructgpt.callbacks.lightning_private import (
    accumulating,
    epoch_ends,
    save_best,
    save_last,
    validation_follows,
)
from instructgpt.callbacks.signals import SIGNALS, Interrupted, how_to_go_on
from instructgpt.models.checkpoint import (
    LAST,
    PREVIOUS,
    damage,
    load_checkpoint,
    partial_file,
    save_checkpoint,
)
from instructgpt.models.shard_files import remove_unnamed, whole_again
from instructgpt.types import require


class WholeFiles(TorchCheckpointIO):
    """Writes files that are there as a whole or not at all, wherever temporary files may lie.

    Lightning writes to TMPDIR and moves the file from there, which between two file systems is to
    copy it over the old one.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        """Write one."""
        save_checkpoint(checkpoint, Path(path))

    def load_checkpoint(self, path: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Read one, with the tensors that lie beside it."""
        return whole_again(load_checkpoint(Path(path)), Path(path))


class StageCheckpoint(ModelCheckpoint):
    """Writes ``last.ckpt`` and, at each validation that improves on the others, ``best.ckpt``.

    ``last.ckpt`` is written between two optimizer steps only: gradients that are still being
    accumulated are in no checkpoint. The first Ctrl-C (or SIGTERM, SIGUSR1) asks for one at the
    next such moment and ends the run there; the second ends it at once.

    A file takes the place of the one before once it is whole. While the run goes on, the state
    before the last one is kept as ``previous.ckpt``, from which ``--ckpt_path last`` goes on where
    ``last.ckpt`` is damaged; it is removed when the run is done. So there must be room for three
    states, the one being written among them, besides ``best.ckpt``.

    Args:
        every_n_steps: optimizer steps from one ``last.ckpt`` to the next; 0 writes it at
            validations, at the end and on Ctrl-C only.
        every_minutes: a step that ends so long after the last ``last.ckpt`` is followed by one,
            too; fractions are allowed. null: no clock decides.
    """

    def __init__(self, every_n_steps: int = 200, every_minutes: float | None = None) -> None:
        require(every_n_steps >= 0, "checkpoint.every_n_steps", ">= 0", every_n_steps)
        set_right = every_minutes is None or every_minutes > 0
        require(set_right, "checkpoint.every_minutes", "> 0 or null", every_minutes)
        super().__init__(
            filename="best",
            save_last=True,
            save_on_train_epoch_end=False,
            enable_version_counter=False,
        )
        self.every_n_steps, self.every_minutes = every_n_steps, every_minutes
        self._signal = 0
        self._handlers: dict[int, Any] = {}
        self._steps = StepWatch()
        self.saved_step = -1
        self._saved_at = 0.0  # seconds of the clock
        self._due = False  # last.ckpt, at the next moment between two steps

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take the folder from the trainer and the metric from the module."""
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            trainer.strategy.checkpoint_io = WholeFiles()
        self.dirpath = str(Path(trainer.default_root_dir, "checkpoints").resolve())
        monitor = stage_of(pl_module).monitor
        if monitor is None:
            self.save_top_k = 0
        elif self.monitor is None:
            self.monitor, self.mode = monitor
            self.kth_value = torch.tensor(torch.inf if self.mode == "min" else -torch.inf)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Look for the best weights in the folder of this run, which may have been moved."""
        folder = Path(self.dirpath or state_dict["dirpath"])
        here = {**state_dict, "dirpath": self.dirpath}
        for name in ("best_model_path", "kth_best_model_path", "last_model_path"):
            here[name] = str(folder / Path(here[name]).name) if here[name] else ""
        models = state_dict["best_k_models"].items()
        here["best_k_models"] = {str(folder / Path(path).name): score for path, score in models}
        best = here["best_model_path"]
        if best and (wrong := damage(Path(best))) is not None:
            rank_zero_warn(f"{best} {wrong}: the next validation counts as the best so far")
            here |= {"best_model_path": "", "kth_best_model_path": "", "best_k_models": {}}
            here["best_model_score"] = None
        super().load_state_dict(here)
        self.current_score = here["current_score"]

    # -- signals

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tidy up after a run that was killed; listen for Ctrl-C, as there is something to save."""
        self._saved_at = time.monotonic()
        if trainer.is_global_zero and not is_debugging(trainer):
            self._tidy(trainer.ckpt_path)
        if threading.current_thread() is threading.main_thread() and not is_debugging(trainer):
            self._handlers = {s: signal.signal(s, self._on_signal) for s in SIGNALS}

    def _tidy(self, resumed: Any) -> None:
        folder = Path(str(self.dirpath))
        for path in folder.glob(partial_file(folder / "*.ckpt").name):
            path.unlink()
        if resumed and Path(resumed).resolve() == folder / PREVIOUS:
            (folder / PREVIOUS).replace(folder / LAST)  # never keep the damaged one in its place

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._signal:
            saved = self.saved_step >= 0
            kept = f"{LAST} is of step {self.saved_step}" if saved else "nothing was saved"
            rank_zero_info(f"stopped at once: {kept}")
            raise KeyboardInterrupt
        self._signal = number
        rank_zero_info("\nstopping after this optimizer step; once more stops at once")

    def _stop_listening(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}

    def _stop_if_asked(self, trainer: Trainer) -> None:
        """Save and stop when any rank was asked to; every rank takes part."""
        if not trainer.strategy.reduce_boolean_decision(bool(self._signal), all=False):
            return
        self._save_last(trainer)
        message = how_to_go_on(trainer) if trainer.is_global_zero else ""
        # Only the first process tells the shell: for another's code its launcher would kill it.
        code = 128 + (self._signal or signal.SIGINT) if trainer.is_global_zero else 0
        raise Interrupted(message, code)

    # -- when to save

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Note the step, to see in ``on_train_batch_end`` whether this batch completed one."""
        self._steps.begin(trainer)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Save every ``every_n_steps`` optimizer steps and ``every_minutes``."""
        if not self._steps.completed(trainer) or is_debugging(trainer):
            return
        counted = bool(self.every_n_steps) and trainer.global_step % self.every_n_steps == 0
        self._due = counted or self._time_is_up(trainer)
        # After a validation or the end of an epoch that follows at once, there is more to save.
        if not validation_follows(trainer) and not epoch_ends(trainer):
            self._between_steps(trainer)

    def _time_is_up(self, trainer: Trainer) -> bool:
        """Whether ``every_minutes`` are over, by the clock of rank 0; every rank takes part."""
        if self.every_minutes is None:
            return False
        over = time.monotonic() - self._saved_at >= 60 * self.every_minutes
        ours = trainer.is_global_zero and over
        return bool(trainer.strategy.reduce_boolean_decision(ours, all=False))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the weights if they are the best so far, then the state."""
        if (
            trainer.state.fn != TrainerFn.FITTING
            or trainer.sanity_checking
            or is_debugging(trainer)
        ):
            return
        if self.save_top_k:
            save_best(self, trainer)
        if accumulating(trainer):
            return
        self._due = True
        if not epoch_ends(trainer):
            self._between_steps(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save what the last step of the epoch has made due: EarlyStopping has now seen it."""
        if not is_debugging(trainer):
            self._between_steps(trainer)

    def _between_steps(self, trainer: Trainer) -> None:
        self._stop_if_asked(trainer)
        if self._due:
            self._save_last(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the final state."""
        self._stop_listening()
        if not is_debugging(trainer) and self.saved_step != trainer.global_step:
            self._save_last(trainer)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remove the state before the final one, once that has been read back."""
        folder = Path(str(self.dirpath))
        if trainer.is_global_zero and not is_debugging(trainer) and (folder / PREVIOUS).is_file():
            if (wrong := damage(folder / LAST)) is None:
                (folder / PREVIOUS).unlink()
                remove_unnamed(folder)
            else:
                rank_zero_warn(f"{folder / LAST} {wrong}: {folder / PREVIOUS} is kept")

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Save nothing: in the middle of a step there is no state worth going on from."""
        self._stop_listening()

    def _save_last(self, trainer: Trainer) -> None:
        save_last(self, trainer)
        self.saved_step, self._saved_at, self._due = trainer.global_step, time.monotonic(), False
