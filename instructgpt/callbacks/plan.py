"""What a run is going to do, said before, and compared after."""

from __future__ import annotations

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn

from instructgpt.callbacks.common import stage_of
from instructgpt.terminal import say


class PlanPrinter(Callback):
    """Prints the plan of a stage, and compares it with the optimizer steps done at the end."""

    def __init__(self) -> None:
        self._planned: int | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the plan."""
        stage = stage_of(pl_module)
        self._planned = stage.planned_steps()
        if not trainer.is_global_zero:
            return
        lines = stage.plan()
        width = max((len(name) for name, _ in lines), default=0)
        say(f"plan of {type(stage).__name__} in {trainer.default_root_dir}:")
        for name, value in lines:
            say(f"  {name:{width}}  {value}")
        if trainer.global_step:
            say(f"  {'going on from':{width}}  step {trainer.global_step}")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Warn when the steps done are not those planned, unless the run was told to stop early."""
        stopped_early = trainer.should_stop  # max_time, EarlyStopping and the like set it
        if self._planned is None or stopped_early or trainer.global_step == self._planned:
            return
        rank_zero_warn(f"planned {self._planned} optimizer steps, did {trainer.global_step}")
