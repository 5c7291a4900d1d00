"""Which rows of the rollout each update sees."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod

import torch
from torch import Tensor

from instructgpt.algorithms.base import RolloutAlgorithm
from instructgpt.functional.layout import pieces
from instructgpt.seeds import permutation
from instructgpt.types import require


@dataclass(frozen=True)
class Batches:
    """How many episodes meet: in a rollout phase, an optimizer step, a forward pass.

    Args:
        rollout_batch_size: episodes of a phase, over all processes (paper: 512).
        minibatch_size: episodes of an optimizer step, over all processes (paper: 64).
        microbatch_size: most episodes of one forward pass on a process, a matter of memory only;
            null leaves it to ``--model.network.max_tokens``, which holds in any case.
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
    a minibatch do not depend on the number of ranks. An item is what the trainer calls a batch: a
    rank's share of an optimizer step, or of one of the parts that
    ``--trainer.accumulate_grad_batches`` cuts it into. Its micro-batches are computed one by one.
    """

    rows: int  # of a phase that are learned from, over all ranks
    minibatch_size: int
    microbatch_size: int
    epochs: int
    accumulate: int  # items of an optimizer step
    world_size: int
    rank: int
    seed: int
    group: int = 1  # rows in a row that stay together, those of one prompt
    max_tokens: int | None = None  # of a micro-batch

    @property
    def item_size(self) -> int:
        """Rows of an item."""
        return self.minibatch_size // (self.world_size * self.accumulate)

    @property
    def updates(self) -> int:
        """Optimizer steps of a phase."""
        return self.epochs * self.rows // self.minibatch_size

    @property
    def items(self) -> int:
        """Items of a phase on one rank."""
        return self.updates * self.accumulate

    def minibatch(self, phase: int, update: int) -> Tensor:
        """Rows of an update, a function of (seed, phase, update)."""
        done, start = divmod(update, self.rows // self.minibatch_size)
        groups = permutation(self.rows // self.group, self.seed, phase, done)
        rows = (groups[:, None] * self.group + torch.arange(self.group)).flatten()
        return rows[start * self.minibatch_size : (start + 1) * self.minibatch_size]

    def item(self, phase: int, index: int) -> Tensor:
        """This rank's rows of the phase's ``index``-th item."""
        update, part = divmod(index, self.accumulate)
        share = self.minibatch(phase, update).chunk(self.world_size)[self.rank]
        return share[part * self.item_size : (part + 1) * self.item_size]

    def micro_batches(self, rows: Tensor, lengths: Tensor) -> list[Tensor]:
        """Cut rows into what one forward pass takes: by tokens, and at most ``microbatch_size``.

        Args:
            rows: numbers of rows.
            lengths: tokens of all rows, prompt and response.
        """
        groups = rows.view(-1, self.group)
        tokens = lengths[groups].sum(1)
        parts = pieces(tokens, self.max_tokens, self.microbatch_size // self.group)
        return [groups[part.start : part.stop].flatten() for part in parts]

    def first_pass(self, phase: int, rank: int) -> list[Tensor]:
        """The rows of each item of a rank in the first pass over a rollout."""
        theirs, items = replace(self, rank=rank), self.items // self.epochs
        return [theirs.item(phase, index) for index in range(items)]

    def window(self, phase: int, index: int, available: int) -> Tensor:
        """Rows, over all ranks, of the optimizer step that item ``index`` belongs to.

        Args:
            phase: number of the rollout phase.
            index: of an item.
            available: items the trainer runs in a phase; a limit can cut the last step short.
        """
        update, _ = divmod(index, self.accumulate)
        parts = min(self.accumulate, available - update * self.accumulate)
        shares = self.minibatch(phase, update).chunk(self.world_size)
        return torch.cat([share[: parts * self.item_size] for share in shares])


def plan_updates(
    batches: Batches,
    algorithm: RolloutAlgorithm,
    accumulate: int,
    world_size: int,
    rank: int,
    seed: int,
    max_tokens: int | None = None,
) -> UpdatePlan:
    """Fit the sizes that were asked for to the algorithm and the processes.

    Args:
        batches: sizes asked for.
        algorithm: how many responses a prompt has, and what becomes of them.
        accumulate: ``--trainer.accumulate_grad_batches``.
        world_size: number of ranks.
        rank: this one.
        seed: of the order of updates.
        max_tokens: of a micro-batch; None: any number.

    Raises:
        UserError: one line that names the size that does not fit.
    """
    each, kept = algorithm.responses_per_prompt, algorithm.trained_per_prompt
    rollout, minibatch = batches.rollout_batch_size, batches.minibatch_size
    processes = (world_size, "process(es)")
    _multiple("rollout_batch_size", rollout, processes, (each, "responses to a prompt"))
    rows = rollout // each * kept
    what = "rollout_batch_size" if kept == each else "the rows that are learned from"
    rule = f"a divisor of {what} ({rows})"
    require(rows % minibatch == 0, "model.batches.minibatch_size", rule, minibatch)
    together = (kept if algorithm.whole_groups else 1, "rows of a prompt")
    parts = processes, (accumulate, "accumulated batches")
    _multiple("minibatch_size", minibatch, *parts, together)
    item = minibatch // (world_size * accumulate)
    microbatch = item if batches.microbatch_size is None else batches.microbatch_size
    _multiple("minibatch_size", minibatch, *parts, (microbatch, "microbatch_size"))
    _multiple("microbatch_size", microbatch, together)
    sizes = rows, minibatch, microbatch
    place = accumulate, world_size, rank
    return UpdatePlan(*sizes, algorithm.epochs, *place, seed, together[0], max_tokens)


def _multiple(name: str, size: int, *factors: tuple[int, str]) -> None:
    """Refuse a size that is no multiple of the product of some factors."""
    named = [f"{number} {factor}" for number, factor in factors if number > 1]
    fits = size % prod(number for number, _ in factors) == 0
    require(fits, f"model.batches.{name}", f"a multiple of {' x '.join(named)}", size)


class UpdateLoader:
    """Yields the row indices of one item after the other; resumes at the exact one.

    It is no DataLoader, so Lightning leaves it alone in every mode. Its length is fixed: an unsized
    loader would be prefetched before the first rollout exists.
    """

    def __init__(self, plan: UpdatePlan) -> None:
        """Start before the first item of phase 0."""
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
        """Items of a phase."""
        return self.plan.items

    def __iter__(self) -> Iterator[Tensor]:
        """Yield lazily: Lightning makes the iterator before it sets the epoch."""
        start, self._resume = self._resume, 0
        for index in range(start, len(self)):
            self._yielded = index + 1
            yield self.plan.item(self.epoch, index)

    def state_dict(self) -> dict[str, int]:
        """How far this phase is."""
        return {"yielded": self._yielded, "epoch": self.epoch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue; a state saved at the very end of a phase continues with the next one."""
        complete = state["yielded"] >= len(self)
        self._resume = 0 if complete else state["yielded"]
        self.epoch = state["epoch"] + int(complete)
