"""Networks that begin as this process's part, where a strategy spreads them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch.distributed as dist

from instructgpt.models.meta_start import StartTogether, say_whole, starting
from instructgpt.models.trained import LastLayers, Trained
from instructgpt.modules.sharding import sharding_of
from instructgpt.modules.trained import has_trainer


@contextmanager
def without_weights(stage: Any, trained: Trained | None = None) -> Iterator[None]:
    """Within the context networks are built without weights, which ``shard_stage`` then reads.

    Args:
        stage: whose strategy says whether its networks are spread.
        trained: what is trained of them; some ways of it must compute with all weights first.
    """
    strategy = sharding_of(stage.trainer) if has_trainer(stage) else None
    if strategy is None:
        yield
        return
    if isinstance(trained, LastLayers):
        if strategy.is_global_zero:
            say_whole("the network", "--model.trained LastLayers is found out by computing with it")
        yield
        return
    machines = strategy.num_nodes
    places = strategy.world_size // machines
    start = StartTogether(
        strategy.global_rank, strategy.local_rank, places, _gather, strategy.begun
    )
    with starting(start):
        yield


def _gather(own: Any) -> list[Any]:
    everyones: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyones, own)
    return everyones
