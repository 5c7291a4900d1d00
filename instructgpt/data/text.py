"""Plain text: what a policy is pretrained on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from instructgpt.data.base import Sets, StageData
from instructgpt.data.blocks import Blocks, Stream, check_block_size
from instructgpt.data.rows import PromptRow, joined
from instructgpt.data.stream_loader import Cut
from instructgpt.data.stream_records import BlockCut
from instructgpt.data.streaming import check_options
from instructgpt.data.summary import Summary
from instructgpt.data.views import Picked, Rows, rows_digest
from instructgpt.models.folder import put_in_place
from instructgpt.models.tokenizer import BPE, eos_id, load_tokenizer, train_bpe
from instructgpt.types import LanguageBatch, Prompt, UserError

MADE_FROM = "made_from.json"
TOKENIZER = "tokenizer"
DEBUG_TOKENIZER = "tokenizer.debug"  # of fast_dev_run, which keeps nothing and spoils nothing


class TextDataModule(StageData):
    """Documents joined by EOS and cut into blocks; every token is trained.

    Rows: ``{"text": str}``, as .jsonl, .json, .csv, .tsv (.gz) or .parquet.

    Args:
        batch_size: blocks per process and step.
        block_size: tokens of a block; the last block is shorter.
        bpe: instead of a tokenizer: train a byte-level BPE on the training text, and keep it in
            the folder ``tokenizer`` of the run. Used again as long as text and settings are the
            same.
        max_prompt_tokens: of validation documents, so many tokens (at most half) are continued by
            sampling.
        max_response_tokens: length of the sampled continuations.
        **common: options that all data modules have (``StageData``).
    """

    batch_type = LanguageBatch
    has_prompts = False
    wanted = "text"

    def __init__(
        self,
        *,
        batch_size: int = 8,
        block_size: int = 512,
        bpe: BPE | None = None,
        max_prompt_tokens: int = 64,
        max_response_tokens: int = 64,
        **common: Any,
    ) -> None:
        super().__init__(
            batch_size=batch_size,
            max_prompt_tokens=max_prompt_tokens,
            max_response_tokens=max_response_tokens,
            drop_long_prompts=False,  # a text is no prompt that could be too long
            **common,
        )
        check_block_size("block_size", block_size)
        if self.streaming and bpe is not None:
            check_options({"bpe": bpe}, "which does not read all text beforehand: give a tokenizer")
        self.block_size = self.block_tokens = block_size
        self.bpe = bpe
        self.resumes = False  # the command line says so; the trainer does not know it early enough

    # -- the tokenizer

    def prepare_data(self) -> None:
        """Train the tokenizer, unless the run has one of the same text and settings."""
        if self.tokenizer_name is not None or self.bpe is None:
            return
        sets, _ = self.read(Summary(), predict=False, raw=True)
        text = Stream([picked for picked, _ in sets], eos=0)
        made_from = {"bpe": asdict(self.bpe), "text": rows_digest(text.names)}
        folder = self.tokenizer_folder
        if _record(folder) == made_from:
            return
        kept = folder.with_name(TOKENIZER)
        if self.resumes and kept.exists() and _record(kept) != made_from:
            raise UserError(
                "--data.train and --data.bpe must be those that the tokenizer of a checkpoint was "
                f"made from, got others than {kept / MADE_FROM} says"
            )
        partial_folder = folder.with_name(folder.name + ".partial")
        for old in (folder, partial_folder):
            shutil.rmtree(old, ignore_errors=True)
        train_bpe(_texts(text), self.bpe).save_pretrained(partial_folder)
        (partial_folder / MADE_FROM).write_text(json.dumps(made_from))
        put_in_place(partial_folder, folder)

    @property
    def tokenizer_folder(self) -> Path:
        """Where a tokenizer trained here lies."""
        folder = Path(self.trainer.default_root_dir if self.trainer else ".")
        debugging = self.trainer is not None and self.trainer.fast_dev_run  # type: ignore[attr-defined]
        return folder / (DEBUG_TOKENIZER if debugging else TOKENIZER)

    def make_tokenizer(self) -> PreTrainedTokenizerBase:
        """Load the tokenizer given, or the one trained."""
        if self.tokenizer_name is None and self.bpe is not None:
            return load_tokenizer(str(self.tokenizer_folder))
        if self.tokenizer_name is None:
            raise UserError(
                "--data.bpe must be given where there is no tokenizer, got none: give it, "
                "--model.tokenizer or --model.init_from"
            )
        return super().make_tokenizer()

    # -- the text

    def split(self, sets: Sets, fraction: float, summary: Summary) -> tuple[Sets, list[Picked]]:
        """Hold out text by a hash of documents and of sections of long ones."""
        own = Summary()
        rest, held = super().split(sets, fraction, own)
        total, kept = (_size([picked for picked, _ in some]) for some in (sets, rest))
        summary.note(f"validation: {total - kept:,} of {total:,} tokens, by a hash")
        return rest, held

    def build(self, summary: Summary, predict: bool) -> None:
        """Cut into blocks."""
        sets, held = self.read(summary, predict)
        eos = eos_id(self.tokenizer)
        for picked, weight in sets:
            blocks = Blocks(Stream([picked], eos), self.block_size, "train")
            self.train_sets.add(blocks, weight, "train", summary)
        self.hold(held, summary)

    def cut(self) -> Cut:
        """Cut into blocks, wherever records end."""
        schema = self.reader.recipe(self.wanted, self.reading).schema
        return BlockCut(schema, self.block_size, eos_id(self.tokenizer))

    def hold(self, held: list[Picked], summary: Summary) -> None:
        """Measure on blocks, and continue beginnings of documents."""
        text = Stream(held, eos_id(self.tokenizer))
        blocks = Blocks(text, self.block_size, "validation")
        if blocks:
            summary.note(f"validation: {blocks.told}")
            self.validation_rows = blocks
        if len(beginnings := Beginnings(text, self.max_prompt_tokens, self.tokenizer)):
            self.prompt_rows = beginnings


class Beginnings(Rows[PromptRow]):
    """Beginnings of documents, which are continued by sampling.

    Args:
        text: documents.
        most: tokens of a beginning, at most half of the document's.
        tokenizer: of the text.
    """

    def __init__(self, text: Stream, most: int, tokenizer: PreTrainedTokenizerBase) -> None:
        self.text, self.tokenizer = text, tokenizer
        first, tokens = text.documents()
        sizes = np.minimum(most, tokens // 2)
        self.numbers = np.flatnonzero(sizes)  # of the documents
        self.first, self.sizes = first[self.numbers], sizes[self.numbers]

    def __len__(self) -> int:
        """How many there are."""
        return len(self.numbers)

    def row(self, place: int) -> PromptRow:
        """A row, made now."""
        section = int(self.first[place])
        start = int(self.text.begins[section])
        tokens = joined(self.text.tokens(start, start + int(self.sizes[place])))
        text = str(self.tokenizer.decode(tokens))
        turns = [{"role": "user", "content": text}]
        prompt = Prompt(text, turns, Path(self.text.where(section)).name, {})
        return PromptRow(tokens, prompt, int(self.numbers[place]))

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each."""
        return self.sizes

    @property
    def names(self) -> Sequence[np.ndarray]:
        """Of the text, and how long they are."""
        return [*self.text.names, self.sizes]


def _record(folder: Path) -> Any:
    """What the tokenizer in a folder was made from, if there is one."""
    file = folder / MADE_FROM
    return json.loads(file.read_text()) if file.is_file() else None


def _size(parts: list[Picked]) -> int:
    """Tokens of some sections."""
    return sum(int(part.store.lists("tokens").lengths[part.rows].sum()) for part in parts)


def _texts(text: Stream) -> Iterator[str]:
    """Documents that are stored as their bytes."""
    first, sizes = text.documents()
    for section, size in zip(first.tolist(), sizes.tolist(), strict=True):
        start = int(text.begins[section])
        yield text.tokens(start, start + size).astype(np.uint8).tobytes().decode()
