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

from instructgpt.data.checks import check_counts
from instructgpt.data.collate import collate
from instructgpt.data.conversation import Wanted
from instructgpt.data.folders import Split
from instructgpt.data.loader import StatefulLoader
from instructgpt.data.order import nth_pass, straight
from instructgpt.data.reading import FormatName, Reading
from instructgpt.data.row_format import RowFormat
from instructgpt.data.row_reader import RowReader
from instructgpt.data.rows import AnyRow, PromptRow
from instructgpt.data.sources import Names, OnError, weighted
from instructgpt.data.split import split_rows
from instructgpt.data.start import check_start
from instructgpt.data.stream_loader import Cut
from instructgpt.data.streaming import (
    Streamed,
    check_options,
    check_steps,
    is_endless,
    stream_steps,
    streamed_sets,
)
from instructgpt.data.summary import Summary, show
from instructgpt.data.train_sets import TrainSets
from instructgpt.data.used import held_out, used
from instructgpt.data.views import Picked, all_numbers, names_of, rows_digest
from instructgpt.models.choice import choose_template
from instructgpt.models.template import Template
from instructgpt.models.tokenizer import load_tokenizer, pad_id
from instructgpt.row_shares import leads, place_of
from instructgpt.terminal import say
from instructgpt.types import Diagnosis, Origin, UserError, require

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
        batch_size: rows per process and batch.
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
        streaming: train on rows as they are read, for what does not fit on the disk; needs
            --trainer.max_steps. Nothing is kept; at the end the rows are read again, in another
            order. A resume knows files by their sizes, beginnings and ends, and by the first rows:
            a change in the middle goes unnoticed. Of a fraction as ``validation``, the rows among
            the first ``shuffle_buffer`` are measured on, and no row of that fraction is trained on.
            Weights of ``train`` say how often each set is drawn from.
        shuffle_buffer: rows that are shuffled together with ``streaming``; at most 64 MB of them.
        num_workers: processes that make batches; 0 is fast enough, rows are tokenised beforehand,
            except with ``streaming``.
        seed: of the split, of the order, and of sampling in ``predict``; follows --seed_everything.
    """

    batch_type: ClassVar[type]
    has_prompts: ClassVar[bool] = True  # rows are put into a template
    wanted: ClassVar[Wanted]  # what rows are read for
    block_tokens = 0  # of a block of text, where rows are such
    findings: Sequence[Diagnosis] = ()  # that the summary has said

    def __init__(
        self,
        *,
        train: Names,
        batch_size: int,
        validation: float | list[str] | str | None = 0.05,
        format: RowFormat | FormatName | None = None,
        columns: dict[str, str] | None = None,
        tokenizer: str | None = None,
        template: str | None = None,
        max_prompt_tokens: int = 512,
        max_response_tokens: int = 512,
        drop_long_prompts: bool = False,
        on_error: OnError = "stop",
        cache: str | None = None,
        num_proc: int | None = None,
        streaming: bool = False,
        shuffle_buffer: int = 10_000,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        # primitives only, so that checkpoints load with weights_only
        self.save_hyperparameters(logger=False, ignore=["bpe", "format"])
        check_counts(
            batch_size=batch_size,
            max_prompt_tokens=max_prompt_tokens,
            max_response_tokens=max_response_tokens,
            shuffle_buffer=shuffle_buffer,
            num_proc=num_proc,
        )
        require(num_workers >= 0, "--data.num_workers", ">= 0", num_workers)
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
        self.streaming, self.shuffle_buffer = streaming, shuffle_buffer
        if streaming:
            check_options({"cache": cache, "num_proc": num_proc}, "which keeps nothing")
        self.num_workers, self.seed = num_workers, seed
        self.tokenizer: PreTrainedTokenizerBase
        self.template: Template
        self.summary: list[str] = []
        self.train_sets = TrainSets()
        self.train_rows: Sequence[Any] = []
        self.validation_rows: Sequence[Any] = []
        self.prompt_rows: Sequence[PromptRow] = []  # of the validation rows
        self.origins: dict[str, Origin] = {}
        self._ready = ""
        self._streamed: Streamed | None = None

    # -- what differs

    @abstractmethod
    def build(self, summary: Summary, predict: bool) -> None:
        """Fill ``train_sets``, ``validation_rows`` and ``prompt_rows``.

        Args:
            summary: to tell.
            predict: nothing is trained; all rows are for evaluation.
        """

    def cut(self) -> Cut:
        """Makes rows of records, with ``streaming``; without one rows cannot be streamed."""
        raise UserError(f"--data.streaming must be false for {type(self).__name__}, got true")

    def hold(self, held: list[Picked], summary: Summary) -> None:
        """Fill ``validation_rows`` and ``prompt_rows``.

        Args:
            held: rows that are not trained on.
            summary: to tell.
        """
        raise NotImplementedError

    @property
    def collate(self) -> Callable[[list[Any]], Any]:
        """Makes a batch of rows."""
        return partial(collate, pad_id=pad_id(self.tokenizer))

    @property
    def row_tokens(self) -> int:
        """Tokens of the longest row there can be."""
        return max(self.max_prompt_tokens + self.max_response_tokens, self.block_tokens)

    # -- reading

    def setup(self, stage: str) -> None:
        """Read everything once, and print the summary on the first rank."""
        wanted = "predict" if stage == "predict" else "fit"
        if self._ready == wanted:
            return
        self.tokenizer = self.make_tokenizer()
        self.train_sets = TrainSets()
        self.train_rows, self.validation_rows, self.prompt_rows = [], [], []
        summary = Summary()
        chosen = choose_template(
            self.template_name, self.tokenizer_name, self.tokenizer, "--data.template"
        )
        self.template = chosen.template
        check_start(self.trainer, self.tokenizer, self.template)
        if self.streaming and stage == "fit":
            check_steps(self.trainer, summary)
        summary.note(str(chosen))
        if self.streaming:
            self.stream(summary, wanted == "predict")
        else:
            self.build(summary, wanted == "predict")
            self.train_rows = self.train_sets.rows
        rows = self.train_rows or self.validation_rows
        if not rows:
            raise UserError(f"--data.train: no rows left: {summary.losses()}")
        if stage in ("validate", "test") and not self.validation_rows:
            raise UserError(f"--data.validation must hold rows to {stage}, got {self.validation}")
        self.origins = {} if wanted == "predict" else self.find_origins()
        summary.example = show(rows[0], self.tokenizer)
        self.summary, self.findings = summary.lines(), summary.findings()
        if leads(self.trainer):
            say("\n".join([f"data: {type(self).__name__}", *(f"  {s}" for s in self.summary)]))
        self._ready = wanted

    def find_origins(self) -> dict[str, Origin]:
        """What is trained on and measured on, so that a resume with other rows is refused."""
        held = rows_digest(names_of(self.validation_rows))
        train = self._streamed.digest if self._streamed else self.train_sets.digest()
        return {
            "data.train": Origin(f"{self.train_names}", train),
            "data.validation": Origin(f"{self.validation}", held),
        }

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

    @property
    def reader(self) -> RowReader:
        """Reads rows as the options say."""
        return RowReader(
            vars(self).get("tokenizer"),  # none yet where one is trained on the rows
            vars(self).get("template"),
            self.on_error,
            self.max_prompt_tokens,
            self.max_response_tokens,
            self.drop_long_prompts,
            self.cache,
            self.num_proc,
            self.streaming,
        )

    def stream(self, summary: Summary, predict: bool) -> None:
        """Hold out validation rows, and look at the first ones to train on."""
        if predict:
            raise UserError("--data.streaming must be false to predict, got true")
        recipe, load = self.reader.recipe(self.wants(predict), self.reading), self.reader.rows_of
        sets, order = streamed_sets(self.train_names, summary), (self.shuffle_buffer, self.seed)
        streamed = Streamed(sets, recipe, self.cut(), *order)
        held: list[Picked] = []
        if isinstance(self.validation, float):
            held = streamed.hold_out(self.validation, summary)
        elif (names := self.validation) is not None:
            held = [load(names, recipe.wanted, summary, "validation", self.reading)]
            streamed.know(held)
        self.hold(held, summary)
        streamed.begin(summary)
        self.train_rows, self._streamed = streamed.first, streamed

    def read(self, summary: Summary, predict: bool, raw: bool = False) -> tuple[Sets, list[Picked]]:
        """Training sets with their weights, and validation rows.

        A prediction has no training sets; it is made for all rows of ``validation`` when that
        names files, else for all rows of ``train``.
        """
        names, held = self.validation, []

        def load(names: list[str] | str, split: Split = "train") -> Picked:
            return self.reader.rows_of(
                names, self.wants(predict), summary, split, self.reading, raw
            )

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

    def used(self) -> list[dict[str, Any]]:
        """What was read, what for, and how many rows of it are left: for a model card."""
        told: list[int | None] = [rows for seen, rows in self.train_sets.told if seen == "train"]
        told = told or [None] * len(weighted(self.train_names, "--data.train"))  # streamed
        found = used("training", self.train_names, told)
        names, rows = self.validation, len(self.validation_rows)
        if isinstance(names, float):
            return [*found, held_out(rows)]
        return found + (used("validation", names, [rows]) if names else [])

    # -- batches

    @property
    def rank(self) -> int:
        """Of this process, among those that read different rows."""
        return place_of(self.trainer).rank if self.trainer else 0

    @property
    def world_size(self) -> int:
        """How many processes read different rows."""
        return place_of(self.trainer).ranks if self.trainer else 1

    @property
    def endless(self) -> bool:
        """Whether an epoch is as long as the run."""
        return self.streaming and is_endless(self.trainer)

    def train_dataloader(self) -> Any:
        """Shuffled rows; with ``overfit_batches`` the same first ones in every epoch."""
        if self._streamed is not None:
            steps = stream_steps(check_steps(self.trainer, Summary()), self.batch_size)
            return self._streamed.loader(self.collate, steps, self.num_workers)
        fixed = self.trainer is not None and self.trainer.overfit_batches > 0  # type: ignore[attr-defined]
        order = partial(nth_pass, self.train_sets.groups, self.seed, fixed)
        return self.loader(self.train_rows, order)

    def teardown(self, stage: str) -> None:
        """Count what was seen of a stream."""
        if self._streamed is not None and (lines := self._streamed.end()) and leads(self.trainer):
            say("\n".join(lines))

    def val_dataloader(self) -> Any:
        """Validation rows, each once; nothing when there are none."""
        return self.evaluation_loader(self.validation_rows)

    def test_dataloader(self) -> Any:
        """The validation rows."""
        return self.val_dataloader()

    def predict_dataloader(self) -> Any:
        """All rows."""
        return self.val_dataloader()

    def prompt_dataloader(self, count: int | None = None) -> Any:
        """Prompts of the validation rows, or of the first so many, whatever the processes."""
        return self.evaluation_loader(self.prompt_rows[:count])

    def evaluation_loader(self, rows: Sequence[AnyRow]) -> Any:
        """Each row once, in order; an empty list when there are none."""
        return self.loader(rows) if rows else []

    def loader(
        self,
        rows: Sequence[AnyRow],
        order: Callable[[int], Sequence[int] | NDArray[np.int64]] | None = None,
    ) -> StatefulLoader:
        """A loader of this process's share; without ``order`` for evaluation."""
        return StatefulLoader(
            rows,
            self.collate,
            self.batch_size,
            order or partial(straight, len(rows)),
            order is not None,
            self.rank,
            self.world_size,
            self.num_workers,
        )
