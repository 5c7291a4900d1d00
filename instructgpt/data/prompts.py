"""Prompts: what the policy responds to while it learns by PPO, and when it predicts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from instructgpt.data.base import StageData
from instructgpt.data.blocks import check_block_size
from instructgpt.data.order import Group, chunk, stream
from instructgpt.data.rows import LanguageRow
from instructgpt.data.stored_rows import Prompts
from instructgpt.data.summary import Summary
from instructgpt.data.used import used
from instructgpt.data.views import Picked, names_of, rows_digest, together
from instructgpt.types import (
    CollectsRollouts,
    LanguageBatch,
    Origin,
    PromptBatch,
    UserError,
    require,
)


class PromptDataModule(StageData):
    """Prompts to respond to, and pretraining text for PPO-ptx.

    Rows: ``{"prompt": str}``, or chat turns as ``prompt`` (TRL, verl) or ``messages``; of
    demonstrations, comparisons and other known formats the prompt is taken; as .jsonl, .json,
    .csv, .tsv (.gz) or .parquet. Columns that nothing uses are metadata, which reward functions
    see.

    Args:
        validation_batch_size: prompts per process that are responded to at once in validation and
            prediction.
        responses: to each prompt in ``predict``.
        pretraining: text files, folders or data sets for the pretraining term of PPO-ptx (eq. 2).
        pretraining_block_size: tokens of a row of pretraining text.
        streaming: not for prompts: which of them a phase asks is a function of its number, so all
            must be there.
        **common: options that all data modules have (``StageData``).
    """

    batch_type = PromptBatch
    wanted = "prompt"

    def __init__(
        self,
        *,
        validation_batch_size: int = 16,
        responses: int = 1,
        pretraining: list[str] | str | None = None,
        pretraining_block_size: int = 512,
        streaming: bool = False,
        **common: Any,
    ) -> None:
        super().__init__(
            batch_size=validation_batch_size, streaming=False, shuffle_buffer=1, **common
        )
        if streaming:
            raise UserError(
                "--data.streaming must be false for PromptDataModule, got true: the prompts of a "
                "phase are a function of its number, for which all must be there"
            )
        check_block_size("pretraining_block_size", pretraining_block_size)
        require(responses >= 1, "--data.responses", ">= 1", responses)
        self.responses = responses
        self.pretraining = pretraining
        self.pretraining_block_size = pretraining_block_size
        self.block_tokens = pretraining_block_size if pretraining else 0
        self.blocks: Sequence[LanguageRow] = []

    def build(self, summary: Summary, predict: bool) -> None:
        """Draw prompts from the sets, and pretraining text beside them."""
        sets, held = self.read(summary, predict)
        for picked, weight in sets:
            self.train_sets.add(Prompts(picked), weight, "train", summary)
        self.hold(held, summary)
        if self.pretraining and not predict:
            size = self.pretraining_block_size
            self.blocks = self.reader.blocks_of(self.pretraining, size, summary)
            summary.note(f"pretraining mix: {self.blocks.told}")

    def hold(self, held: list[Picked], summary: Summary) -> None:
        """Respond to the prompts."""
        self.prompt_rows = self.validation_rows = together(Prompts, held)

    def find_origins(self) -> dict[str, Origin]:
        """Add the text of the pretraining term."""
        text = Origin(f"{self.pretraining}", rows_digest(names_of(self.blocks)))
        return {**super().find_origins(), "data.pretraining": text}

    def used(self) -> list[dict[str, Any]]:
        """Add the text of the pretraining term."""
        text = self.pretraining
        return super().used() + (used("pretraining", text, [len(self.blocks)]) if text else [])

    def train_dataloader(self) -> Any:
        """The module's own loader: it trains on what it has sampled."""
        module = cast(CollectsRollouts, self.trainer and self.trainer.lightning_module)
        return module.update_loader()

    def rollout_prompts(self, phase: int, count: int, rank: int, world_size: int) -> PromptBatch:
        """This rank's share of the prompts of a phase: a function of (seed, phase) alone.

        Phases go through one shuffled pass over the prompts after another.

        Args:
            phase: number of the rollout phase, from 0.
            count: prompts of the phase over all ranks.
            rank: of this process.
            world_size: number of processes, a divisor of ``count``.
        """
        start = phase * count
        drawn = enumerate(stream(self.train_sets.groups, self.seed, start, count), start)
        share = chunk(list(drawn), rank, world_size)
        rows = [self.train_rows[row]._replace(sample_id=i) for i, row in share]
        return cast(PromptBatch, self.collate(rows))

    def pretraining_rows(
        self, update: int, count: int, rank: int, world_size: int
    ) -> LanguageBatch:
        """This rank's share of the pretraining rows of an update, by (seed, update) alone.

        Args:
            update: number of the update, from 0.
            count: rows of the update over all ranks.
            rank: of this process.
            world_size: number of processes, a divisor of ``count``.
        """
        rows = self._pretraining(update, count, rank, world_size)
        return cast(LanguageBatch, self.collate(rows))

    def pretraining_ids(self, update: int, count: int, rank: int, world_size: int) -> list[str]:
        """Names of these rows; arguments as for ``pretraining_rows``."""
        rows = self._pretraining(update, count, rank, world_size)
        return [row.id for row in rows]

    def _pretraining(
        self, update: int, count: int, rank: int, world_size: int
    ) -> list[LanguageRow]:
        if not self.blocks:
            raise UserError("--data.pretraining must name text for the pretraining term, got none")
        groups = [Group(0, len(self.blocks), len(self.blocks))]
        drawn = stream(groups, self.seed, update * count, count)
        return [self.blocks[row] for row in chunk(drawn, rank, world_size)]
