"""The loss scale of ``--trainer.precision 16-mixed``, and the steps that it was too high for."""

from __future__ import annotations

import warnings
from typing import Any

from lightning.pytorch.utilities import rank_zero_warn


def loss_scale(trainer: Any) -> float:
    """What losses are multiplied by before their gradient; 1 where nothing is.

    Args:
        trainer: of the run.
    """
    scaler = _scaler(trainer)
    return 1.0 if scaler is None else float(scaler.get_scale())


class SkippedSteps:
    """Counts the optimizer steps that change nothing: a gradient was beyond float16.

    Such a step has had its rows: the place in the data, schedules, ``max_steps`` and checkpoints
    count it, and a run goes on as it would have. Weights, moments and Adam's own count of steps,
    which corrects their bias, stay as they are; the scale is lowered.
    """

    def __init__(self) -> None:
        """Start with none."""
        self.count = 0
        self.now = False  # whether the step at hand is one

    def see(self, module: Any, finite: bool) -> bool:
        """Whether the step at hand may go on: its gradient is finite, or will be left out.

        Below a scale of 1 there is nothing left to lower: the gradient itself is not finite.

        Args:
            module: stage that is about to step.
            finite: the gradient of the step is, on every rank.
        """
        self.now, trainer, scaler = False, module.trainer, _scaler(module.trainer)
        if scaler is None:
            return finite
        if not finite and (scale := loss_scale(trainer)) >= 1:
            self.now, self.count = True, self.count + 1
            # The schedule goes on where the first step is skipped: torch takes it for a mistake.
            warnings.filterwarnings("ignore", r".*Detected call of `lr_scheduler\.step")
            less = scale * scaler.get_backoff_factor()
            rank_zero_warn(
                f"the gradient of optimizer step {module.global_step + 1} is not finite at a loss "
                f"scale of {scale:g}: the step changes nothing, and the scale becomes {less:g}"
            )
        if module.logs_step:
            module.log("train/skipped_steps", float(self.count))
        return finite or self.now


def _scaler(trainer: Any) -> Any:
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    return scaler if scaler is not None and scaler.is_enabled() else None
