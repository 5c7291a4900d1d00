"""``--trainer.strategy deepspeed_stage_3``: DeepSpeed spreads weights as well."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any, ClassVar

import torch
import torch.distributed as dist
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import StrategyRegistry
from torch import Tensor, nn

from instructgpt.modules.zero import ZeroOptimizer, ZeroStrategy
from instructgpt.types import require


class Zero3Strategy(ZeroStrategy):
    """Each process keeps its part of weights, gradients and Adam (ZeRO, arXiv:1910.02054).

    In updates DeepSpeed gathers what is called next. Rollouts and validation have all weights in
    every process. Checkpoints and exports are those of any other strategy.

    Args:
        timeout_seconds: how long a process waits for another one.
    """

    flag = "deepspeed_stage_3"
    zero: ClassVar[dict[str, Any]] = {
        "stage": 3,
        "sub_group_size": 10**12,  # one for each parameter group
        "stage3_param_persistence_threshold": 0,
    }

    def __init__(self, timeout_seconds: float = 1800.0) -> None:
        super().__init__(timeout_seconds)
        self._whole = False
        self._held = ExitStack()

    def setup_environment(self) -> None:
        """Refuse what was not seen to be right."""
        module: Any = self.lightning_module
        only = f"with --trainer.strategy {self.flag}"
        trained = getattr(module, "trained", None)
        name = type(trained).__name__
        require(trained is None, "--model.trained", f"null (all weights) {only}", name)
        if hasattr(module, "phase"):
            stop, phases = module.algorithm.target_kl, module.value.warmup_phases
            require(stop is None, "--model.algorithm.target_kl", f"null {only}", stop)
            require(phases == 0, "--model.value.warmup_phases", f"0 {only}", phases)
        super().setup_environment()

    def optimizer_of(self, spread: Any, weights: list[list[nn.Parameter]]) -> ZeroOptimizer:
        """What looks like an optimizer of torch."""
        return Zero3Optimizer(self.engine, spread, weights)

    # -- networks

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """Within the context every process has all weights, for any calls without gradients."""
        if self.engine is None or self._whole:
            yield
            return
        offload = self.engine.optimizer.parameter_offload
        self._whole = True
        try:
            with self._all():
                for hook in (offload.fwd_pre_hook, *offload.forward_hooks, *offload.backward_hooks):
                    hook.remove()  # they would let go of what they have called
                offload.forward_hooks, offload.backward_hooks = [], []
                yield
                offload.setup_zero_stage3_hooks()
        finally:
            self._whole = False

    def _all(self, weights: Sequence[Tensor] | None = None, changed: bool = False) -> Any:
        """DeepSpeed's context with whole weights; what rank 0 has changed is kept if asked for."""
        from deepspeed.runtime.zero import GatheredParameters

        assert self.lightning_module is not None
        asked = list(self.lightning_module.parameters()) if weights is None else list(weights)
        return GatheredParameters(asked, modifier_rank=0 if changed else None)

    def on_validation_start(self) -> None:
        """Have all weights: processes may differ in what they ask."""
        self._held.enter_context(self.gathered())

    def on_validation_end(self) -> None:
        """Let go of them."""
        self._held.close()

    # -- checkpoints

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Whole weights, one after the other, on rank 0; every process must call this."""
        assert self.lightning_module is not None
        if self.engine is None:
            return super().lightning_module_state_dict()
        kept: dict[str, Any] = {}
        for name, value in self.lightning_module.state_dict(keep_vars=True).items():
            spread = hasattr(value, "ds_id") and not self._whole  # a validation saves, too
            with self._all([value]) if spread else nullcontext():
                if self.is_global_zero:
                    kept[name] = value.detach().clone().cpu()
        return kept

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Take whole weights, or this process's part of them."""
        with nullcontext() if self.engine is None else self._all(changed=True):
            super().load_model_state_dict(checkpoint, strict)


class Zero3Optimizer(ZeroOptimizer):
    """The optimizer of a process's part, where weights are parts as well."""

    def gradients(self) -> list[list[Tensor]]:
        """Of each group this process's part, after the last backward of a step."""
        found = self.spread.averaged_gradients
        return [list(found.get(i) or []) for i in range(len(self.weights))]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget gradients; DeepSpeed would add to those that the first piece of a step lacks."""
        self.spread.zero_grad(set_to_none)
        self.spread.grad_partitions_flat_buffer.zero_()  # all that gradients() are views of

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take this process's part of whole tensors."""
        state, number, rank = state_dict["state"], 0, dist.get_rank()
        for flat, weights in zip(self.parts(), self.weights, strict=True):
            whole = [state[number + n] for n in range(len(weights)) if number + n in state]
            number += len(weights)
            if not whole:
                continue
            kept = {name: _begun(value, flat) for name, value in whole[0].items()}
            begin = 0
            for weight, values in zip(weights, whole, strict=True):
                count = weight.partition_numel()  # type: ignore[attr-defined]
                for name, value in values.items():
                    if value.dim():
                        part = value.flatten()[rank * count : (rank + 1) * count]
                        kept[name][begin : begin + len(part)] = part
                begin += count
            self.state[flat] = kept

    def parts(self) -> list[Tensor]:
        """The weights of this process's part of each group."""
        return self.spread.fp32_partitioned_groups_flat  # type: ignore[no-any-return]


def _begun(value: Tensor, flat: Tensor) -> Tensor:
    return torch.zeros_like(flat) if value.dim() else value.clone()


def zero3_of(trainer: Trainer) -> Zero3Strategy | None:
    """The strategy of a run whose weights DeepSpeed spreads, if it is one.

    Args:
        trainer: of the run.
    """
    return trainer.strategy if isinstance(trainer.strategy, Zero3Strategy) else None


@contextmanager
def whole_weights(trainer: Trainer) -> Iterator[None]:
    """Within the context weights that DeepSpeed spreads are whole in every process.

    Args:
        trainer: of the run.
    """
    zero3 = zero3_of(trainer)
    with nullcontext() if zero3 is None else zero3.gathered():
        yield


StrategyRegistry.register(
    "deepspeed_stage_3",
    Zero3Strategy,
    description="DeepSpeed's ZeRO 3: weights, gradients and optimizer state spread over processes",
    override=True,
)
