"""The bands of a recipe beside the curves of a run, and a line when a run leaves them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_only

from instructgpt.callbacks.bands import Bands, Watch, look_at, setting_of
from instructgpt.callbacks.common import StepWatch, is_debugging, stage_of
from instructgpt.callbacks.lightning_private import epoch_ends
from instructgpt.modules.base import StageModule
from instructgpt.modules.trained import drop_frozen
from instructgpt.terminal import say

VALIDATION = ("val/",)
STEP = ("train/", "gradient_norm/")
"""Metrics of single optimizer steps; what is neither is of a whole phase (or epoch)."""
MOST_SAID = 3
"""Times that a metric is said to leave and to come back; the rest is counted."""


class BandWatch(Callback):
    """Draws bands beside the curves, says when a metric leaves one, and sums up at the end.

    Bands of another setting (other weights, rows or options, another length unless they are of
    first steps) are drawn all the same, which one line says; leaving them then means nothing, and
    nothing is said of it.

    Args:
        bands: of the recipe.
        config: of the run.
    """

    def __init__(self, bands: Bands, config: Mapping[str, Any]) -> None:
        self.bands, self.config = bands, config
        self.watches = {name: Watch() for name in bands.metrics}
        self.others: list[str] = []  # what differs from the runs of the bands
        self._total: int | None = None
        self._shown = False  # the place of a step in the bands is known
        self._steps, self._unknown_said = StepWatch(), False

    def state_dict(self) -> dict[str, Any]:
        """What was seen so far."""
        return {name: watch.state() for name, watch in self.watches.items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there; bands may be others than they were."""
        for name in self.watches:
            self.watches[name] = Watch(state_dict.get(name))

    def summary(self) -> dict[str, Any]:
        """For ``metrics.json``."""
        seen = {} if self.others else {name: one.state() for name, one in self.watches.items()}
        return {
            "runs": self.bands.runs,
            "first_steps": self.bands.first_steps,
            "other_setting": self.others,
            "metrics": seen,
        }

    # -- beside the curves

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare the setting with that of the bands."""
        if is_debugging(trainer):
            return
        stage = stage_of(pl_module)
        self._total = stage.planned_steps()
        self._shown = self.bands.at_steps or self._total is not None
        origins = stage.all_origins()
        made = (origins, stage.batching(), trained_weights(stage))
        places = {name: origin.place for name, origin in origins.items()}
        self.others = self.bands.others(setting_of(self.config, *made), self._total, places)
        if self.others:
            shown = "drawn, but not judged by" if self._shown else "not shown"
            _say(f"the recipe's bands are {shown}: this run has {'; '.join(self.others)}")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw them wherever metrics are drawn."""
        if not self._shown or not trainer.loggers:
            return
        curves = BandCurves(self.bands, trainer.loggers, self._total)
        curves.lay_out()
        trainer.loggers = [*trainer.loggers, curves]

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw no more."""
        trainer.loggers = [one for one in trainer.loggers if not isinstance(one, BandCurves)]

    # -- inside or not

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Note the step."""
        self._steps.begin(trainer)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Judge what the step has logged, and what its phase has if it was the last."""
        if not self._steps.completed(trainer):
            return
        if stage_of(pl_module).logs_step:
            self._judge(trainer, STEP)
        if epoch_ends(trainer):
            self._judge(trainer, ())

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Judge what a validation has logged."""
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            return
        self._judge(trainer, VALIDATION)
        logged = [name for name in trainer.callback_metrics if name.startswith(VALIDATION)]
        missing = [n for n in self.bands.metrics if n.startswith(VALIDATION) and n not in logged]
        if missing and not self._unknown_said:
            self._unknown_said = True
            _say(
                f"the recipe's bands have {', '.join(missing)}, which this run does not log "
                f"(it logs {', '.join(logged)})"
            )

    def _judge(self, trainer: Trainer, groups: tuple[str, ...]) -> None:
        if self.others or not self._shown:
            return
        logged, step = trainer.callback_metrics, trainer.global_step
        for name, watch in self.watches.items():
            fits = name.startswith(groups) if groups else not name.startswith(STEP + VALIDATION)
            bounds = self.bands.bounds(name, step, self._total)
            if not fits or name not in logged or math.isnan(bounds[0]):
                continue
            value = float(logged[name])
            change = watch.see(step, value, *bounds)
            if change and len(watch.left) <= MOST_SAID:
                _say(self._line(name, step, value, bounds, change))

    def _line(
        self, name: str, step: int, value: float, bounds: tuple[float, float], change: str
    ) -> str:
        where = f"{bounds[0]:.4g} to {bounds[1]:.4g} in {self.bands.runs} runs"
        if change == "back":
            return f"{name} {value:.4g} at step {step} is in its band again ({where})"
        return f"{name} {value:.4g} at step {step} is {change}: its band is {where}; " + look_at(
            name, change
        )

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sum up."""
        if not self.others and self._shown:
            _say(self._end_line())

    def _end_line(self) -> str:
        seen = {name: watch for name, watch in self.watches.items() if watch.values}
        left = [f"{name} {watch.spans()}" for name, watch in seen.items() if watch.left]
        first = self.bands.first_steps
        part = f"the first {first:,} steps of " if first else ""
        start = f"bands of {part}{self.bands.runs} runs"
        if left:
            return f"{start}: outside were {' | '.join(left)}"
        if not seen:
            return f"{start}: nothing was logged that they have"
        return f"{start}: {', '.join(seen)} stayed inside"


class BandCurves(Logger):
    """Writes the bands of a metric wherever the metric is written, at the very same steps.

    TensorBoard draws a margin only so. Where a band says nothing it is NaN, which is no line.

    Args:
        bands: of the recipe.
        loggers: of the run.
        total: optimizer steps of the run, if their number is planned.
    """

    def __init__(self, bands: Bands, loggers: Sequence[Logger], total: int | None) -> None:
        super().__init__()
        self.bands, self.loggers, self.total = bands, list(loggers), total

    @property
    def name(self) -> str:
        """None of its own."""
        return "bands"

    @property
    def version(self) -> int:
        """The only one."""
        return 0

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Nothing."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write the bands of those that have one."""
        found: dict[str, float] = {}
        for name in filter(self.bands.metrics.__contains__, metrics):
            # Lightning counts a step when all that it logs is written, what logs itself before.
            done = (step or 0) + name.startswith(STEP + VALIDATION)
            bounds = self.bands.bounds(name, done, self.total)
            found |= zip(names_of(name), bounds, strict=True)
        for logger in self.loggers if found else ():
            logger.log_metrics(found, step)

    @rank_zero_only
    def lay_out(self) -> None:
        """Have TensorBoard draw metric and band in one chart, under "custom scalars"."""
        charts = {name: ["Margin", [name, *names_of(name)]] for name in self.bands.metrics}
        for logger in self.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_custom_scalars({"bands": charts})


@rank_zero_only
def _say(line: str) -> None:
    say(line)


def names_of(metric: str) -> tuple[str, str]:
    """Of the curves of its band, the lower and the upper one."""
    return f"bands/{metric}/low", f"bands/{metric}/high"


def trained_weights(stage: StageModule) -> int:
    """How many numbers a checkpoint has as weights."""
    checkpoint = {"state_dict": dict(stage.state_dict())}
    if stage.init_from is not None:
        drop_frozen(stage, checkpoint)
    return sum(weight.numel() for weight in checkpoint["state_dict"].values())
