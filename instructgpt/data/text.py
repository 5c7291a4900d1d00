"""Plain text: what a policy is pretrained on."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from instructgpt.data.base import Sets, StageData
from instructgpt.data.blocks import (
    check_block_size,
    encode_documents,
    make_blocks,
    split_documents,
)
from instructgpt.data.collate import collate_language
from instructgpt.data.formats import Document
from instructgpt.data.rows import PromptRow
from instructgpt.data.summary import Summary
from instructgpt.models.tokenizer import BPE, eos_id, load_tokenizer, pad_id, train_bpe
from instructgpt.types import LanguageBatch, Prompt, UserError

MADE_FROM = "made_from.json"
TOKENIZER = "tokenizer"
DEBUG_TOKENIZER = "tokenizer.debug"  # of fast_dev_run, which keeps nothing and spoils nothing


class TextDataModule(StageData):
    """Documents joined by EOS and cut into blocks; every token is trained.

    Rows: ``{"text": str}``, as .jsonl, .json, .csv, .tsv (.gz) or .parquet.

    Args:
        batch_size: blocks per process and step.
        block_size: tokens of a block; the last block is shorter and padded.
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
        self.block_size = block_size
        self.bpe = bpe
        self.resumes = False  # the command line says so; the trainer does not know it early enough

    @property
    def row_tokens(self) -> int:
        """Tokens of the longest row there can be."""
        return max(super().row_tokens, self.block_size)

    @property
    def collate(self) -> Callable[[list[Any]], LanguageBatch]:
        """Makes a batch of rows."""
        return partial(collate_language, pad_id=pad_id(self.tokenizer))

    # -- the tokenizer

    def prepare_data(self) -> None:
        """Train the tokenizer, unless the run has one of the same text and settings."""
        if self.tokenizer_name is not None or self.bpe is None:
            return
        sets, _ = self.read(Summary(), predict=False)
        texts = [document.text for documents, _ in sets for document in documents]
        made_from = {"bpe": asdict(self.bpe), "text": _digest(texts)}
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
        train_bpe(texts, self.bpe).save_pretrained(partial_folder)
        (partial_folder / MADE_FROM).write_text(json.dumps(made_from))
        partial_folder.rename(folder)

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

    def split(self, sets: Sets, fraction: float, summary: Summary) -> tuple[Sets, list[Any]]:
        """Hold out text by a hash of documents and of sections of long ones."""
        rest, held = split_documents([documents for documents, _ in sets], fraction, self.seed)
        total, kept = (_characters(docs) for docs in ([d for d, _ in sets], rest))
        if total and not kept:
            raise UserError(f"--data.validation must leave text to train on, got {fraction}")
        summary.note(f"validation: {total - kept:,} of {total:,} characters, by a hash")
        return [(docs, weight) for docs, (_, weight) in zip(rest, sets, strict=True)], held

    def build(self, summary: Summary, predict: bool) -> None:
        """Tokenise and cut into blocks."""
        sets, held = self.read(summary, predict)
        eos = eos_id(self.tokenizer)
        for documents, weight in sets:
            encoded = encode_documents(documents, self.tokenizer, summary)
            blocks = make_blocks(encoded, eos, self.block_size, summary, "train")
            self.add_set(blocks, weight, "train", summary)
        encoded = encode_documents(held, self.tokenizer, summary)
        self.validation_rows = make_blocks(encoded, eos, self.block_size, summary, "validation")
        for number, (document, tokens) in enumerate(zip(held, encoded, strict=True)):
            if start := tokens[: min(self.max_prompt_tokens, len(tokens) // 2)]:
                text = str(self.tokenizer.decode(start))
                turns = [{"role": "user", "content": text}]
                prompt = Prompt(text, turns, Path(document.where).name, {})
                self.prompt_rows.append(PromptRow(torch.tensor(start), prompt, number))


def _record(folder: Path) -> Any:
    """What the tokenizer in a folder was made from, if there is one."""
    file = folder / MADE_FROM
    return json.loads(file.read_text()) if file.is_file() else None


def _characters(sets: list[list[Document]]) -> int:
    return sum(len(document.text) for documents in sets for document in documents)


def _digest(texts: list[str]) -> str:
    digest = hashlib.sha256()
    for text in texts:
        digest.update(hashlib.sha256(text.encode()).digest())
    return digest.hexdigest()
