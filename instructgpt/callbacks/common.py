"""What callbacks share: the stage, files, ranks."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import torch.distributed as dist
from lightning.pytorch import LightningModule, Trainer

from instructgpt.models.artefact import finite
from instructgpt.modules.base import StageModule


def stage_of(pl_module: LightningModule) -> StageModule:
    """The module as what it is here: callbacks get it as any LightningModule."""
    assert isinstance(pl_module, StageModule)
    return pl_module


def is_debugging(trainer: Trainer) -> bool:
    """Whether ``fast_dev_run`` is on, which shall leave nothing behind."""
    return bool(trainer.fast_dev_run)  # type: ignore[attr-defined]


def json_lines(rows: Iterable[dict[str, Any]]) -> str:
    """Rows as JSONL text; what is not finite becomes null."""
    return "".join(json.dumps(finite(row), ensure_ascii=False) + "\n" for row in rows)


def gather(rows: list[Any], world_size: int) -> list[list[Any]]:
    """The lists of all ranks, by rank, on the first rank; empty lists elsewhere.

    Args:
        rows: of this rank.
        world_size: number of processes; every one must call this.
    """
    if world_size == 1:
        return [rows]
    everything: list[Any] | None = [None] * world_size if dist.get_rank() == 0 else None
    dist.gather_object(rows, everything)
    return everything if everything is not None else [[] for _ in range(world_size)]
