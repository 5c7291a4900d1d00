"""Processes that cut layers between them, beside those that read other rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch.distributed as dist
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.optim import Optimizer

from instructgpt.models.tensor_parallel import OPTION
from instructgpt.modules.ranks import everyones
from instructgpt.types import require


class TensorRanks(DDPStrategy):
    """What processes tell each other where several of them are one to the rows.

    Neighbours cut layers between them: they read the same rows, and a sum over rows has each of
    these once.
    """

    tensor_parallel_size = 1
    _known: DeviceMesh | None = None

    def setup_environment(self) -> None:
        """Check that the processes can be shared out."""
        size = self.tensor_parallel_size
        require(size >= 1, OPTION, ">= 1", size)
        super().setup_environment()
        divides = self.world_size % size == 0
        require(divides, OPTION, f"a divisor of the {self.world_size} processes", size)

    @property
    def distributed_sampler_kwargs(self) -> dict[str, Any]:
        """Which share of the rows this process reads."""
        size = self.tensor_parallel_size
        return {"num_replicas": self.world_size // size, "rank": self.global_rank // size}

    def mesh(self) -> DeviceMesh:
        """All processes; where layers are cut [data, tensor]."""
        kind, size = self.root_device.type, self.tensor_parallel_size
        if size == 1:
            return init_device_mesh(kind, (self.world_size,))
        if self._known is None:
            shape = self.world_size // size, size
            self._known = init_device_mesh(kind, shape, mesh_dim_names=("data", "tensor"))
        return self._known

    def _group(self, group: Any) -> Any:
        """The processes that read other rows, and this one, where all are asked for."""
        if self.tensor_parallel_size == 1 or group not in (None, dist.group.WORLD):
            return group
        return self.mesh().get_group("data")

    def all_gather(self, tensor: Tensor, group: Any = None, sync_grads: bool = False) -> Tensor:
        """What each process says of its rows, [processes, ...]."""
        return super().all_gather(tensor, self._group(group), sync_grads)

    def reduce(self, tensor: Any, group: Any = None, reduce_op: Any = "mean") -> Any:
        """What processes say of their rows, as one."""
        return super().reduce(tensor, self._group(group), reduce_op)

    def reduce_boolean_decision(self, decision: bool, all: bool = True) -> bool:
        """Whether all processes say yes, or one of them does."""
        each = everyones(bool(decision))
        return min(each) if all else max(each)

    @contextmanager
    def one_by_one(self, optimizer: Optimizer) -> Iterator[None]:
        """Within the context an optimizer changes one weight after the other.

        Some are cut and spread, others only spread, and torch does both together with neither.

        Args:
            optimizer: of torch.
        """
        kept = [
            (group, name, group[name])
            for group in optimizer.param_groups
            for name in ("foreach", "fused")
            if self.tensor_parallel_size > 1 and name in group
        ]
        for group, name, _ in kept:
            group[name] = False
        try:
            yield
        finally:
            for group, name, value in kept:
                group[name] = value

    def agreed(self, tensor: Tensor) -> Tensor:
        """What the first of the processes says that read the same rows.

        Args:
            tensor: as large on each of them.
        """
        if self.tensor_parallel_size > 1:
            tensor = tensor.contiguous()
            dist.broadcast(tensor, group=self.mesh().get_group("tensor"), group_src=0)
        return tensor


def agreed(trainer: Trainer, tensor: Tensor) -> Tensor:
    """What the first process says of the rows that others read as well.

    Args:
        trainer: of the run.
        tensor: as large on each of them.
    """
    strategy = trainer.strategy
    return strategy.agreed(tensor) if isinstance(strategy, TensorRanks) else tensor


def refuse_cut_layers(trainer: Trainer, need: str) -> None:
    """Refuse what processes that cut layers cannot do.

    Args:
        trainer: of the run.
        need: what they must have instead.
    """
    size = getattr(trainer.strategy, "tensor_parallel_size", 1)
    require(size == 1, OPTION, f"1, unless {need}", size)
