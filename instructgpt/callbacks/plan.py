"""What a run is going to do, said before, and compared after."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn

from instructgpt.callbacks.common import stage_of
from instructgpt.modules.base import StageModule
from instructgpt.modules.bfloat16 import bfloat16_lines
from instructgpt.modules.memory import Plan, memory_plan, most_bytes, used_line, where
from instructgpt.modules.placement import placement_of
from instructgpt.modules.sharding import gathered
from instructgpt.modules.work import work_lines
from instructgpt.terminal import say
from instructgpt.types import UserError


def plan_of(stage: StageModule, strategy: Any) -> tuple[list[tuple[str, str]], Plan]:
    """What is about to happen and how, as lines of (name, value), and the memory it needs.

    Args:
        stage: whose networks are built, or sizes without weights.
        strategy: of the trainer, as asked for or as built.
    """
    precision, kind = where(trainer := stage.trainer)
    placement = placement_of(strategy, trainer.world_size)
    device = trainer.strategy.root_device
    memory = memory_plan(stage.trained_networks(), stage.memory(), device, placement)
    steps = stage.planned_steps()
    lines = stage.plan() + bfloat16_lines(stage, precision, kind)
    return lines + work_lines(stage.work(1 if steps is None else steps), steps), memory


class PlanPrinter(Callback):
    """Prints the plan of a stage, and compares it with steps done and memory used at the end."""

    def __init__(self) -> None:
        self._planned: int | None = None
        self.memory: Plan | None = None  # as planned
        self.used = 0  # bytes at the peak; 0 where nobody says

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the plan."""
        stage = stage_of(pl_module)
        self._planned = stage.planned_steps()
        with gathered(trainer):  # by every rank: it tries networks out together
            steps, self.memory = plan_of(stage, trainer.strategy)
        if not trainer.is_global_zero:
            return
        lines = steps + self.memory.lines
        width = max((len(name) for name, _ in lines), default=0)
        say(f"plan of {type(stage).__name__} in {trainer.default_root_dir}:")
        for name, value in lines:
            say(f"  {name:{width}}  {value}")
        if trainer.global_step:
            say(f"  {'going on from':{width}}  step {trainer.global_step}")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse steps that were not planned before anything is made of them; say what was used."""
        self._check(trainer)
        self.used = most_bytes(stage_of(pl_module).device)
        if self.memory is not None and self.used and trainer.is_global_zero:
            say("{}: {}".format(*used_line(self.memory, self.used)))

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look also where training did not begin, as the checkpoint has done it all."""
        if self._planned is not None:
            return
        self._planned = stage_of(pl_module).planned_steps()
        if self._planned is not None and trainer.global_step > self._planned:
            rank_zero_warn(
                f"the checkpoint has done {trainer.global_step} optimizer steps, "
                f"--trainer.max_epochs and max_steps ask for {self._planned}: nothing is trained"
            )
        else:
            self._check(trainer)

    def _check(self, trainer: Trainer) -> None:
        planned, done = self._planned, trainer.global_step
        # max_time, EarlyStopping and the like end a run early by setting should_stop.
        if planned is None or done == planned or (done < planned and trainer.should_stop):
            return
        raise UserError(
            f"planned {planned} optimizer steps, did {done}: nothing is exported; the way to end "
            "an epoch or a run early is trainer.should_stop"
        )
