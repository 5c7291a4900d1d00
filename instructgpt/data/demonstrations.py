"""Demonstrations: what the policy imitates."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from instructgpt.data.base import StageData
from instructgpt.data.blocks import check_block_size, load_blocks
from instructgpt.data.collate import collate_language
from instructgpt.data.packing import pack
from instructgpt.data.summary import Summary
from instructgpt.models.tokenizer import pad_id
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
        batch_size: rows per process and micro-batch; a step sees these x processes x
            ``--trainer.accumulate_grad_batches`` (paper: 32).
        packing: put several demonstrations into a row of max_prompt_tokens + max_response_tokens;
            they do not see each other. Not for architectures with convolutions or recurrence.
            Validation is never packed.
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
        packing: bool = False,
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
        self.packing = packing
        self.pretraining = pretraining
        self.pretraining_fraction = pretraining_fraction
        self.pretraining_block_size = pretraining_block_size

    @property
    def row_tokens(self) -> int:
        """Tokens of the longest row there can be."""
        block = self.pretraining_block_size if self.pretraining else 0
        return max(super().row_tokens, block)

    @property
    def collate(self) -> Callable[[list[Any]], LanguageBatch]:
        """Makes a batch of rows."""
        return partial(collate_language, pad_id=pad_id(self.tokenizer))

    def build(self, summary: Summary, predict: bool) -> None:
        """Tokenise, pack, and mix in pretraining text."""
        sets, held = self.read(summary, predict)
        encoder = self.encoder(summary)
        for rows, weight in sets:
            encoded = [row for one in rows if (row := encoder.demonstration(one)) is not None]
            if self.packing:
                packed = pack(encoded, super().row_tokens)
                summary.note(f"packed {len(encoded):,} demonstrations into {len(packed):,} rows")
                encoded = packed
            self.add_set(encoded, weight, "train", summary)
        for one in held:
            if (row := encoder.demonstration(one)) is not None:
                self.validation_rows.append(row)
        self.prompt_rows = self.prompts_of(held)
        if self.pretraining and self.train_rows:
            self._mix(summary)

    def find_origins(self) -> dict[str, Origin]:
        """Tell demonstrations and the text mixed in apart: it is the last group."""
        origins = super().find_origins()
        if not self.pretraining:
            return origins
        train, text = (self.groups_digest(part) for part in (self.groups[:-1], self.groups[-1:]))
        return {
            **origins,
            "data.train": Origin(f"{self.train_names}", train),
            "data.pretraining": Origin(f"{self.pretraining}", text),
        }

    def _mix(self, summary: Summary) -> None:
        """Add so many blocks a pass that they are ``pretraining_fraction`` of all rows."""
        blocks = load_blocks(
            self.pretraining or [],
            self.tokenizer,
            self.pretraining_block_size,
            self.on_error,
            summary,
        )
        rows = sum(group.share for group in self.groups)
        wanted = rows * self.pretraining_fraction / (1 - self.pretraining_fraction)
        self.add_set(blocks, wanted / len(blocks), "pretraining", summary)
