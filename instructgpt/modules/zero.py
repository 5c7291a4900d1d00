"""``--trainer.strategy deepspeed_stage_2``: DeepSpeed's optimizer, each process with its part."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from importlib.util import find_spec
from typing import Any, ClassVar

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy, StrategyRegistry
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.optim import Optimizer

from instructgpt.types import UserError, require

BUCKET = 50_000_000
"""Gradients that are exchanged at once; a buffer of as many numbers is there in each process."""


class ZeroStrategy(DDPStrategy):
    """Each process keeps its part of gradients and of Adam (ZeRO, arXiv:1910.02054), by DeepSpeed.

    Every process has all weights. Gradients are exchanged piece by piece, divided and clipped as
    everywhere; checkpoints and exports are those of any other strategy.

    Args:
        timeout_seconds: how long a process waits for another one.
    """

    flag = "deepspeed_stage_2"
    zero: ClassVar[dict[str, Any]] = {"stage": 2}

    def __init__(self, timeout_seconds: float = 1800.0) -> None:
        super().__init__(timeout=timedelta(seconds=timeout_seconds))
        self.timeout_seconds = timeout_seconds
        self.engine: Any = None  # DeepSpeed's

    def setup_environment(self) -> None:
        """Check what was asked for: of an error before, jsonargparse says something else."""
        seconds = self.timeout_seconds
        require(seconds > 0, "--trainer.strategy.timeout_seconds", "> 0", seconds)
        if find_spec("deepspeed") is None:
            install = 'pip install "instructgpt[deepspeed]"'
            raise UserError(f"--trainer.strategy {self.flag} needs the extra: {install}")
        precision, both = self.precision_plugin.precision, "32-true or bf16-mixed with DeepSpeed"
        require(precision in ("32-true", "bf16-mixed"), "--trainer.precision", both, precision)
        super().setup_environment()

    # -- what Lightning does with a model

    def setup(self, trainer: Trainer) -> None:
        """Make the optimizer, and let DeepSpeed spread it."""
        assert self.accelerator is not None
        assert self.model is not None
        self.accelerator.setup(trainer)
        self.model_to_device()
        if trainer.state.fn == TrainerFn.FITTING:
            self.setup_optimizers(trainer)
            self.spread()
            self.say_what_is_untested()
        self.setup_precision_plugin()

    def spread(self) -> None:
        """Give DeepSpeed the module and its optimizer."""
        import deepspeed

        warnings.filterwarnings("ignore", r".*torch\.distributed\.\w+` is deprecated")  # by it
        # What it says is about its own options, or that torch's optimizers are untested with it.
        logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
        assert self.model is not None
        (optimizer,) = self.optimizers
        weights = [list(group["params"]) for group in optimizer.param_groups]
        settings = {
            "train_micro_batch_size_per_gpu": 1,  # it reports speed by it alone
            "gradient_accumulation_steps": 1,  # the trainer counts
            "zero_allow_untested_optimizer": True,
            "zero_optimization": {"reduce_bucket_size": BUCKET, **self.zero},
        }
        self.engine, spread, _, _ = deepspeed.initialize(
            model=AskedStage(self.model, self.precision_plugin.forward_context),
            model_parameters=[weight for group in weights for weight in group],
            optimizer=optimizer,
            config=settings,
            dist_init_required=False,
        )
        self.engine.set_gradient_accumulation_boundary(True)
        self.optimizers = [self.optimizer_of(spread, weights)]  # type: ignore[list-item]

    def optimizer_of(self, spread: Any, weights: list[list[nn.Parameter]]) -> ZeroOptimizer:
        """What looks like an optimizer of torch.

        Args:
            spread: DeepSpeed's.
            weights: of each group.
        """
        return ZeroOptimizer(self.engine, spread, weights)

    def say_what_is_untested(self) -> None:
        """Say what was not run, and what is not logged."""
        kind, found = self.root_device.type, []
        if kind != "cpu":
            found.append(f"untested on {kind}, two processes on CPUs gave the weights of one")
        if self.precision_plugin.precision != "32-true":
            found.append(f"no bound is known for {self.precision_plugin.precision}")
        pretraining = getattr(self.lightning_module, "pretraining", None)
        if pretraining is not None and pretraining.ptx_coef:
            found.append("gradient_norm/ppo and gradient_norm/ptx are not logged")
        if found:
            rank_zero_warn(f"--trainer.strategy {self.flag}: {'; '.join(found)}")

    def compute(self, loss: Callable[[], Tensor]) -> Tensor:
        """A loss that DeepSpeed may take the gradient of: it wants to be asked for each."""
        return self.engine(loss)  # type: ignore[no-any-return]

    @contextmanager
    def block_backward_sync(self) -> Iterator[None]:
        """Say that more gradients come before the step."""
        before = self.engine.is_gradient_accumulation_boundary()  # a piece of a batch of a step
        self.engine.set_gradient_accumulation_boundary(False)
        try:
            yield
        finally:
            self.engine.set_gradient_accumulation_boundary(before)

    def backward(
        self, closure_loss: Tensor, optimizer: Optimizer | None, *args: Any, **kwargs: Any
    ) -> Tensor:
        """Add up this process's part of the gradient."""
        assert self.lightning_module is not None
        plugin = self.precision_plugin
        loss: Any = plugin.pre_backward(closure_loss, self.lightning_module)
        self.engine.backward(loss)
        return plugin.post_backward(loss, self.lightning_module)


class AskedStage(nn.Module):
    """A stage, whose losses DeepSpeed computes by calling it.

    Args:
        stage: any.
        context: of the precision, out of which DeepSpeed takes what it calls.
    """

    def __init__(self, stage: nn.Module, context: Callable[[], Any]) -> None:
        super().__init__()
        self.stage, self.context = stage, context

    def forward(self, loss: Callable[[], Tensor]) -> Tensor:
        """Compute a loss."""
        with self.context():
            return loss()


class ZeroOptimizer:
    """The optimizer of a process's part, which looks like one of torch.

    Args:
        engine: DeepSpeed's, that takes the steps.
        spread: DeepSpeed's optimizer.
        weights: of each group.
    """

    def __init__(self, engine: Any, spread: Any, weights: list[list[nn.Parameter]]) -> None:
        self.engine, self.spread, self.weights = engine, spread, weights
        self.left_out: set[str] = set()  # groups that the step at hand does not change
        spread.optimizer.register_step_pre_hook(self._without_left_out)

    def _without_left_out(self, optimizer: Any, *_: Any) -> None:
        """Take the gradient of a group away: torch then passes it over."""
        for group in optimizer.param_groups:
            for part in group["params"] if group["name"] in self.left_out else ():
                part.grad = None

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Options of the groups; the weights in them are parts."""
        return self.spread.param_groups  # type: ignore[no-any-return]

    @property
    def defaults(self) -> dict[str, Any]:
        """Options of groups that say nothing else."""
        return self.spread.optimizer.defaults  # type: ignore[no-any-return]

    @property
    def state(self) -> dict[Any, Any]:
        """What the optimizer keeps of parts."""
        return self.spread.optimizer.state  # type: ignore[no-any-return]

    def gradients(self) -> list[list[Tensor]]:
        """Of each group this process's part, after the last backward of a step."""
        return [list(self.spread.averaged_gradients[i] or []) for i in range(len(self.weights))]

    def norm(self, gradients: list[Tensor]) -> Tensor:
        """Of a group's gradient, of which each process has a part."""
        square = nn.utils.get_total_norm(gradients).square()
        torch.distributed.all_reduce(square)
        return square.sqrt()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget gradients."""
        self.spread.zero_grad(set_to_none)
        for number in range(len(self.weights)):  # of a step that was not taken
            self.spread.averaged_gradients[number] = self.spread.all_grad_tensors[number] = None

    def state_dict(self) -> dict[str, Any]:
        """That of torch's optimizer, with whole tensors on rank 0; every rank must call this."""
        from deepspeed.utils import safe_get_full_optimizer_state

        kept = torch.distributed.get_rank() == 0
        state: dict[int, dict[str, Any]] = {}
        groups: list[dict[str, Any]] = []
        for options, weights, own in zip(
            self.param_groups, self.weights, self._states(), strict=True
        ):
            numbers = list(range(len(state), len(state) + len(weights)))
            groups.append({**options, "params": numbers})
            for number, weight in zip(numbers, weights, strict=True):
                state[number] = {}
                for name, value in own.items():
                    spread = value.dim() > 0
                    whole = safe_get_full_optimizer_state(weight, name) if spread else value.clone()
                    if kept:
                        state[number][name] = whole.cpu()
        return {"state": {n: found for n, found in state.items() if found}, "param_groups": groups}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take this process's part of whole tensors."""
        from deepspeed.utils import (
            lazy_init_hp_params_optimizer_state,
            safe_set_full_optimizer_state,
        )

        state, number = state_dict["state"], 0
        for i, weights in enumerate(self.weights):
            flat = self.parts()[i]
            whole = [state[number + n] for n in range(len(weights)) if number + n in state]
            number += len(weights)
            if not whole:
                continue
            self.state[flat] = {
                name: torch.zeros_like(flat) if value.dim() else value.clone()
                for name, value in whole[0].items()
            }
            lazy_init_hp_params_optimizer_state(self.spread.bit16_groups[i], flat, self.state)
            for weight, values in zip(weights, whole, strict=True):
                for name, value in values.items():
                    if value.dim():
                        safe_set_full_optimizer_state(weight, value.to(weight.device), name)

    def parts(self) -> list[Tensor]:
        """The weights of this process's part of each group."""
        return self.spread.single_partition_of_fp32_groups  # type: ignore[no-any-return]

    def _states(self) -> list[dict[str, Tensor]]:
        """What the optimizer keeps of this process's part of each group."""
        parts = self.parts()
        return [dict(self.state.get(part, {})) for part in parts]

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Compute the gradient and step."""
        result = closure() if closure is not None else None
        self.engine.step()
        self.left_out.clear()
        return result


def zero_of(trainer: Trainer) -> ZeroStrategy | None:
    """The strategy of a run whose steps DeepSpeed takes, if it is one.

    Args:
        trainer: of the run.
    """
    return trainer.strategy if isinstance(trainer.strategy, ZeroStrategy) else None


StrategyRegistry.register(
    "deepspeed_stage_2",
    ZeroStrategy,
    description="DeepSpeed's ZeRO 2: gradients and optimizer state spread over processes",
    override=True,
)
