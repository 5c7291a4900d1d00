"""What the processes of a run tell each other, beside tensors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch.distributed as dist

from instructgpt.types import RunFailedError

T = TypeVar("T")


def everyones(mine: T) -> list[T]:
    """What each rank says, by rank; every rank must call this."""
    if not (dist.is_available() and dist.is_initialized()):
        return [mine]
    gathered: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, mine)
    return gathered


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Within the context a wait for another rank that takes too long ends with who waited where.

    Args:
        what: is being done.

    Raises:
        RunFailedError: another rank did not come in the time that the strategy allows.
    """
    try:
        yield
    except RuntimeError as error:
        found = re.search(r"[Tt]imed out waiting (\d+)ms", str(error))
        if found is None:
            raise
        rank, seconds = dist.get_rank(), int(found[1]) / 1000
        raise RunFailedError(
            f"rank {rank} has waited {seconds:g} s for another rank in {what}: stopped"
        ) from error
