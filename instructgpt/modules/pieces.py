"""An optimizer step in pieces: one graph is alive at a time, and the gradient is that of all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from typing import TypeVar

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.strategies import ParallelStrategy
from torch import Tensor

from instructgpt.modules.sharding import sharding_of
from instructgpt.modules.zero import zero_of
from instructgpt.row_shares import place_of

Piece = TypeVar("Piece")


def averaged_over(trainer: Trainer) -> int:
    """What Lightning and DDP divide a gradient by: batches of a step, and ranks."""
    return int(trainer.accumulate_grad_batches * place_of(trainer).ranks)


class Pieces:
    """The backward passes of the pieces of a batch, inside ``training_step``, but for the last."""

    def __init__(self) -> None:
        """Start with no gradient."""
        self._clean = False  # nobody but the pieces has left a gradient
        self.counts = True  # whether the piece at hand does; else it is computed for other ranks

    def forget(self) -> None:
        """Start anew: what gradient there is belongs to no step of this run."""
        self._clean = False

    def zero_once(self, module: LightningModule) -> None:
        """Zero the gradient before the first backward of a run; each optimizer step leaves none."""
        if not self._clean:
            self._clean = True
            module.zero_grad()

    def backward(self, module: LightningModule, loss: Tensor) -> None:
        """Add the gradient of a loss, so that its graph is gone.

        Ranks exchange it with that of the loss which ``training_step`` returns.
        """
        self.zero_once(module)
        strategy, parts = module.trainer.strategy, module.trainer.accumulate_grad_batches
        parallel = isinstance(strategy, ParallelStrategy)
        with strategy.block_backward_sync() if parallel else nullcontext():  # type: ignore[attr-defined]
            strategy.backward(loss / parts, None)

    def compute(self, module: LightningModule, loss: Callable[[], Tensor]) -> Tensor:
        """A loss, computed by DeepSpeed where that will take its gradient."""
        zero = zero_of(module.trainer)
        return loss() if zero is None else zero.compute(loss)

    def one_by_one(self, module: LightningModule, losses: Sequence[Callable[[], Tensor]]) -> Tensor:
        """Compute losses one after the other; the last is for ``training_step`` to return."""
        found: Tensor | None = None
        for loss in self.as_many(module, losses):
            if found is not None:
                self.backward(module, found)
            found = self.compute(module, loss)
        assert found is not None
        return found

    def as_many(self, module: LightningModule, pieces: Sequence[Piece]) -> Iterable[Piece]:
        """Pieces, as many on each rank as on the one with the most, where layers are gathered.

        A rank with fewer computes one of its own again, before the others; what is made of it must
        be left out where ``counts`` is false.

        Args:
            module: of the run.
            pieces: of this rank, at least one.
        """
        more = 0
        spread = sharding_of(module.trainer) or zero_of(module.trainer)
        if spread is not None:  # layers or gradients are exchanged in each
            count = torch.tensor(len(pieces), device=module.device)
            most = module.trainer.strategy.reduce(count, reduce_op="max")
            more = int(most) - len(pieces)
        for number, piece in enumerate([pieces[-1]] * more + list(pieces)):
            self.counts = number >= more
            yield piece
