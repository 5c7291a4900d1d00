"""Which share of the rows a process reads: processes that cut layers between them read the same."""

from __future__ import annotations

from typing import Any, NamedTuple


class RowShare(NamedTuple):
    """Of a process among those that read different rows."""

    rank: int
    ranks: int


def place_of(trainer: Any) -> RowShare:
    """Where a process stands, by what Lightning tells distributed samplers.

    Args:
        trainer: of the run.
    """
    known = getattr(trainer, "distributed_sampler_kwargs", None)
    if known is None:
        return RowShare(trainer.global_rank, trainer.world_size)
    return RowShare(known["rank"], known["num_replicas"])


def leads(trainer: Any) -> bool:
    """Whether this process speaks for all.

    Args:
        trainer: of the run; None: there is one process.
    """
    return trainer is None or trainer.global_rank == 0
