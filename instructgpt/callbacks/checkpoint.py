"""Checkpoints from which a run goes on exactly, also after Ctrl-C."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from shlex import quote
from types import FrameType
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from instructgpt.callbacks.common import is_debugging, stage_of
from instructgpt.types import UserError

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(BaseException):
    """The run was stopped from outside, after its state was saved; says how to go on."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(*([message] if message else []))
        self.exit_code = exit_code


class StageCheckpoint(ModelCheckpoint):
    """Writes ``last.ckpt`` and, at each validation that improves on the others, ``best.ckpt``.

    ``last.ckpt`` is written between two optimizer steps only: gradients that are still being
    accumulated are in no checkpoint. The first Ctrl-C (or SIGTERM) asks for one at the next such
    moment and ends the run there; the second ends it at once.

    Args:
        every_n_steps: optimizer steps from one ``last.ckpt`` to the next; 0 writes it at
            validations, at the end and on Ctrl-C only.
    """

    def __init__(self, every_n_steps: int = 200) -> None:
        if every_n_steps < 0:
            raise UserError(f"checkpoint.every_n_steps must be >= 0, got {every_n_steps}")
        super().__init__(
            filename="best",
            save_last=True,
            save_on_train_epoch_end=False,
            enable_version_counter=False,
        )
        self.every_n_steps = every_n_steps
        self._signal = 0
        self._handlers: dict[int, Any] = {}
        self._steps_before = 0
        self._saved_step = -1

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take the folder from the trainer and the metric from the module."""
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
        if best and not Path(best).is_file():
            rank_zero_warn(f"{best} is gone: the next validation counts as the best so far")
            here |= {"best_model_path": "", "kth_best_model_path": "", "best_k_models": {}}
            here["best_model_score"] = None
        super().load_state_dict(here)

    # -- signals

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen for Ctrl-C, now that there is something to save."""
        if threading.current_thread() is threading.main_thread() and not is_debugging(trainer):
            self._handlers = {s: signal.signal(s, self._on_signal) for s in SIGNALS}

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._signal:
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
        message = ""
        if trainer.is_global_zero:
            config = Path(trainer.default_root_dir, "config.yaml")
            message = (
                f"stopped after step {trainer.global_step}; to go on:\n"
                f"  python -m instructgpt fit --config {quote(str(config))} --ckpt_path last"
            )
        # Only the first process tells the shell: for another's code its launcher would kill it.
        code = 128 + (self._signal or signal.SIGINT) if trainer.is_global_zero else 0
        raise Interrupted(message, code)

    # -- when to save

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Note the step, to see in ``on_train_batch_end`` whether this batch completed one."""
        self._steps_before = trainer.global_step

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Save every ``every_n_steps`` optimizer steps."""
        stepped = trainer.global_step != self._steps_before
        # After a validation that follows at once, there is more to save.
        if not stepped or is_debugging(trainer) or self._validation_follows(trainer):
            return
        self._stop_if_asked(trainer)
        if self.every_n_steps and trainer.global_step % self.every_n_steps == 0:
            self._save_last(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the weights if they are the best so far, then the state."""
        if (
            trainer.state.fn != TrainerFn.FITTING
            or trainer.sanity_checking
            or is_debugging(trainer)
        ):
            return
        if self.save_top_k:
            self._save_topk_checkpoint(trainer, self._monitor_candidates(trainer))
        if not trainer.fit_loop.epoch_loop._should_accumulate():
            self._stop_if_asked(trainer)
            self._save_last(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Nothing: an epoch's end is no better place than any other step."""

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the final state."""
        self._stop_listening()
        if not is_debugging(trainer) and self._saved_step != trainer.global_step:
            self._save_last(trainer)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Save nothing: in the middle of a step there is no state worth going on from."""
        self._stop_listening()

    def _save_last(self, trainer: Trainer) -> None:
        self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))
        self._saved_step = trainer.global_step

    def _validation_follows(self, trainer: Trainer) -> bool:
        loop = trainer.fit_loop
        by_the_clock = trainer._val_check_time_interval is not None  # type: ignore[attr-defined]
        if by_the_clock or not trainer.enable_validation or loop._data_fetcher is None:
            return False  # clocks differ between ranks, which must decide alike
        return loop.epoch_loop._should_check_val_fx(loop._data_fetcher)
