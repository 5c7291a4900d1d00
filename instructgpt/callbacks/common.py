"""What callbacks share: the stage, files."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from lightning.pytorch import LightningModule, Trainer

from instructgpt.models.artefact import finite
from instructgpt.modules.base import StageModule


def stage_of(pl_module: LightningModule) -> StageModule:
    """The module as what it is here: callbacks get it as any LightningModule."""
    assert isinstance(pl_module, StageModule)
    return pl_module


class StepWatch:
    """Tells which batches complete an optimizer step: others only add to its gradients."""

    def __init__(self) -> None:
        self._before = 0

    def begin(self, trainer: Trainer) -> None:
        """Note the step before a batch."""
        self._before = trainer.global_step

    def completed(self, trainer: Trainer) -> bool:
        """Whether the batch has completed one."""
        return trainer.global_step != self._before


def is_debugging(trainer: Trainer) -> bool:
    """Whether ``fast_dev_run`` is on, which shall leave nothing behind."""
    return bool(trainer.fast_dev_run)  # type: ignore[attr-defined]


def json_lines(rows: Iterable[dict[str, Any]]) -> str:
    """Rows as JSONL text; what is not finite becomes null."""
    return "".join(json.dumps(finite(row), ensure_ascii=False) + "\n" for row in rows)
