"""What every stage has in common: networks from artefacts, one optimizer, exact gradient means."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
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
from instructgpt.models.adapters import Adapter
from instructgpt.models.artefact import check_artefact, read_artefact
from instructgpt.models.digest import weights_digest
from instructgpt.models.finite import check_finite
from instructgpt.models.forward import base_network, exact_tables, virtual_tokens
from instructgpt.models.load import Network, context_length
from instructgpt.models.template import Template
from instructgpt.models.tokenizer import tokenizer_fingerprint
from instructgpt.modules.clock import RolloutClock
from instructgpt.modules.finite import FiniteGuard, Ids, check_weights
from instructgpt.modules.memory import Need, memory_lines
from instructgpt.modules.origins import as_plain, check_batching, check_origins
from instructgpt.modules.trained import add_frozen, drop_frozen, has_trainer
from instructgpt.types import Origin, Progress, UserError

LOSS_SCALE = 1024.0
"""Keeps sums over tokens in a range half precision likes; a power of two, so it rounds nothing."""


def silent(part: str, done: int, total: int) -> None:
    """Report progress to nobody."""


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

    def __init__(
        self,
        init_from: str | None,
        architecture: dict[str, Any] | None,
        tokenizer: str | None,
        network: Network,
        adapter: Adapter | None,
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
        self.init_from = init_from
        self.architecture = architecture
        self.network = network
        self.adapter = adapter
        self.make_optimizer = optimizer
        self.schedule = schedule
        self.progress: Progress = silent  # a callback replaces it
        self.rollout_clock = RolloutClock()
        self.samples: list[dict[str, Any]] = []  # shown and emptied by a callback
        self.tokenizer: Any = None
        self.template: Template
        self.total_steps = 1  # of the schedule, known when the optimizer is made
        self.origins: dict[str, Origin] = {}  # weights that were loaded, by the argument
        self._built = False
        self._options: list[dict[str, Any]] = []  # of the optimizer's groups, as asked for
        self._sums: dict[str, Tensor] = {}
        self.guard = FiniteGuard()

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
        trainer = self.trainer
        steps = self.planned_steps()
        batches = trainer.num_training_batches
        lines = [
            ("processes", f"{trainer.world_size}"),
            ("batches per epoch", f"{batches:,} on each process"),
            ("accumulated per step", f"{trainer.accumulate_grad_batches}"),
            ("optimizer steps", f"{steps:,}" if steps is not None else "until the time is up"),
        ]
        return lines + self.memory_lines()

    def memory_needs(self) -> list[Need]:
        """What parts of this fit have in memory beside networks and optimizer."""
        return []

    def frozen_bytes(self) -> dict[str, int]:
        """Bytes of what is held and not trained, by name."""
        return {}

    def keeps_gradients(self) -> bool:
        """Whether gradients of earlier micro-batches are there when the next one begins."""
        return bool(self.trainer.accumulate_grad_batches > 1)

    def memory_lines(self) -> list[tuple[str, str]]:
        """What each network and each part of the fit need of memory, and the peak."""
        return memory_lines(
            self.trained_networks(),
            self.frozen_bytes(),
            self.memory_needs(),
            self.keeps_gradients(),
            self.device.type,
        )

    # -- Lightning's hooks

    def setup(self, stage: str) -> None:
        """Take tokenizer and template from the data, and check that everything fits together."""
        self.check_data(self.data, predicts=stage == "predict")
        self.tokenizer, self.template = self.data.tokenizer, self.data.template
        if self.init_from is not None and (artefact := read_artefact(self.init_from)) is not None:
            check_artefact(artefact, self.tokenizer, self.template)

    def check_data(self, data: Any, predicts: bool) -> None:
        """Refuse a data module whose batches are for another stage, before it reads anything."""
        expected = self.predict_type if predicts else self.batch_type
        if data is None or data.batch_type is not expected:
            wanted = self.predict_data if predicts else self.data_module
            given = type(data).__name__ if data is not None else "nothing"
            verb = "predict with " if predicts else ""
            raise UserError(f"{verb}{type(self).__name__} needs --data {wanted}, got {given}")

    def configure_model(self) -> None:
        """Build once; Lightning calls this again for every verb."""
        if not self._built:
            self.build()
            self._built = True

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Move and convert, but leave computed tables as they are.

        ``--trainer.precision bf16-true`` would round rotary frequencies, which no checkpoint holds:
        the exported network would not be the trained one.
        """
        with exact_tables(self):
            return super().to(*args, **kwargs)

    def check_context(self, network: nn.Module) -> None:
        """Refuse rows that are longer than the context of a network, without its prefix."""
        limit = context_length(base_network(network).config)  # type: ignore[arg-type]
        tokens = self.data.row_tokens
        if limit is not None and tokens > limit - virtual_tokens(network):
            raise UserError(
                "data.max_prompt_tokens + max_response_tokens (or a block) must fit into the "
                f"model's context of {limit - virtual_tokens(network)} tokens, got {tokens}"
            )

    def starts_from(self, network: nn.Module) -> None:
        """Remember the weights that training starts from; those from scratch follow from the seed.

        Args:
            network: what was loaded, without adapter and new head.
        """
        if self.init_from is not None:
            origin = Origin(self.init_from, weights_digest(network))
            self.origins["model.init_from"] = origin

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
        scheduler = LambdaLR(
            optimizer, lambda step: self.schedule.factor(*self.schedule_position(step))
        )
        self._options = [
            {name: value for name, value in group.items() if name != "params"}
            for group in optimizer.param_groups
        ]
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def get_ready(self) -> None:
        """Do what needs the device and the final number formats, at the start of a verb."""
        for metric in self.modules():
            if isinstance(metric, Metric):
                metric.set_dtype(torch.float32)  # sums of many small numbers

    def on_fit_start(self) -> None:
        """Get ready."""
        self.get_ready()

    def on_validation_start(self) -> None:
        """Get ready, unless the fit around it has."""
        if self.trainer.state.fn == "validate":
            self.get_ready()

    def on_test_start(self) -> None:
        """Get ready."""
        self.get_ready()

    def on_train_start(self) -> None:
        """Obey what was asked for: a checkpoint has brought back the optimizer's old options.

        The rates are what the schedule says now: its length can have changed on resume, too.
        """
        for config in self.trainer.lr_scheduler_configs:
            scheduler: Any = config.scheduler
            scheduler.base_lrs = [options["initial_lr"] for options in self._options]
            factors = zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)
            rates = [base * factor(scheduler.last_epoch) for base, factor in factors]
            groups = scheduler.optimizer.param_groups
            for group, options, rate in zip(groups, self._options, rates, strict=True):
                group.update(options, lr=rate)

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
        known.update(
            class_path=f"{type(self).__module__}.{type(self).__qualname__}",
            **self.text_format(),
        )

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse to go on with tokens that mean something else, or with other weights or rows."""
        if not has_trainer(self):  # loaded by hand, without data
            return
        check_finite("ckpt_path", checkpoint["state_dict"])
        if self.init_from is not None:
            add_frozen(self, checkpoint)
        known = checkpoint["instructgpt"]
        for name, ours in self.text_format().items():
            if (theirs := known.get(name, ours)) != ours:
                raise UserError(
                    f"ckpt_path: the checkpoint was trained with another {name} ({theirs}), "
                    f"--data has {ours}"
                )
        if self.trainer.state.fn == TrainerFn.FITTING:
            check_origins(known.get("origins", {}), self.all_origins())
            check_batching(known.get("batching", {}), self.batching())
        elif self.adapter is not None:  # trained beside weights that the checkpoint does not hold
            check_origins(known.get("origins", {}), self.origins)

    def all_origins(self) -> dict[str, Origin]:
        """All that a run is made from: weights that were loaded, and rows."""
        return {**self.origins, **self.data.origins}

    def batching(self) -> dict[str, int]:
        """What the place in an epoch is counted in."""
        return {
            "trainer.accumulate_grad_batches": self.trainer.accumulate_grad_batches,
            "data.batch_size x processes": self.data.batch_size * self.trainer.world_size,
        }

    def text_format(self) -> dict[str, str]:
        """What tokens mean: fingerprints of tokenizer and template."""
        return {
            "tokenizer": tokenizer_fingerprint(self.tokenizer),
            "template": self.template.fingerprint(self.tokenizer),
        }

    # -- exact means over everything that one optimizer step sees

    def summed_loss(self, total: Tensor, count: Tensor, ids: Ids = tuple, **sums: Tensor) -> Tensor:
        """Turn a sum into a loss whose gradient becomes the mean over the whole optimizer step.

        The number of elements of a step is known only after its last micro-batch, on all ranks. So
        the gradient of the sum is collected, and divided just before the step: the result does not
        depend on how the batch was cut into micro-batches and ranks.

        Args:
            total: sum of the losses of this micro-batch.
            count: how many elements it is over.
            ids: of the samples, for messages.
            sums: further sums to log as means over the same count.
        """
        self.guard.see("the loss", total, ids)
        for name, value in {"loss": total, "count": count, **sums}.items():
            value = value.detach().float()
            self._sums[name] = self._sums[name] + value if name in self._sums else value
        undo = self.trainer.accumulate_grad_batches * self.trainer.world_size
        return total * (undo / LOSS_SCALE)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Check losses and gradients, divide by the count of the step, and log its means."""
        sums = self.guard.check_step(self, optimizer, self._sums)
        if not sums:
            return
        count, self._sums = sums.pop("count"), {}
        for parameter in self.optimized(optimizer):
            parameter.grad.mul_(LOSS_SCALE / count)  # type: ignore[union-attr]
        for name, value in sums.items():
            self.log(f"train/{name}", value / count, prog_bar=name == "loss")

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip as Lightning does, each parameter group by itself, after logging its norm."""
        for group in optimizer.param_groups:
            gradients = [p.grad for p in group["params"] if p.grad is not None]
            if not gradients:
                continue
            norm = nn.utils.get_total_norm(gradients)
            self.log(f"gradient_norm/{group['name']}", norm)
            if gradient_clip_val and gradient_clip_algorithm == "value":
                nn.utils.clip_grad_value_(group["params"], gradient_clip_val)
            elif gradient_clip_val:
                nn.utils.clip_grads_with_norm_(group["params"], gradient_clip_val, norm)

    def optimized(self, optimizer: Optimizer) -> list[nn.Parameter]:
        """Parameters of the optimizer that have a gradient."""
        return [p for g in optimizer.param_groups for p in g["params"] if p.grad is not None]

    def all_max(self, tensor: Tensor) -> Tensor:
        """Largest over all ranks."""
        return self.trainer.strategy.reduce(tensor, reduce_op="max")  # type: ignore[return-value]

    def all_sum(self, tensor: Tensor) -> Tensor:
        """Sum over all ranks."""
        return self.trainer.strategy.reduce(tensor, reduce_op="sum")  # type: ignore[return-value]
