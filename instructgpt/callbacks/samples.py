"""Responses to look at, as JSONL and in TensorBoard."""

from __future__ import annotations

import html
import json
import math
import re
from collections import Counter
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.trainer.states import TrainerFn

from instructgpt.callbacks.common import gather, is_debugging, json_lines, stage_of
from instructgpt.models.folder import write_text

SHOWN_ROWS = 16  # of each kind
SHOWN_CHARACTERS = 2000


class SampleWriter(Callback):
    """Moves a module's ``samples`` to ``samples.jsonl`` and to a table in TensorBoard."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Drop the rows that a resumed run is going to write again, and those of an earlier run."""
        path = self._path(trainer)
        if not trainer.is_global_zero or is_debugging(trainer) or not path.is_file():
            return
        resumed = trainer.ckpt_path is not None
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if resumed else []
        kept = [line for line in lines if _step(line) <= trainer.global_step]
        write_text(path, "".join(kept))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the samples of all ranks."""
        stage = stage_of(pl_module)
        rows = [row for rank in gather(stage.samples, trainer.world_size) for row in rank]
        stage.samples = []
        if not rows or is_debugging(trainer) or not trainer.is_global_zero:
            return
        path = self._path(trainer)
        path.parent.mkdir(parents=True, exist_ok=True)
        fitting = trainer.state.fn == TrainerFn.FITTING
        with path.open("a" if fitting else "w", encoding="utf-8") as file:
            file.write(json_lines(rows))
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_text("samples", markdown_table(rows), trainer.global_step)

    def _path(self, trainer: Trainer) -> Path:
        verb = trainer.state.fn
        beside = [] if verb in (None, TrainerFn.FITTING) else [verb.value]
        return Path(trainer.default_root_dir, *beside, "samples.jsonl")


def _step(line: str) -> float:
    """Step of a row; infinite where the line was only half written when the run was killed."""
    try:
        return float(json.loads(line).get("step", 0))
    except ValueError:
        return math.inf


def markdown_table(rows: list[dict[str, Any]]) -> str:
    """The first rows of each kind as a markdown table in which a response cannot change the page.

    Args:
        rows: with any keys; those of the first row become columns.
    """
    columns = list(rows[0])
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    kinds = Counter[str]()
    for row in rows:
        kinds[row.get("kind", "")] += 1
        if kinds[row.get("kind", "")] > SHOWN_ROWS:
            continue
        lines.append("| " + " | ".join(_cell(row.get(column)) for column in columns) + " |")
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    text = html.escape(str(value)[:SHOWN_CHARACTERS])
    text = re.sub(r"([\\`*_{}\[\]()#+\-.!|])", r"\\\1", text)
    return "<br>".join(text.splitlines())
