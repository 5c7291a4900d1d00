"""What loggers of a run are told once, and that a resume goes on in the runs that they keep."""

from __future__ import annotations

import sys
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import (
    CometLogger,
    Logger,
    MLFlowLogger,
    TensorBoardLogger,
    WandbLogger,
)

from instructgpt.callbacks.common import is_debugging
from instructgpt.callbacks.resume import leaves

KEPT = {WandbLogger: "id", MLFlowLogger: "run_id", CometLogger: "experiment_key"}
"""Loggers that keep runs under a name of their own, and the option that names one."""


class LoggedRuns(Callback):
    """Gives the loggers the configuration, and notes in checkpoints which runs they keep.

    Args:
        config: of the run.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the options by their names on the command line; TensorBoard's are beside it."""
        if is_debugging(trainer) or not trainer.is_global_zero:
            return
        about_loggers = "trainer.logger"
        found = leaves(self.config)
        options = {k: v for k, v in found if not k.startswith(about_loggers)}
        for logger in trainer.loggers:
            if isinstance(logger, MLFlowLogger):  # which refuses to change one
                known = logger.experiment.get_run(logger.run_id).data.params
                logger.log_hyperparams({k: v for k, v in options.items() if k not in known})
            elif not isinstance(logger, TensorBoardLogger):
                logger.log_hyperparams(options)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the option that names the run of each logger."""
        runs = [kept_run(logger) for logger in trainer.loggers]
        checkpoint.setdefault("instructgpt", {})["logged_runs"] = runs


def kept_run(logger: Logger) -> list[str] | None:
    """The option that would have a logger go on in its run, and its value.

    Not for Comet offline, which names its archive by the key and by Python's generator: after the
    same seed a resume with the same key would overwrite the archive of the part before.
    """
    offline = getattr(sys.modules.get("comet_ml"), "OfflineExperiment", ())
    if isinstance(logger, CometLogger) and isinstance(logger.experiment, offline):
        return None
    for kind, option in KEPT.items():
        if isinstance(logger, kind) and logger.version:
            return [option, str(logger.version)]
    return None


def go_on_in_runs(asked: Any, known: dict[str, Any], config: dict[str, Any]) -> None:
    """Have loggers go on in the runs of a checkpoint, if their options are what they were.

    Args:
        asked: the loggers, as they were parsed; changed.
        known: what the checkpoint says of its run.
        config: the configuration asked for.
    """
    before = known.get("config", {}).get("trainer", {}).get("logger")
    if before != config["trainer"]["logger"]:
        return
    each = asked if isinstance(asked, list) else [asked]
    for logger, run in zip(each, known.get("logged_runs", []), strict=False):
        if run is not None and run[0] in logger.init_args:
            logger.init_args[run[0]] = run[1]


def end_runs(trainer: Trainer) -> None:
    """Have loggers write what they still hold.

    W&B and Comet wait for the end of Python, to which a stage of a pipeline does not come.

    Args:
        trainer: when its verb is over.
    """
    run = getattr(sys.modules.get("wandb"), "run", None)
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger) and run is not None and run.id == logger.version:
            run.finish(exit_code=int(not trainer.state.finished))
        elif isinstance(logger, CometLogger):
            logger.experiment.end()


def tensorboard(folder: str, verb: str, resumed_from: int | None) -> TensorBoardLogger:
    """The logger of runs that name none.

    Args:
        folder: of the run.
        verb: others than fit draw their curves beside it, not into it.
        resumed_from: the step; what was drawn behind it is drawn again.
    """
    return TensorBoardLogger(
        folder,
        name="",
        version="" if verb == "fit" else verb,
        default_hp_metric=False,
        purge_step=None if resumed_from is None else resumed_from + 1,
    )
