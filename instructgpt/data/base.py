"""What all data modules have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar

import numpy as np
from lightning.pytorch import LightningDataModule
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from instructgpt.data.blocks import Blocks, Stream
from instructgpt.data.build import prepared
from instructgpt.data.cache import cache_folder
from instructgpt.data.collate import collate_prompts
from instructgpt.data.conversation import Wanted
from instructgpt.data.folders import Split
from instructgpt.data.loader import StatefulLoader
from instructgpt.data.order import Group, one_pass
from instructgpt.data.reading import RECOGNISE, FormatName, Reading
from instructgpt.data.records import Recipe
from instructgpt.data.row_format import RowFormat
from instructgpt.data.rows import AnyRow, PromptRow
from instructgpt.data.sources import Names, OnError, sources_of, weighted
from instructgpt.data.split import split_rows
from instructgpt.data.summary import Summary, show
from instructgpt.data.views import Joined, Picked, Rows, all_numbers, names_of, rows_digest
from instructgpt.models.artefact import check_artefact, read_artefact
from instructgpt.models.choice import choose_template
from instructgpt.models.template import Template
from instructgpt.models.tokenizer import eos_id, load_tokenizer, pad_id
from instructgpt.terminal import say
from instructgpt.types import Origin, UserError, require

Sets = list[tuple[Picked, float]]
"""Rows to train on, with the weight of each set."""


class StageData(LightningDataModule, ABC):
    """Reads, checks, splits, tokenises and counts rows once, and hands out batches.

    After ``setup`` it has ``tokenizer``, ``template``, ``summary`` (printed lines), ``row_tokens``
    and ``origins`` (what a checkpoint knows the rows by).

    Args:
        train: file, folder, pattern (``*.parquet``), name of a data set (``owner/name`` or
            ``owner/name:split``), a list of them, or ``{name: weight}``: how many times the set's
            size is drawn in an epoch.
        batch_size: rows per process and micro-batch.
        validation: fraction of the rows to hold out, by a hash of ``user``, else of the prompt, so
            that neither is in two splits; of text by a hash of documents, and of sections of long
            ones; or file(s); or null. ``predict`` takes the rows of the file(s), else all of
            ``train``.
        format: of the rows of ``train`` and ``validation``: a name (``ultrafeedback``; all of them
            are in docs/formats.md), or the class path of a RowFormat of your own, which makes rows
            of a public format; default: it is recognised, and the summary says by what.
        columns: which columns the rows have in place of those of a public format:
            ``{prompt: question, response: answer.text}``.
        tokenizer: filled from --model.init_from or --model.tokenizer; a value given here must be
            the same.
        template: how a prompt is written: plain, instruction, alpaca, hh, chat, or a text with
            ``{prompt}``; default: that of the artefact the tokenizer comes from, else the
            tokenizer's chat template, else plain. Text to pretrain on is never put into it.
        max_prompt_tokens: longer chats lose their oldest turns, but not the system's; a turn that
            is too long alone, or a text, loses its beginning (paper: 1024).
        max_response_tokens: longer responses lose their end and have no EOS; the summary counts
            them, and warns where they are many. Sampled ones end here at the latest, EOS included.
        drop_long_prompts: leave out rows with too long prompts instead of cutting.
        on_error: what a bad row does: stop the run, or be skipped and counted.
        cache: folder where rows are kept checked and tokenised, for the next start and for other
            runs; default: ``instructgpt/data`` in the user's cache folder.
        num_proc: processes that read and tokenise rows; default: as many as there are cores for
            more than 32 MB, else this one.
        num_workers: processes that make batches; 0 is fast enough, rows are tokenised beforehand.
        seed: of the split, of the order, and of sampling in ``predict``; follows --seed_everything.
    """

    batch_type: ClassVar[type]
    has_prompts: ClassVar[bool] = True  # rows are put into a template
    wanted: ClassVar[Wanted]  # what rows are read for

    def __init__(
        self,
        *,
        train: Names,
        batch_size: int,
        validation: float | list[str] | str | None = 0.05,
        format: RowFormat | FormatName | None = None,  # type: ignore[valid-type]
        columns: dict[str, str] | None = None,
        tokenizer: str | None = None,
        template: str | None = None,
        max_prompt_tokens: int = 512,
        max_response_tokens: int = 512,
        drop_long_prompts: bool = False,
        on_error: OnError = "stop",
        cache: str | None = None,
        num_proc: int | None = None,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        # primitives only, so that checkpoints load with weights_only
        self.save_hyperparameters(logger=False, ignore=["bpe", "format"])
        limits = {
            "batch_size": batch_size,
            "max_prompt_tokens": max_prompt_tokens,
            "max_response_tokens": max_response_tokens,
        }
        for key, value in limits.items():
            require(value >= 1, f"--data.{key}", ">= 1", value)
        require(num_workers >= 0, "--data.num_workers", ">= 0", num_workers)
        require(num_proc is None or num_proc >= 1, "--data.num_proc", ">= 1", num_proc)
        require(cache is None or bool(cache.strip()), "--data.cache", "a folder", repr(cache))
        if isinstance(validation, int | float) and not 0 < validation < 1:
            rule = "must be a fraction between 0 and 1, files, or null for none"
            raise UserError(f"--data.validation {rule}, got {validation}")
        weighted(train, "--data.train")
        self.train_names, self.validation = train, validation
        self.reading = Reading(format, columns)
        self.tokenizer_name, self.template_name = tokenizer, template
        self.batch_size = batch_size
        self.max_prompt_tokens, self.max_response_tokens = max_prompt_tokens, max_response_tokens
        self.on_error: OnError = on_error
        self.drop_long_prompts = drop_long_prompts
        self.cache, self.num_proc = cache, num_proc
        self.num_workers, self.seed = num_workers, seed
        self.tokenizer: PreTrainedTokenizerBase
        self.template: Template
        self.summary: list[str] = []
        self.groups: list[Group] = []
        self.train_parts: list[Rows[Any]] = []  # one for each group
        self.train_rows: Sequence[Any] = []
        self.validation_rows: Sequence[Any] = []
        self.prompt_rows: Sequence[PromptRow] = []  # of the validation rows
        self.origins: dict[str, Origin] = {}
        self._ready = ""

    # -- what differs

    @abstractmethod
    def build(self, summary: Summary, predict: bool) -> None:
        """Fill ``groups``, ``train_rows``, ``validation_rows`` and ``prompt_rows``.

        Args:
            summary: to tell.
            predict: nothing is trained; all rows are for evaluation.
        """

    @property
    @abstractmethod
    def collate(self) -> Callable[[list[Any]], Any]:
        """Makes a batch of rows."""

    @property
    def row_tokens(self) -> int:
        """Tokens of the longest row there can be."""
        return self.max_prompt_tokens + self.max_response_tokens

    # -- reading

    def setup(self, stage: str) -> None:
        """Read everything once, and print the summary on the first rank."""
        wanted = "predict" if stage == "predict" else "fit"
        if self._ready == wanted:
            return
        self.tokenizer = self.make_tokenizer()
        self.groups, self.train_parts = [], []
        self.train_rows, self.validation_rows, self.prompt_rows = [], [], []
        summary = Summary()
        chosen = choose_template(
            self.template_name, self.tokenizer_name, self.tokenizer, "--data.template"
        )
        self.template = chosen.template
        self.check_start()
        summary.note(str(chosen))
        self.build(summary, wanted == "predict")
        rows = self.train_rows or self.validation_rows
        if not rows:
            raise UserError(f"--data.train: no rows left: {summary.losses()}")
        if stage in ("validate", "test") and not self.validation_rows:
            raise UserError(f"--data.validation must hold rows to {stage}, got {self.validation}")
        self.origins = {} if wanted == "predict" else self.find_origins()
        summary.example = show(rows[0], self.tokenizer)
        self.summary = summary.lines()
        if self.rank == 0:
            say("\n".join([f"data: {type(self).__name__}", *(f"  {s}" for s in self.summary)]))
        self._ready = wanted

    def find_origins(self) -> dict[str, Origin]:
        """What is trained on and measured on, so that a resume with other rows is refused."""
        held = rows_digest(names_of(self.validation_rows))
        return {
            "data.train": Origin(f"{self.train_names}", self.train_digest()),
            "data.validation": Origin(f"{self.validation}", held),
        }

    def train_digest(self, start: int = 0, stop: int | None = None) -> str:
        """Name the rows of some sets, and how many of them are drawn a pass."""
        groups, parts = self.groups[start:stop], self.train_parts[start:stop]
        shares = zip(groups, parts, strict=True)
        return rows_digest(*(one for group, rows in shares for one in (group.share, rows.names)))

    def check_start(self) -> None:
        """Refuse text that the model's artefact cannot read, before there is any work."""
        module = self.trainer.lightning_module if self.trainer else None
        source = getattr(module, "init_from", None)
        if isinstance(source, str) and (artefact := read_artefact(source)) is not None:
            check_artefact(artefact, self.tokenizer, self.template)

    def make_tokenizer(self) -> PreTrainedTokenizerBase:
        """Load the tokenizer."""
        if self.tokenizer_name is None:
            raise UserError(
                "--data.tokenizer must be known, got none: give --model.init_from or "
                "--model.tokenizer"
            )
        return load_tokenizer(self.tokenizer_name)

    def wants(self, predict: bool) -> Wanted:
        """What rows are read for; a prediction may need less of them."""
        return self.wanted

    def rows_of(
        self,
        names: list[str] | str,
        wanted: Wanted,
        summary: Summary,
        split: Split = "train",
        reading: Reading = RECOGNISE,
        raw: bool = False,
    ) -> Picked:
        """All rows of some files, checked and tokenised, from the cache if they are there.

        Args:
            names: files, folders, patterns or data sets.
            wanted: what the rows are for.
            summary: to tell.
            split: what the rows are for, in folders whose files are called after it.
            reading: their format and columns, where the user says them.
            raw: text is kept as its bytes.
        """
        sources = sources_of([names] if isinstance(names, str) else names, split, summary.note)
        recipe = Recipe(
            wanted,
            self.on_error,
            reading,
            None if raw else self.tokenizer,
            None if wanted == "text" else self.template,
            self.max_prompt_tokens,
            self.max_response_tokens,
            self.drop_long_prompts,
        )
        store = prepared(sources, recipe, cache_folder(self.cache), self.num_proc)
        summary.merge(Summary.from_json(store.summary))
        return Picked.all(store)

    def read(self, summary: Summary, predict: bool, raw: bool = False) -> tuple[Sets, list[Picked]]:
        """Training sets with their weights, and validation rows.

        A prediction has no training sets; it is made for all rows of ``validation`` when that
        names files, else for all rows of ``train``.
        """
        names, held = self.validation, []

        def load(names: list[str] | str, split: Split = "train") -> Picked:
            return self.rows_of(names, self.wants(predict), summary, split, self.reading, raw)

        if isinstance(names, list | str):
            held = [load(names, "validation")]
        if predict and held:
            return [], held
        sets = [(load(one), weight) for one, weight in weighted(self.train_names, "--data.train")]
        if predict:
            return [], [rows for rows, _ in sets]
        if isinstance(names, float):
            return self.split(sets, names, summary)
        trained = all_numbers("key", [rows for rows, _ in sets])
        if shared := int(np.isin(all_numbers("key", held), trained).sum()):
            summary.note(
                f"warning: the prompts or texts of {shared:,} validation rows are trained on"
            )
        return sets, held

    def split(self, sets: Sets, fraction: float, summary: Summary) -> tuple[Sets, list[Picked]]:
        """Hold rows out; arguments as for ``split_rows``."""
        what = "rows" if self.has_prompts else "text"
        rest, held = split_rows([rows for rows, _ in sets], fraction, self.seed, summary, what)
        return [(rows, weight) for rows, (_, weight) in zip(rest, sets, strict=True)], held

    def add_set(self, rows: Rows[Any], weight: float, seen: str, summary: Summary) -> None:
        """Add rows to train on.

        Args:
            rows: of one set.
            weight: rows of a pass as a multiple of the set's size.
            seen: what the set is called in the summary.
            summary: to tell.
        """
        if rows:
            count = max(1, round(weight * len(rows)))
            self.groups.append(Group(len(self.train_rows), len(rows), count))
            self.train_parts.append(rows)
            self.train_rows = Joined(self.train_parts)
            drawn = f", {count:,} drawn a pass" if count != len(rows) else ""
            summary.note(f"{seen}: {len(rows):,} rows{drawn}")

    def pretraining_blocks(self, names: list[str] | str, size: int, summary: Summary) -> Blocks:
        """Blocks of a pretraining mix.

        Args:
            names: files, folders, patterns or data sets.
            size: tokens of a block.
            summary: to tell.
        """
        own = Summary()
        text = self.rows_of(names, "text", own)
        blocks = Blocks(Stream([text], eos_id(self.tokenizer)), size, "pretraining mix")
        if not blocks:
            raise UserError(f"--data.pretraining: no rows left: {own.losses()}")
        summary.merge(own)
        summary.note(str(blocks))
        return blocks

    # -- batches

    @property
    def rank(self) -> int:
        """Of this process."""
        return self.trainer.global_rank if self.trainer else 0

    @property
    def world_size(self) -> int:
        """How many processes there are."""
        return self.trainer.world_size if self.trainer else 1

    def train_dataloader(self) -> Any:
        """Shuffled rows; with ``overfit_batches`` the same first ones in every epoch."""
        fixed = self.trainer is not None and self.trainer.overfit_batches > 0  # type: ignore[attr-defined]
        order = partial(_pass, self.groups, self.seed, fixed)
        return self.loader(self.train_rows, self.collate, order)

    def val_dataloader(self) -> Any:
        """Validation rows, each once; nothing when there are none."""
        return self.evaluation_loader(self.validation_rows, self.collate)

    def test_dataloader(self) -> Any:
        """The validation rows."""
        return self.val_dataloader()

    def predict_dataloader(self) -> Any:
        """All rows."""
        return self.val_dataloader()

    def prompt_dataloader(self, count: int | None = None) -> Any:
        """Prompts of the validation rows, or of the first so many, whatever the processes."""
        return self.evaluation_loader(self.prompt_rows[:count], self.prompt_collate)

    def prompt_collate(self, rows: list[PromptRow]) -> Any:
        """Make a batch of prompts."""
        return collate_prompts(rows, pad_id(self.tokenizer))

    def evaluation_loader(self, rows: Sequence[AnyRow], collate: Callable[[list[Any]], Any]) -> Any:
        """Each row once, in order; an empty list when there are none."""
        return self.loader(rows, collate, None) if rows else []

    def loader(
        self,
        rows: Sequence[AnyRow],
        collate: Callable[[list[Any]], Any],
        order: Callable[[int], Sequence[int] | NDArray[np.int64]] | None,
    ) -> StatefulLoader:
        """A loader of this process's share; without ``order`` for evaluation."""
        return StatefulLoader(
            rows,
            collate,
            self.batch_size,
            order or partial(_straight, len(rows)),
            order is not None,
            self.rank,
            self.world_size,
            self.num_workers,
        )


def _pass(groups: list[Group], seed: int, fixed: bool, epoch: int) -> NDArray[np.int64]:
    return one_pass(groups, seed, 0 if fixed else epoch)


def _straight(count: int, epoch: int) -> range:
    return range(count)
