"""The callbacks of every run."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback
from lightning.pytorch.callbacks import LearningRateMonitor, ProgressBar

from instructgpt.callbacks.band_watch import BandWatch
from instructgpt.callbacks.bands import read_bands
from instructgpt.callbacks.checkpoint import StageCheckpoint
from instructgpt.callbacks.config import ConfigWriter
from instructgpt.callbacks.export import Compare, ExportArtefact
from instructgpt.callbacks.logged_runs import LoggedRuns
from instructgpt.callbacks.logs import LogWhereRead
from instructgpt.callbacks.lost import LostRanks
from instructgpt.callbacks.plan import PlanPrinter
from instructgpt.callbacks.predictions import PredictionWriter
from instructgpt.callbacks.progress import StageProgress
from instructgpt.callbacks.samples import SampleWriter
from instructgpt.callbacks.seed import StepSeed
from instructgpt.callbacks.throughput import Throughput


def default_callbacks(
    given: list[Callback],
    seed: int,
    folder: str,
    config: dict[str, Any],
    config_text: str,
    changes: list[str],
    logging: bool,
    progress: bool,
    export: bool,
    compare: Compare | None = None,
    bands: dict[str, Any] | None = None,
) -> list[Callback]:
    """What is added to the user's callbacks, except where the user brought one of the same kind.

    Args:
        given: callbacks of the user.
        seed: of the run.
        folder: of the run.
        config: of the run.
        config_text: the same as YAML.
        changes: what resumes have changed.
        logging: there is a logger.
        progress: show progress.
        export: write the artefact at the end.
        compare: says more about what is exported.
        bands: of the recipe, if it has any.
    """
    callbacks: list[Callback] = [
        ConfigWriter(config, config_text, folder, changes),
        LostRanks(),
        StepSeed(seed),
        PlanPrinter(),
        SampleWriter(),
        PredictionWriter(config),
        Throughput(),
        LogWhereRead(),
    ]
    if logging:
        callbacks += [LoggedRuns(config), LearningRateMonitor(logging_interval="step")]
    if progress and not any(isinstance(callback, ProgressBar) for callback in given):
        callbacks.append(StageProgress())
    if bands is not None:
        callbacks.append(BandWatch(read_bands(bands), config))
    if export:
        callbacks.append(ExportArtefact(config, compare))
    return [c for c in callbacks if not any(isinstance(g, type(c)) for g in given)]


def forced_callbacks(
    forced: list[Callback], given: list[Callback], checkpoints: bool
) -> list[Callback]:
    """Those with options of their own, except where the user brought one of the same kind.

    Args:
        forced: all of them.
        given: callbacks of the user.
        checkpoints: whether any are written.
    """
    own = [one for one in forced if not any(isinstance(it, type(one)) for it in given)]
    return own if checkpoints else [one for one in own if not isinstance(one, StageCheckpoint)]
