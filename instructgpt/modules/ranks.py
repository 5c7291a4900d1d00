"""What the processes of a run tell each other, beside tensors."""

from __future__ import annotations

from typing import Any, TypeVar

import torch.distributed as dist

from instructgpt.row_shares import place_of

T = TypeVar("T")


def everyones(mine: T) -> list[T]:
    """What each rank says, by rank; every rank must call this."""
    if not (dist.is_available() and dist.is_initialized()):
        return [mine]
    gathered: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, mine)
    return gathered


def shares(mine: T, trainer: Any) -> list[T]:
    """What each rank says that reads rows of its own, once; every rank must call this.

    Args:
        mine: about the rows of this rank.
        trainer: of the run.
    """
    every = everyones(mine)
    return every[:: max(1, len(every) // place_of(trainer).ranks)]
