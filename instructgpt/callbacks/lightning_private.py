"""All that we take from the inside of Lightning (2.6), each with the reason why.

``tests/test_private_members.py`` says what breaks when an upgrade removes one of them.

Most is about where a run stands in its epochs. A checkpoint is written in the middle of hooks,
where some counters are ahead of others. Lightning guesses from them which hook it was ("restart
stages") and completes the rest, which goes wrong: a guess about the last batch of an epoch without
validation outlives that epoch, so that the next checkpoint counts one epoch less than was trained;
and an epoch that ``max_steps`` cuts short counts as a whole one. So nothing is left to guess: the
counters are settled before Lightning reads them, all at the end of the last batch (or at the
beginning of an epoch), and the loops start there with nothing to complete.
"""

from __future__ import annotations

import traceback
from abc import abstractmethod
from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities.combined_loader import CombinedLoader

from instructgpt.callbacks.signals import stoppable


def settle_counters(checkpoint: dict[str, Any], accumulate: int, endless: bool) -> int:
    """Make all counters of a checkpoint agree on one moment between two batches.

    Args:
        checkpoint: as loaded, before Lightning takes the state of its loops from it; changed.
        accumulate: batches of an optimizer step; of an incomplete one, whose gradients are in no
            checkpoint, the run goes back to the first.
        endless: an epoch is as long as the run; when that is longer now, it goes on.

    Returns:
        Epochs that are complete.
    """
    loops = checkpoint["loops"]["fit_loop"]
    epochs, batches = loops["epoch_progress"], loops["epoch_loop.batch_progress"]
    epoch, done = max(epochs["current"]["started"] - 1, 0), batches["current"]["processed"]
    total = batches["total"]["processed"]
    if batches["is_last_batch"] and done == batches["current"]["ready"] and not endless:
        epoch, kept = epoch + 1, 0
    else:
        kept = done - done % accumulate
        total -= done - kept
    for counters, value in (
        (epochs["total"], epoch),
        (epochs["current"], epoch),
        (batches["total"], total),
        (batches["current"], kept),
    ):
        counters.update(dict.fromkeys(counters, value))
    batches["is_last_batch"] = False
    return int(epoch)


def restart(trainer: Trainer) -> None:
    """Put the loops of a resumed run, and its train loader, to where the checkpoint left them.

    For ``on_train_start``: Lightning has interpreted the counters then, and fetched no batch yet.
    It may have made the loader before the checkpoint was read, for a schedule that asks how long
    the run is; ours start lazily.
    """
    loop = trainer.fit_loop
    if not loop.is_resuming:
        return
    inner = loop.epoch_loop
    epoch, batches = loop.epoch_progress.current.ready, inner.batch_progress.current.ready
    for one in (loop, inner, inner.val_loop):
        one.reset_restart_stage()
    # Loads only while the loop restarts; the public setter would tell the inner loops so, too.
    loop._restarting = True
    loop._load_combined_loader_states()
    loop._restarting = False
    inner.restarting = batches > 0  # keep the counters of this epoch instead of starting from 0
    inner.val_loop.restarting = False
    # The loop adds the last step of the batches done, which a hook in that batch could not count.
    inner._batches_that_stepped = trainer.global_step - (batches > 0)
    for loader in CombinedLoader(trainer.train_dataloader).flattened:
        if hasattr(loader, "set_epoch"):  # one of ours
            loader.load_state_dict({"epoch": epoch, "yielded": batches})
    stopped = (one for one in trainer.callbacks if isinstance(one, EarlyStopping))  # type: ignore[attr-defined]
    trainer.should_stop = trainer.should_stop or any(map(_has_stopped, stopped))


def _has_stopped(early: EarlyStopping) -> bool:
    """Whether the run had been stopped when it was saved, and would be again."""
    if early.stopping_reason == EarlyStoppingReason.PATIENCE_EXHAUSTED:
        return early.wait_count >= early.patience
    return early.stopping_reason != EarlyStoppingReason.NOT_STOPPED


def accumulating(trainer: Trainer) -> bool:
    """Whether gradients are being collected for a step that is still to come.

    The last batch of an epoch ends a step that is not full, but not with every strategy.
    """
    batches = trainer.fit_loop.epoch_loop.batch_progress.current.ready
    last = epoch_ends(trainer) and not trainer.strategy.handles_gradient_accumulation
    return batches % trainer.accumulate_grad_batches != 0 and not last


def epoch_ends(trainer: Trainer) -> bool:
    """Whether the batch just trained was the last of its epoch."""
    batches = trainer.fit_loop.epoch_loop.batch_progress
    return batches.is_last_batch or batches.current.ready == trainer.num_training_batches


def validation_follows(trainer: Trainer) -> bool:
    """Whether the batch just trained is followed by a validation; False where a clock decides.

    Follows from five options of the trainer and the length of the loader, which the loop combines.
    """
    loop = trainer.fit_loop
    by_the_clock = trainer._val_check_time_interval is not None  # type: ignore[attr-defined]
    if by_the_clock or not trainer.enable_validation or loop._data_fetcher is None:
        return False  # clocks differ between ranks, which must decide alike
    return loop.epoch_loop._should_check_val_fx(loop._data_fetcher)


def step_is_read(trainer: Trainer) -> bool:
    """Whether a logger, or a hook at the end of it, reads what the step under way logs."""
    if trainer._logger_connector.should_update_logs or epoch_ends(trainer):
        return True
    if trainer._val_check_time_interval is not None or validation_follows(trainer):  # type: ignore[attr-defined]
        return True
    return -1 < trainer.max_steps <= trainer.global_step + 1


def save_best(callback: ModelCheckpoint, trainer: Trainer) -> None:
    """Save the weights if they are among the best: Lightning does so only in its own hooks."""
    callback._save_topk_checkpoint(trainer, callback._monitor_candidates(trainer))


def save_last(callback: ModelCheckpoint, trainer: Trainer) -> None:
    """Save the state of the run: Lightning does so only in its own hooks."""
    callback._save_last_checkpoint(trainer, callback._monitor_candidates(trainer))


def is_restoring(error: BaseException) -> bool:
    """Whether it came up while a checkpoint was put into a run: what is in it does not fit.

    Errors of all kinds come from there, and nothing but the place tells them from others.
    """
    frames = traceback.extract_tb(error.__traceback__)
    return any(
        frame.filename.endswith("checkpoint_connector.py") and "restore" in frame.name
        for frame in frames
    )


class OpenCLI(LightningCLI):
    """LightningCLI with the hooks that it lacks."""

    verb: str | None = None
    """The one that is asked for: the parsers of the others would take a second."""
    called = ""
    """Another name of it, for its help."""

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """The verb with the arguments of the trainer's method that are no options, else all."""
        verbs = LightningCLI.subcommands()
        return {self.verb: verbs[self.verb]} if self.verb in verbs else verbs

    @abstractmethod
    def hyperparameters(self) -> dict[str, Any]:
        """What modules that save their hyperparameters find: the configuration, as plain values.

        Lightning would write all of it as YAML once more, and read that again.
        """

    def _dump_config(self) -> None:
        self.config_dump = self.hyperparameters()

    @abstractmethod
    def read_checkpoint(self) -> None:
        """Read ``--ckpt_path`` before anything is built.

        Lightning would let hyperparameters in it overrule the configuration, the class included
        (https://github.com/Lightning-AI/pytorch-lightning/pull/21455).
        """

    def _parse_ckpt_path(self) -> None:
        self.read_checkpoint()

    @abstractmethod
    def complete(self, config: dict[str, Any], forced: list[Callback]) -> list[Callback]:
        """Complete the arguments of the trainer: ``instantiate_trainer`` can only overrule them.

        Args:
            config: of the trainer, as given; changed.
            forced: the callbacks that have options of their own.

        Returns:
            Those of the forced ones that are used.
        """

    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[Callback]) -> Trainer:
        return super()._instantiate_trainer(config, self.complete(config, callbacks))

    def run_verb(self, verb: str) -> None:
        """Run a verb; ``before_fit`` and its like cannot see how it ended.

        Signals are ours: Lightning's handler of SIGTERM would wait for other processes in a
        collective operation, in the middle of another one.
        """
        self.trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
        with stoppable(self.trainer):
            super()._run_subcommand(verb)

    def _run_subcommand(self, subcommand: str) -> None:
        self.run_verb(subcommand)

    def verb_arguments(self, verb: str) -> dict[str, Any]:
        """What the method of the trainer is called with: no option gives all of it."""
        return super()._prepare_subcommand_kwargs(verb)

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        return self.verb_arguments(subcommand)

    def verb_parser(self, verb: str) -> LightningArgumentParser:
        """The parser of a verb, which writes its configuration down."""
        return self._parser(verb)
