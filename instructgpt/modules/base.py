"""What every stage has in common: networks from artefacts, one optimizer, exact gradient means."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Literal, NamedTuple, Self

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics import Metric

from instructgpt.algorithms.schedule import Cosine, Schedule
from instructgpt.functional.intervals import Interval
from instructgpt.models.artefact import check_artefact, read_artefact
from instructgpt.models.finite import check_finite
from instructgpt.models.forward import exact_tables
from instructgpt.models.load import Network
from instructgpt.models.template import Template
from instructgpt.models.tokenizer import tokenizer_fingerprint
from instructgpt.models.trained import Trained
from instructgpt.modules.clock import RolloutClock
from instructgpt.modules.finite import FiniteGuard, Ids, check_weights
from instructgpt.modules.fits import check_data, check_text_format
from instructgpt.modules.memory import Memory
from instructgpt.modules.optimizer import clip, scale_gradients, set_options
from instructgpt.modules.origins import as_plain, check_batching, check_origins
from instructgpt.modules.pieces import Pieces, averaged_over
from instructgpt.modules.sharding import shard_stage
from instructgpt.modules.starting import without_weights
from instructgpt.modules.telling import silent, warn
from instructgpt.modules.trained import add_frozen, drop_frozen, has_trainer
from instructgpt.modules.work import Cost
from instructgpt.rewards.base import RewardFunction
from instructgpt.rollout.ema import WeightAverage
from instructgpt.types import Origin, Progress, Tell, UserError

LOSS_SCALE = 1024.0
"""Keeps sums over tokens in a range half precision likes; a power of two, so it rounds nothing."""


class Monitor(NamedTuple):
    """The metric that selects a checkpoint, and which direction is better."""

    metric: str
    mode: Literal["min", "max"]


class StageModule(LightningModule, ABC):
    """Base of the stages."""

    stage: ClassVar[str]
    batch_type: ClassVar[type]
    predict_type: ClassVar[type]
    data_module: ClassVar[str]  # the name of the data module the stage trains on
    predict_data: ClassVar[str]
    monitor: Monitor | None = None
    average: WeightAverage | None = None  # of trained weights, if one is kept

    def __init__(
        self,
        init_from: str | None,
        architecture: dict[str, Any] | None,
        tokenizer: str | None,
        network: Network,
        trained: Trained | None,
        optimizer: OptimizerCallable,
        schedule: Schedule,
    ) -> None:
        """Remember how to build; networks are built in ``configure_model``."""
        super().__init__()
        if (init_from is None) == (architecture is None):
            raise UserError(
                "model.init_from or model.architecture must be given, and not both, got "
                f"init_from={init_from!r} and architecture={architecture!r}"
            )
        self.init_from, self.architecture = init_from, architecture
        self.network, self.trained = network, trained
        self.make_optimizer, self.schedule = optimizer, schedule
        self.progress: Progress = silent  # a callback replaces it
        self.tell: Tell = warn  # a callback collects what is found
        self.logs_step = True  # a callback says where nobody reads it
        self.rollout_clock, self._expected = RolloutClock(), LOSS_SCALE
        self.samples: list[dict[str, Any]] = []  # shown and emptied by a callback
        self.intervals: dict[str, Interval] = {}  # of what the last validation logged
        self.tokenizer: Any = None
        self.template: Template
        self.total_steps = 1  # of the schedule, known when the optimizer is made
        self.origins: dict[str, Origin] = {}  # weights that were loaded, by the argument
        self._options: list[dict[str, Any]] = []  # of the optimizer's groups, as asked for
        self._sums: dict[str, Tensor] = {}  # of the micro-batches of a step
        self.step_losses: list[float] = []  # of the optimizer steps so far
        self.guard, self.pieces, self._built = FiniteGuard(), Pieces(), False

    @property
    def data(self) -> Any:
        """The data module of the run; what a stage uses of it stands in ``types.py``."""
        return self.trainer.datamodule  # type: ignore[attr-defined]

    # -- what a stage says about itself

    @abstractmethod
    def build(self) -> None:
        """Create the networks."""

    @abstractmethod
    def trained_networks(self) -> Sequence[nn.Module]:
        """The networks the optimizer changes, for the plan."""

    @abstractmethod
    def export(self, path: Path, config: dict[str, Any], metrics: dict[str, float]) -> None:
        """Write the artefact that the next stage starts from.

        Args:
            path: folder to create.
            config: of the run, stored in the artefact.
            metrics: final ones, stored in the artefact.
        """

    @property
    def reward_function(self) -> RewardFunction | None:
        """What scores responses in this stage, if anything does."""
        return None

    def frozen_networks(self) -> list[nn.Module]:
        """The networks beside those that learn."""
        return [] if self.reward_function is None else self.reward_function.networks()

    def exchange(self, others: Mapping[nn.Module, nn.Module]) -> None:
        """Use other networks in the place of some of its own, from each to the other."""
        for name, network in list(self.named_children()):
            setattr(self, name, others.get(network, network))

    def finalize(self) -> None:
        """Do what comes between the best weights and the export; called once, on every rank."""

    def planned_steps(self) -> int | None:
        """Optimizer steps this fit will do; None where only time limits it."""
        steps = self.trainer.estimated_stepping_batches
        return int(steps) if steps != float("inf") else None

    def rollouts_left(self) -> int:
        """Rollouts that this fit has not completed; none in a stage that makes none."""
        return 0

    def plan(self) -> list[tuple[str, str]]:
        """What is about to happen, as lines of (name, value)."""
        trainer, steps = self.trainer, self.planned_steps()
        batches = trainer.num_training_batches
        return [
            ("processes", f"{trainer.world_size}"),
            ("batches per epoch", f"{batches:,} on each process"),
            ("accumulated per step", f"{trainer.accumulate_grad_batches}"),
            ("optimizer steps", f"{steps:,}" if steps is not None else "until the time is up"),
        ]

    def memory(self) -> Memory:
        """What this fit has in memory beside its networks and its optimizer."""
        return Memory(keeps_gradients=self.trainer.accumulate_grad_batches > 1)

    def work(self, steps: int) -> list[Cost]:
        """Tokens and operations of so many optimizer steps."""
        return []

    # -- Lightning's hooks

    def setup(self, stage: str) -> None:
        """Take tokenizer and template from the data, and check that everything fits together."""
        self.check_data(self.data, predicts=stage == "predict")
        self.tokenizer, self.template = self.data.tokenizer, self.data.template
        if self.init_from is not None and (artefact := read_artefact(self.init_from)) is not None:
            check_artefact(artefact, self.tokenizer, self.template)
        if stage != "predict":  # its networks too are what a checkpoint is compared with
            with without_weights(self):
                self._prepare_reward()

    def _prepare_reward(self) -> None:
        if self.reward_function is not None:
            self.reward_function.prepare(self.tokenizer, self.template, self.device)

    def check_data(self, data: Any, predicts: bool) -> None:
        """Refuse a data module whose batches are for another stage, before it reads anything."""
        name, wanted = type(self).__name__, (self.batch_type, self.data_module)
        if predicts:
            name, wanted = f"predict with {name}", (self.predict_type, self.predict_data)
        check_data(data, *wanted, name)

    def configure_model(self) -> None:
        """Build once; Lightning calls this again for every verb."""
        if not self._built:
            with without_weights(self, self.trained):
                self.build()
            self._built = True
            shard_stage(self, self.trained_networks(), self.frozen_networks())

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Move and convert, but leave computed tables as they are.

        ``--trainer.precision bf16-true`` would round rotary frequencies, which no checkpoint holds:
        the exported network would not be the trained one.
        """
        with exact_tables(self):
            return super().to(*args, **kwargs)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The optimizer's groups: one, unless a stage has several networks."""
        return [{"params": [p for p in self.parameters() if p.requires_grad], "name": self.stage}]

    def schedule_position(self, step: int) -> tuple[int, int]:
        """Where an optimizer step stands in the schedule, as (position, total)."""
        return step, self.total_steps

    def configure_optimizers(self) -> Any:
        """One optimizer with parameter groups and a schedule that moves every step."""
        if self.planned_steps() is None and isinstance(self.schedule, Cosine):
            raise UserError(
                "model.schedule Cosine must know its length: give --trainer.max_epochs or max_steps"
            )
        self.total_steps = self.planned_steps() or 1
        try:
            optimizer = self.make_optimizer(self.parameter_groups())
        except ValueError as error:  # such as a negative learning rate
            raise UserError(f"model.optimizer: {error}") from error
        scheduler = LambdaLR(optimizer, lambda i: self.schedule.factor(*self.schedule_position(i)))
        groups = optimizer.param_groups
        self._options = [{n: v for n, v in group.items() if n != "params"} for group in groups]
        steps = {"scheduler": scheduler, "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": steps}

    @property
    def peak_rate(self) -> float:
        """The learning rate that was asked for, of the first group."""
        return float(self._options[0].get("initial_lr", 0.0)) if self._options else 0.0

    def get_ready(self) -> None:
        """Do what needs the device and the final number formats, at the start of a verb."""
        for metric in self.modules():
            if isinstance(metric, Metric):
                metric.set_dtype(torch.float32)  # sums of many small numbers
        self._prepare_reward()

    def on_fit_start(self) -> None:
        """Get ready."""
        self.get_ready()

    def on_validation_start(self) -> None:
        """Get ready, unless the fit around it has."""
        if self.trainer.state.fn != TrainerFn.FITTING:
            self.get_ready()

    on_test_start = on_validation_start

    def on_train_start(self) -> None:
        """Obey what was asked for: a checkpoint has brought back the optimizer's old options.

        The rates are what the schedule says now: its length can have changed on resume, too.
        """
        self.pieces.forget()
        for config in self.trainer.lr_scheduler_configs:
            set_options(config.scheduler, self._options)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Name all that the state depends on, so that resuming with anything else is refused.

        Weights that are not finite must not take the place of good ones.
        """
        if self.init_from is not None:
            drop_frozen(self, checkpoint)
        known = checkpoint.setdefault("instructgpt", {})
        if has_trainer(self):
            check_weights(self)
            known.update(origins=as_plain(self.all_origins()), batching=self.batching())
        known["class_path"] = f"{type(self).__module__}.{type(self).__qualname__}"
        known.update(self.text_format(), losses=self.step_losses[:], skipped=self.guard.skips.count)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse to go on with tokens that mean something else, or with other weights or rows."""
        if not has_trainer(self):  # loaded by hand, without data
            return
        check_finite("ckpt_path", checkpoint["state_dict"])
        if self.init_from is not None:
            add_frozen(self, checkpoint)
        known = checkpoint["instructgpt"]
        check_text_format(known, self.text_format())
        if self.trainer.state.fn == TrainerFn.FITTING:
            check_origins(known.get("origins", {}), self.all_origins())
            check_batching(known.get("batching", {}), self.batching())
            self.step_losses = list(known.get("losses", []))
            self.guard.skips.count = known.get("skipped", 0)
        elif self.trained is not None:  # trained beside weights that the checkpoint does not hold
            ours = {n: o for n, o in self.origins.items() if not n.startswith("model.reward.")}
            check_origins(known.get("origins", {}), ours)

    def all_origins(self) -> dict[str, Origin]:
        """All that a run is made from: weights that were loaded, those of the reward, and rows."""
        rewards = self.reward_function.origins() if self.reward_function is not None else {}
        named = {f"model.reward.{name}": origin for name, origin in rewards.items()}
        return {**self.origins, **named, **self.data.origins}

    def batching(self) -> dict[str, int]:
        """What the place in an epoch is counted in."""
        return {
            "trainer.accumulate_grad_batches": self.trainer.accumulate_grad_batches,
            "data.batch_size x processes": self.data.batch_size * self.data.world_size,
        }

    def text_format(self) -> dict[str, str]:
        """What tokens mean: fingerprints of tokenizer and template."""
        template = self.template.fingerprint(self.tokenizer)
        return {"tokenizer": tokenizer_fingerprint(self.tokenizer), "template": template}

    def say_intervals(self, prefix: str, found: Mapping[str, Interval]) -> None:
        """Keep the intervals of what is logged, for ``metrics.json`` and the model card.

        Args:
            prefix: of the names, ``val`` or ``test``.
            found: by the rest of the name.
        """
        self.intervals |= {f"{prefix}/{name}": interval for name, interval in found.items()}

    # -- exact means over everything that one optimizer step sees

    def summed_loss(
        self,
        total: Tensor,
        count: Tensor,
        ids: Ids = tuple,
        expected: float = LOSS_SCALE,
        sums: Mapping[str, Tensor] = MappingProxyType({}),
    ) -> Tensor:
        """Turn a sum into a loss whose gradient becomes the mean over the whole optimizer step.

        Their number is often known only after the last batch of the step, on all ranks. So the
        gradient is divided by a guess, and what that was wrong by is made good just before the
        step: the result does not depend on how the step was cut into micro-batches and ranks.

        Args:
            total: sum of the losses of this micro-batch.
            count: how many elements it is over.
            ids: of the samples, for messages.
            expected: the guess, the same in the whole step; what is known before needs no repair.
            sums: further sums over the same elements.
        """
        if not self.pieces.counts:
            return total * 0.0
        self.guard.see("the loss", total, ids)
        for name, value in {**sums, "loss": total, "count": count}.items():
            value = value.detach().float()
            self._sums[name] = self._sums[name] + value if name in self._sums else value
        self._expected = expected
        return total * (averaged_over(self.trainer) / expected)

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Optimizer) -> None:
        """Zero the gradient before the first backward, which a piece may have had."""
        self.pieces.zero_once(self)

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None
    ) -> None:
        """Step, and let the gradient go: it would be there during the next forward pass."""
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        optimizer.zero_grad()

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Check losses and gradients, divide by the count of the step, and log its means."""
        sums, self._sums = self.guard.check_step(self, optimizer, self._sums), {}
        if sums:
            scale_gradients(optimizer, self._expected / sums["count"])
            self.step_losses.append(sums["loss"] / sums["count"])
            self.log_step(sums)

    def log_step(self, sums: dict[str, float]) -> None:
        """Log the means of an optimizer step, from sums over all ranks; ``count`` divides them."""
        if not self.logs_step:
            return
        count = sums.pop("count")
        for name, value in sums.items():
            self.log(f"train/{name}", value / count, prog_bar=name == "loss")

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip as Lightning does, each parameter group by itself, after logging its norm."""
        norms = clip(optimizer, gradient_clip_val, gradient_clip_algorithm)
        if self.logs_step and not self.guard.skips.now:
            self.log_dict({f"gradient_norm/{name}": norm for name, norm in norms.items()})

    def all_sum(self, tensor: Tensor) -> Tensor:
        """Sum over all ranks."""
        return self.trainer.strategy.reduce(tensor, reduce_op="sum")  # type: ignore[return-value]
