"""Which rows of the rollout each update sees."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from instructgpt.algorithms.base import require
from instructgpt.seeds import permutation
from instructgpt.types import UserError


@dataclass(frozen=True)
class Batches:
    """How many episodes meet: in a rollout phase, an optimizer step, a forward pass.

    Args:
        rollout_batch_size: episodes of a phase, over all processes (paper: 512).
        minibatch_size: episodes of an optimizer step, over all processes (paper: 64).
        microbatch_size: episodes of one forward pass on a process; null derives it from
            ``--trainer.accumulate_grad_batches``, a number sets that flag.
    """

    rollout_batch_size: int = 512
    minibatch_size: int = 64
    microbatch_size: int | None = None

    def __post_init__(self) -> None:
        """Refuse sizes without a meaning."""
        for name, size in vars(self).items():
            require(size is None or size >= 1, f"model.batches.{name}", ">= 1", size)


@dataclass(frozen=True)
class UpdatePlan:
    """The batch arithmetic of one rollout phase.

    Every rank holds the whole rollout and trains on its own share of each minibatch, so the rows of
    a minibatch do not depend on the number of ranks.
    """

    rollout_batch_size: int
    minibatch_size: int
    epochs: int
    accumulate: int  # micro-batches a rank computes before a step
    world_size: int
    rank: int
    seed: int

    def __post_init__(self) -> None:
        """Refuse sizes that do not divide."""
        if self.rollout_batch_size % self.minibatch_size:
            raise UserError(
                f"minibatch_size must divide rollout_batch_size ({self.rollout_batch_size}), "
                f"got {self.minibatch_size}"
            )
        if self.rollout_batch_size % self.world_size:
            raise UserError(
                f"rollout_batch_size must be a multiple of the {self.world_size} processes, "
                f"got {self.rollout_batch_size}"
            )
        share = self.world_size * self.accumulate
        if self.minibatch_size % share:
            raise UserError(
                f"minibatch_size must be a multiple of {self.world_size} process(es) x "
                f"{self.accumulate} accumulated micro-batches, got {self.minibatch_size}"
            )

    @property
    def microbatch_size(self) -> int:
        """Rows of one forward and backward pass on one rank."""
        return self.minibatch_size // (self.world_size * self.accumulate)

    @property
    def updates(self) -> int:
        """Optimizer steps of a phase."""
        return self.epochs * self.rollout_batch_size // self.minibatch_size

    @property
    def microbatches(self) -> int:
        """Micro-batches of a phase on one rank."""
        return self.updates * self.accumulate

    def minibatch(self, phase: int, update: int) -> Tensor:
        """Rows of an update, a function of (seed, phase, update)."""
        per_pass = self.rollout_batch_size // self.minibatch_size
        done, start = divmod(update, per_pass)
        rows = permutation(self.rollout_batch_size, self.seed, phase, done)
        return rows[start * self.minibatch_size : (start + 1) * self.minibatch_size]

    def microbatch(self, phase: int, index: int) -> Tensor:
        """This rank's rows of the phase's ``index``-th micro-batch."""
        update, step = divmod(index, self.accumulate)
        share = self.minibatch(phase, update).chunk(self.world_size)[self.rank]
        return share[step * self.microbatch_size : (step + 1) * self.microbatch_size]

    def window(self, phase: int, index: int, available: int) -> Tensor:
        """Rows, over all ranks, of the optimizer step that micro-batch ``index`` belongs to.

        Args:
            phase: number of the rollout phase.
            index: of a micro-batch.
            available: micro-batches the trainer runs in a phase; a limit can cut the last step
                short.
        """
        update, _ = divmod(index, self.accumulate)
        steps = min(self.accumulate, available - update * self.accumulate)
        shares = self.minibatch(phase, update).chunk(self.world_size)
        return torch.cat([share[: steps * self.microbatch_size] for share in shares])


def accumulation(minibatch_size: int, microbatch_size: int, world_size: int, asked: int) -> int:
    """Micro-batches a rank computes before a step, for micro-batches of a given size.

    Args:
        minibatch_size: episodes of a step over all ranks.
        microbatch_size: episodes of one forward pass on one rank.
        world_size: number of ranks.
        asked: what ``--trainer.accumulate_grad_batches`` says; 1 when it says nothing.
    """
    steps, rest = divmod(minibatch_size, world_size * microbatch_size)
    if rest:
        raise UserError(
            f"model.batches.minibatch_size must be a multiple of {world_size} process(es) x "
            f"microbatch_size {microbatch_size} (null derives that one), got {minibatch_size}"
        )
    if asked not in (1, steps):
        raise UserError(
            "trainer.accumulate_grad_batches follows from the batch sizes of the model: "
            f"it must be {steps} or left out unless microbatch_size is null, got {asked}"
        )
    return steps


class UpdateLoader:
    """Yields the row indices of one micro-batch after the other; resumes at the exact one.

    It is no DataLoader, so Lightning leaves it alone in every mode. Its length is fixed: an unsized
    loader would be prefetched before the first rollout exists.
    """

    def __init__(self, plan: UpdatePlan) -> None:
        """Start before the first micro-batch of phase 0."""
        self.plan = plan
        self.epoch = 0
        self._resume = 0
        self._yielded = 0

    @property
    def sampler(self) -> UpdateLoader:
        """Itself: Lightning calls ``loader.sampler.set_epoch``."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Go to a phase; a new one starts from its beginning."""
        if epoch != self.epoch:
            self.epoch, self._resume = epoch, 0

    def __len__(self) -> int:
        """Micro-batches of a phase."""
        return self.plan.microbatches

    def __iter__(self) -> Iterator[Tensor]:
        """Yield lazily: Lightning makes the iterator before it sets the epoch."""
        start, self._resume = self._resume, 0
        for index in range(start, len(self)):
            self._yielded = index + 1
            yield self.plan.microbatch(self.epoch, index)

    def state_dict(self) -> dict[str, int]:
        """How far this phase is."""
        return {"yielded": self._yielded, "epoch": self.epoch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue; a state saved at the very end of a phase continues with the next one."""
        complete = state["yielded"] >= len(self)
        self._resume = 0 if complete else state["yielded"]
        self.epoch = state["epoch"] + int(complete)
