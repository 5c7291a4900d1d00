"""Prompts: what the policy responds to while it learns by PPO, and when it predicts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from instructgpt.data.base import StageData
from instructgpt.data.blocks import check_block_size, load_blocks
from instructgpt.data.collate import collate_language
from instructgpt.data.digest import rows_digest
from instructgpt.data.formats import parse_prompt
from instructgpt.data.order import Group, chunk, stream
from instructgpt.data.row_format import RowFormat
from instructgpt.data.rows import LanguageRow
from instructgpt.data.sources import Names, OnError
from instructgpt.data.summary import Summary
from instructgpt.models.tokenizer import pad_id
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
        train: file, folder, pattern (``*.parquet``), name of a data set (``owner/name`` or
            ``owner/name:split``), a list of them, or ``{name: weight}``: how many times the set's
            size is drawn in a pass.
        validation: fraction of the rows to hold out, by a hash of ``user``, else of the prompt, so
            that neither is in two splits; or file(s); or null. ``predict`` responds to the rows of
            the file(s), else to all of ``train``.
        format: what makes rows of a public format out of those of ``train`` and ``validation``: the
            class path of a RowFormat of your own; default: the format is recognised.
        tokenizer: filled from --model.init_from or --model.tokenizer; a value given here must be
            the same.
        template: how a prompt is written: plain, instruction, alpaca, hh, chat, or a text with
            ``{prompt}``; default: that of the artefact the tokenizer comes from, else the
            tokenizer's chat template, else plain.
        validation_batch_size: prompts per process that are responded to at once in validation and
            prediction.
        max_prompt_tokens: longer chats lose their oldest turns, but not the system's; a turn that
            is too long alone, or a text, loses its beginning (paper: 1024).
        max_response_tokens: sampled responses end here at the latest, EOS included.
        on_error: what a bad row does: stop the run, or be skipped and counted.
        drop_long_prompts: leave out too long prompts instead of cutting.
        responses: to each prompt in ``predict``.
        pretraining: text files, folders or data sets for the pretraining term of PPO-ptx (eq. 2).
        pretraining_block_size: tokens of a row of pretraining text.
        num_workers: processes that make batches; 0 is fast enough, rows are tokenised beforehand.
        seed: of the split, of the order, and of sampling in ``predict``; follows --seed_everything.
    """

    batch_type = PromptBatch
    parse = staticmethod(parse_prompt)

    def __init__(
        self,
        train: Names,
        validation: float | list[str] | str | None = 0.05,
        format: RowFormat | None = None,
        tokenizer: str | None = None,
        template: str | None = None,
        validation_batch_size: int = 16,
        max_prompt_tokens: int = 512,
        max_response_tokens: int = 512,
        on_error: OnError = "stop",
        drop_long_prompts: bool = False,
        responses: int = 1,
        pretraining: list[str] | str | None = None,
        pretraining_block_size: int = 512,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(
            train,
            validation,
            format,
            tokenizer,
            template,
            validation_batch_size,
            max_prompt_tokens,
            max_response_tokens,
            on_error,
            drop_long_prompts,
            num_workers,
            seed,
        )
        check_block_size("pretraining_block_size", pretraining_block_size)
        require(responses >= 1, "--data.responses", ">= 1", responses)
        self.responses = responses
        self.pretraining = pretraining
        self.pretraining_block_size = pretraining_block_size
        self.blocks: list[LanguageRow] = []

    @property
    def row_tokens(self) -> int:
        """Tokens of the longest row there can be."""
        block = self.pretraining_block_size if self.pretraining else 0
        return max(super().row_tokens, block)

    @property
    def collate(self) -> Callable[[list[Any]], PromptBatch]:
        """Makes a batch of rows."""
        return self.prompt_collate

    def build(self, summary: Summary, predict: bool) -> None:
        """Tokenise prompts and pretraining text."""
        sets, held = self.read(summary, predict)
        encoder = self.encoder(summary)
        for rows, weight in sets:
            encoded = (encoder.prompt_row(row, i) for i, row in enumerate(rows))
            self.add_set([row for row in encoded if row is not None], weight, "train", summary)
        encoded = (encoder.prompt_row(row, i) for i, row in enumerate(held))
        self.prompt_rows = [row for row in encoded if row is not None]
        self.validation_rows = self.prompt_rows
        if self.pretraining and not predict:
            self.blocks = load_blocks(
                self.pretraining,
                self.tokenizer,
                self.pretraining_block_size,
                self.on_error,
                summary,
            )

    def find_origins(self) -> dict[str, Origin]:
        """Add the text of the pretraining term."""
        text = Origin(f"{self.pretraining}", rows_digest(self.blocks))
        return {**super().find_origins(), "data.pretraining": text}

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
        drawn = enumerate(stream(self.groups, self.seed, start, count), start)
        share = chunk(list(drawn), rank, world_size)
        rows = [self.train_rows[row]._replace(sample_id=i) for i, row in share]
        return self.prompt_collate(rows)

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
        return collate_language(rows, pad_id(self.tokenizer))

    def pretraining_ids(self, update: int, count: int, rank: int, world_size: int) -> list[str]:
        """Names of these rows; arguments as for ``pretraining_rows``."""
        rows = self._pretraining(update, count, rank, world_size)
        return [name for row in rows for name in row.ids]

    def _pretraining(
        self, update: int, count: int, rank: int, world_size: int
    ) -> list[LanguageRow]:
        if not self.blocks:
            raise UserError("--data.pretraining must name text for the pretraining term, got none")
        groups = [Group(0, len(self.blocks), len(self.blocks))]
        drawn = stream(groups, self.seed, update * count, count)
        return [self.blocks[row] for row in chunk(drawn, rank, world_size)]
