"""Demonstrations: what the policy imitates."""

from __future__ import annotations

from typing import Any

from instructgpt.data.base import StageData
from instructgpt.data.blocks import check_block_size
from instructgpt.data.stored_rows import Demonstrations, Prompts
from instructgpt.data.stream_loader import Cut
from instructgpt.data.stream_records import RowCut
from instructgpt.data.streaming import check_options
from instructgpt.data.summary import Summary
from instructgpt.data.used import used
from instructgpt.data.views import Picked, together
from instructgpt.types import LanguageBatch, Origin, UserError


class DemonstrationDataModule(StageData):
    """Prompts with the responses to imitate; only responses (with EOS) are trained.

    Rows: ``{"prompt": str, "response": str}``; also Alpaca and Dolly (the ``input`` or ``context``
    stands behind the instruction, after a blank line; ``system`` and ``history`` are turns before
    it), chat turns as ``messages`` or ShareGPT's ``conversations`` (the last assistant turn is the
    response), TRL's ``prompt``/``completion`` (with a false ``label``, as in KTO, they are left
    out), and comparisons, of which the best response is imitated; as .jsonl, .json, .csv, .tsv
    (.gz) or .parquet.

    Args:
        batch_size: rows per process and batch; a step sees these x processes x
            ``--trainer.accumulate_grad_batches`` (paper: 32).
        pretraining: text files, folders or data sets to mix in (the paper's initialisation of PPO
            has 10 %).
        pretraining_fraction: of the sequences of an epoch that are pretraining text, in (0, 1).
        pretraining_block_size: tokens of a row of pretraining text.
        **common: options that all data modules have (``StageData``).
    """

    batch_type = LanguageBatch
    wanted = "demonstration"

    def __init__(
        self,
        *,
        batch_size: int = 32,
        pretraining: list[str] | str | None = None,
        pretraining_fraction: float = 0.1,
        pretraining_block_size: int = 512,
        **common: Any,
    ) -> None:
        super().__init__(batch_size=batch_size, **common)
        check_block_size("pretraining_block_size", pretraining_block_size)
        if not 0 < pretraining_fraction < 1:
            rule = "must be between 0 and 1"
            raise UserError(f"--data.pretraining_fraction {rule}, got {pretraining_fraction}")
        if self.streaming:
            why = "which does not know all rows: set it for a run that reads them beforehand"
            check_options({"pretraining": pretraining}, why)
        self.pretraining = pretraining
        self.pretraining_fraction = pretraining_fraction
        self.pretraining_block_size = pretraining_block_size
        self.block_tokens = pretraining_block_size if pretraining else 0

    def build(self, summary: Summary, predict: bool) -> None:
        """Mix in pretraining text."""
        sets, held = self.read(summary, predict)
        for picked, weight in sets:
            self.train_sets.add(Demonstrations(picked), weight, "train", summary)
        self.hold(held, summary)
        if self.pretraining and self.train_sets:
            self._mix(self.pretraining, summary)

    def hold(self, held: list[Picked], summary: Summary) -> None:
        """Measure on demonstrations, and respond to their prompts."""
        self.validation_rows = together(Demonstrations, held)
        self.prompt_rows = together(Prompts, held)

    def cut(self) -> Cut:
        """Each record is a row."""
        return RowCut(self.reader.recipe(self.wanted, self.reading).schema, Demonstrations)

    def find_origins(self) -> dict[str, Origin]:
        """Tell demonstrations and the text mixed in apart: it is the last group."""
        origins = super().find_origins()
        if not self.pretraining:
            return origins
        return {
            **origins,
            "data.train": Origin(f"{self.train_names}", self.train_sets.digest(stop=-1)),
            "data.pretraining": Origin(f"{self.pretraining}", self.train_sets.digest(start=-1)),
        }

    def used(self) -> list[dict[str, Any]]:
        """Add the text mixed in."""
        told: list[int | None] = [n for seen, n in self.train_sets.told if seen == "pretraining"]
        return super().used() + (used("pretraining", self.pretraining, told) if told else [])  # type: ignore[arg-type]

    def _mix(self, names: list[str] | str, summary: Summary) -> None:
        """Add so many blocks a pass that they are ``pretraining_fraction`` of all rows."""
        blocks = self.reader.blocks_of(names, self.pretraining_block_size, summary)
        rows = sum(group.share for group in self.train_sets.groups)
        wanted = rows * self.pretraining_fraction / (1 - self.pretraining_fraction)
        self.train_sets.add(blocks, wanted / len(blocks), "pretraining", summary)
