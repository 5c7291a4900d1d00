"""The hand-over to the next stage."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from instructgpt.callbacks.band_watch import BandWatch
from instructgpt.callbacks.checkpoint import StageCheckpoint
from instructgpt.callbacks.common import stage_of
from instructgpt.callbacks.doctor import Doctor
from instructgpt.functional.intervals import Interval
from instructgpt.models.artefact import finite
from instructgpt.models.folder import replacing, write_text
from instructgpt.models.source import ARTEFACT_FILE
from instructgpt.modules.base import StageModule
from instructgpt.modules.finite import check_weights
from instructgpt.modules.sharding import gathered, whole_networks
from instructgpt.terminal import say


class Beside(NamedTuple):
    """What is said about exported weights beside their metrics."""

    metrics: dict[str, float]  # more of them, for the artefact
    intervals: dict[str, Interval]  # of these
    summary: dict[str, Any]  # sections of ``metrics.json``
    lines: list[str]  # to print
    files: Mapping[str, str] = MappingProxyType({})  # texts for the folder of the run, by name


Compare = Callable[[StageModule, int, float], Beside | None]
"""Of a stage, the step of its exported weights and the seconds of its training; on rank 0 alone."""


class ExportArtefact(Callback):
    """Writes ``export/`` and ``metrics.json`` after a fit: the weights of the best validation.

    Args:
        config: of the run, stored in the artefact.
        compare: says more about the exported weights, such as ``evaluation.baselines.beside``.
    """

    def __init__(self, config: dict[str, Any], compare: Compare | None = None) -> None:
        self.config, self.compare = config, compare
        self.validations: list[dict[str, Any]] = []  # metrics of each, "step" among them
        self.seconds = 0.0
        self._since: float | None = None  # not started
        self._logged: dict[str, float] = {}  # before the interruption

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run must know of the time before."""
        return {"validations": self.validations, "seconds": self._elapsed()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting."""
        self.validations, self.seconds = state_dict["validations"], state_dict["seconds"]

    def _elapsed(self) -> float:
        running = 0.0 if self._since is None else time.monotonic() - self._since
        return self.seconds + running

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keep what was logged last: a resumed run may end, or validate, before it logs anew."""
        checkpoint["logged"] = metrics_of(trainer)

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Take it back."""
        self._logged = checkpoint.get("logged", {})

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Have Lightning, which has just forgotten all metrics, know them again."""
        logged = {name: torch.tensor(value) for name, value in self._logged.items()}
        trainer.callback_metrics.update(logged)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._since = time.monotonic()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember the metrics."""
        if not trainer.sanity_checking:
            found = measured(trainer, stage_of(pl_module))
            self.validations.append({"step": trainer.global_step, **found})

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Load the best weights on every rank, write on the first."""
        seconds = self._elapsed()
        stage = stage_of(pl_module)
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, Doctor):
                callback.look_back(trainer, stage)
        step = load_best(trainer, pl_module)
        check_weights(stage)
        with gathered(trainer):
            stage.finalize()
        rows = {row["step"]: row for row in self.validations}
        last = trainer.global_step  # of a run that was resumed at its end, only the rows know more
        logged = metrics_of(trainer)
        if last not in rows:  # those of another step's weights
            logged = {name: value for name, value in logged.items() if name[:4] != "val/"}
        final = {"step": last, **rows.get(last, {}), **logged}
        exported = rows.get(step, final)
        with whole_networks(stage):
            self._write(trainer, stage, step, seconds, exported, final)
        trainer.strategy.barrier("export")

    def _write(
        self,
        trainer: Trainer,
        stage: StageModule,
        step: int,
        seconds: float,
        exported: dict[str, Any],
        final: dict[str, Any],
    ) -> None:
        """Write artefact and metrics, on rank 0 alone."""
        if trainer.is_global_zero:
            found = self.compare(stage, step, seconds) if self.compare else None
            found = found or Beside({}, {}, {}, [])
            exported = with_more(exported, found)
            folder = Path(trainer.default_root_dir)
            with replacing(folder / "export", ARTEFACT_FILE) as unfinished:
                stage.export(unfinished, self.config, exported)
            summary = {
                "stage": stage.stage,
                "seconds": round(seconds, 3),
                "exported": exported,
                "final": final,
                "validations": self.validations,
                **found.summary,
            }
            for callback in trainer.callbacks:  # type: ignore[attr-defined]
                if isinstance(callback, BandWatch):
                    summary["bands"] = callback.summary()
                if isinstance(callback, Doctor):
                    summary["doctor"] = callback.found
            write_metrics(folder, summary)
            for name, text in found.files.items():
                write_text(folder / name, text)
            if found.lines:
                say("\n".join(found.lines))
            rank_zero_info(exported_line(stage, exported, int(final["step"]), folder))


def write_metrics(folder: Path, summary: dict[str, Any]) -> None:
    """Write ``metrics.json``; what is not finite becomes null."""
    text = json.dumps(finite(summary), indent=1, allow_nan=False)
    write_text(folder / "metrics.json", text + "\n")


def exported_line(
    module: LightningModule, exported: dict[str, Any], steps: int, folder: Path
) -> str:
    """Which weights were exported, and how good they are."""
    monitor: Any = module.monitor
    value = exported.get(monitor.metric) if monitor else None
    best = "" if value is None else f", best {monitor.metric} {value:.4g},"
    return f"exported step {int(exported['step'])} of {steps}{best} to {folder / 'export'}"


def metrics_of(trainer: Trainer) -> dict[str, float]:
    """What was logged last, as plain numbers."""
    metrics = trainer.callback_metrics.items()
    return {name: float(value) for name, value in metrics if not name.startswith("lr-")}


def measured(trainer: Trainer, stage: StageModule) -> dict[str, Any]:
    """The metrics of a validation, with ``intervals`` of those that have one: [low, high, n]."""
    metrics = metrics_of(trainer)
    known = {name: list(found) for name, found in stage.intervals.items() if name in metrics}
    return metrics | ({"intervals": known} if known else {})


def with_more(metrics: dict[str, Any], found: Beside) -> dict[str, Any]:
    """The metrics of a validation, and more of them."""
    known = metrics.get("intervals", {}) | {n: list(one) for n, one in found.intervals.items()}
    return {**metrics, **found.metrics, **({"intervals": known} if known else {})}


def load_best(trainer: Trainer, pl_module: LightningModule) -> int:
    """Load the weights that the module's monitor selects, if any, and return their step."""
    ours = [c for c in trainer.checkpoint_callbacks if isinstance(c, StageCheckpoint)]
    path = ours[0].best_model_path if ours else ""
    if not path:
        return trainer.global_step
    checkpoint = trainer.strategy.load_checkpoint(path)
    step = int(checkpoint["global_step"])
    if step != trainer.global_step:
        pl_module.on_load_checkpoint(checkpoint)
        trainer.strategy.load_model_state_dict(checkpoint, strict=pl_module.strict_loading)
    return step
