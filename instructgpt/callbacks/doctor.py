"""What is wrong with a run, before and while it trains: each finding once, everywhere."""

from __future__ import annotations

from copy import deepcopy
from statistics import fmean
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn
from torch.optim import Optimizer

from instructgpt.callbacks.checks import BEFORE, ROLLOUT, first_ratio
from instructgpt.callbacks.common import is_debugging, stage_of
from instructgpt.callbacks.lightning_private import epoch_ends
from instructgpt.callbacks.limits import LimitWatch, Opinions
from instructgpt.modules.base import StageModule
from instructgpt.modules.moved import (
    AT_THE_END,
    FEWEST_STEPS,
    no_descent,
    rate_option,
    run_of,
    standing_still,
)
from instructgpt.modules.ppo import PPOModule
from instructgpt.modules.shown import show_table
from instructgpt.rollout.metrics import sampler_finding
from instructgpt.terminal import say
from instructgpt.types import Diagnosis, RunFailedError, require


def learning_by_heart(steps: int | None) -> dict[str, Any]:
    """Options of the trainer that learns one batch by heart instead of training.

    Args:
        steps: how many; None: it trains.
    """
    if steps is None:
        return {}
    nothing = {"limit_val_batches": 0, "logger": False, "enable_checkpointing": False}
    return {"overfit_batches": 1, "max_epochs": -1, "max_steps": steps, **nothing}


class Doctor(Callback):
    """Looks for what usually goes wrong, and says it once: what, why it matters, what to do.

    In the terminal, as a table in the loggers, and in ``metrics.json``. Nothing is changed.

    Args:
        overfit: instead of the run, take so many steps on its first batch alone and say whether the
            loss falls (with rollouts: whether the score rises); in OUTPUT/overfit, nothing is
            exported, and the exit code is 1 if it does not. At least 8.
    """

    def __init__(self, overfit: int | None = None) -> None:
        rule = f">= {FEWEST_STEPS} or null"
        require(overfit is None or overfit >= FEWEST_STEPS, "doctor.overfit", rule, overfit)
        self.overfit = overfit
        self.scores: list[float] = []  # of rollouts, where one batch is overfitted
        self.found: list[dict[str, Any]] = []
        self._waiting: list[Diagnosis] | None = []  # until it is known what a resumed run has said
        self._trainer: Trainer | None = None
        self._looked = -1  # phase whose rollout was looked at
        self.limits, self.opinions = LimitWatch(), Opinions()

    def state_dict(self) -> dict[str, Any]:
        """What has been said, and what is being watched."""
        watched = {"limits": vars(self.limits), "opinions": vars(self.opinions)}
        return deepcopy({"found": self.found, **watched})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Do not say it again, and go on watching; what an end has shown is of that end."""
        self.found = [one for one in state_dict["found"] if one["name"] != AT_THE_END]
        vars(self.limits).update(state_dict["limits"])
        vars(self.opinions).update(state_dict["opinions"])

    def tell(self, finding: Diagnosis) -> None:
        """Say it, unless it has been.

        Args:
            finding: what was found.
        """
        if self._waiting is not None:
            self._waiting.append(finding)
        elif self._note(finding):
            rank_zero_warn(f"doctor: {finding.name}: {finding}")

    def _note(self, finding: Diagnosis) -> bool:
        """Write it down, unless its like is; whether it was not."""
        if any(one["name"] == finding.name for one in self.found):
            return False
        trainer = self._trainer
        assert trainer is not None
        self.found.append({**finding._asdict(), "step": trainer.global_step})
        if trainer.is_global_zero and not is_debugging(trainer):
            show_table(trainer.loggers, "doctor", self.found, trainer.global_step)
        return True

    # -- before

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Listen to what the stage finds."""
        if self.overfit is not None:
            batches = trainer.overfit_batches  # type: ignore[attr-defined]
            require(batches == 1, "trainer.overfit_batches", "1 with doctor.overfit", batches)
        if stage == "fit":
            self._trainer, stage_of(pl_module).tell = trainer, self.tell

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say what was found while the run was built, and note what the data have said."""
        waiting, self._waiting = self._waiting, None
        for finding in waiting or ():
            self.tell(finding)
        for finding in stage_of(pl_module).data.findings:
            self._note(finding)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at rows, tokens and memory."""
        for check in BEFORE:
            self._tell_any(check(stage_of(pl_module)))

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Look at a rollout before it is learned from."""
        stage = stage_of(pl_module)
        if isinstance(stage, PPOModule) and self._looked != trainer.current_epoch:
            self._looked = trainer.current_epoch
            for check in ROLLOUT:
                self._tell_any(check(stage.phase.metrics, stage.batches.rollout_batch_size))

    def _tell_any(self, finding: Diagnosis | None) -> None:
        if finding is not None:
            self.tell(finding)

    # -- while it trains

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Look at a phase that has ended."""
        stage = stage_of(pl_module)
        if isinstance(stage, PPOModule) and epoch_ends(trainer):
            self.scores.append(stage.phase.metrics["ppo/score"])
            self._tell_any(first_ratio(stage.phase.metrics, stage.reuse_logprobs))
            self._tell_any(sampler_finding(stage.phase.metrics))
            for finding in () if is_debugging(trainer) else self.limits.see(stage.phase.metrics):
                self.tell(finding)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at whether reward and judge part."""
        interval = stage_of(pl_module).intervals.get("val/judge")
        if trainer.state.fn == TrainerFn.FITTING and interval is not None:
            logged = trainer.callback_metrics
            score, judge = float(logged["val/score"]), float(logged["val/judge"])
            self._tell_any(self.opinions.see(score, judge, interval))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at whether anything was learned."""
        if self.overfit is not None:
            self._judge_overfit(stage_of(pl_module), trainer)
        else:
            self.look_back(trainer, stage_of(pl_module))

    def look_back(self, trainer: Trainer, stage: StageModule) -> None:
        """Say it if nothing was learned; asked also where a run is resumed at its end.

        Args:
            trainer: of the run.
            stage: with the weights of its last step.
        """
        if not is_debugging(trainer):
            metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
            self._tell_any(standing_still(run_of(stage, metrics)))

    def _judge_overfit(self, stage: StageModule, trainer: Trainer) -> None:
        """Say whether one batch was learned by heart.

        Raises:
            RunFailedError: it was not.
        """
        down = not isinstance(stage, PPOModule)
        values = stage.step_losses if down else [-score for score in self.scores]
        if len(values) < FEWEST_STEPS or (problem := no_descent(values)):
            problem = problem if len(values) >= FEWEST_STEPS else f"only {len(values)} steps"
            raise RunFailedError(
                f"doctor.overfit: one batch is not learned in {self.overfit} steps: {problem}; "
                f"raise {rate_option(stage)} (now {stage.peak_rate:g}), or look for targets, masks "
                "or a reward that do not follow from the text"
            )
        if trainer.is_global_zero:
            few = len(values) // 4
            first, last = (abs(fmean(part)) for part in (values[:few], values[-few:]))
            what = "loss fell" if down else "score rose"
            say(f"doctor.overfit: the {what} from {first:.4g} to {last:.4g} in {len(values)} steps")
