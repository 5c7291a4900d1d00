"""What all data modules have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar

from lightning.pytorch import LightningDataModule
from transformers import PreTrainedTokenizerBase

from instructgpt.data.collate import collate_prompts
from instructgpt.data.conversation import Wanted
from instructgpt.data.digest import rows_digest
from instructgpt.data.encode import Encoder
from instructgpt.data.formats import Row
from instructgpt.data.loader import StatefulLoader
from instructgpt.data.order import Group, Rows, hold_out, one_pass
from instructgpt.data.reading import FormatName, Reading
from instructgpt.data.row_format import RowFormat
from instructgpt.data.rows import AnyRow, PromptRow
from instructgpt.data.sources import Names, OnError, load, weighted
from instructgpt.data.summary import Summary, show
from instructgpt.models.artefact import check_artefact, read_artefact
from instructgpt.models.choice import choose_template
from instructgpt.models.template import Template
from instructgpt.models.tokenizer import load_tokenizer, pad_id
from instructgpt.terminal import say
from instructgpt.types import Origin, UserError, require

Sets = list[tuple[list[Any], float]]
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
        self.num_workers, self.seed = num_workers, seed
        self.tokenizer: PreTrainedTokenizerBase
        self.template: Template
        self.summary: list[str] = []
        self.groups: list[Group] = []
        self.train_rows: list[Any] = []
        self.validation_rows: list[Any] = []
        self.prompt_rows: list[PromptRow] = []  # of the validation rows
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
        self.groups, self.train_rows, self.validation_rows, self.prompt_rows = [], [], [], []
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
        return {
            "data.train": Origin(f"{self.train_names}", self.groups_digest(self.groups)),
            "data.validation": Origin(f"{self.validation}", rows_digest(self.validation_rows)),
        }

    def groups_digest(self, groups: list[Group]) -> str:
        """Name the rows of some groups, and how many of them are drawn a pass."""
        rows = self.train_rows
        return rows_digest((g.share, *rows[g.start : g.start + g.size]) for g in groups)

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

    def encoder(self, summary: Summary) -> Encoder:
        """Tokenizer, template and limits together."""
        return Encoder(
            self.tokenizer,
            self.template,
            self.max_prompt_tokens,
            self.max_response_tokens,
            self.drop_long_prompts,
            summary,
            self.on_error,
        )

    def wants(self, predict: bool) -> Wanted:
        """What rows are read for; a prediction may need less of them."""
        return self.wanted

    def read(self, summary: Summary, predict: bool) -> tuple[Sets, list[Any]]:
        """Training sets with their weights, and validation rows.

        A prediction has no training sets; it is made for all rows of ``validation`` when that
        names files, else for all rows of ``train``.
        """
        names = self.validation
        wanted, reading = self.wants(predict), self.reading
        files = [names] if isinstance(names, str) else names
        held = []
        if isinstance(files, list):
            held = load(files, wanted, self.on_error, summary, "validation", reading)
        if predict and held:
            return [], held
        sets = [
            (load(one, wanted, self.on_error, summary, reading=reading), weight)
            for one, weight in weighted(self.train_names, "--data.train")
        ]
        if predict:
            return [], [row for rows, _ in sets for row in rows]
        if isinstance(names, float):
            return self.split(sets, names, summary)
        trained = {row.key for rows, _ in sets for row in rows}
        if shared := sum(row.key in trained for row in held):
            summary.note(
                f"warning: the prompts or texts of {shared:,} validation rows are trained on"
            )
        return sets, held

    def split(self, sets: Sets, fraction: float, summary: Summary) -> tuple[Sets, list[Any]]:
        """Hold rows out by a hash of the user, else of the prompt.

        A prompt that several users gave may fall on both sides; then its validation rows are left
        out, so that neither a user nor a prompt is in two splits.

        Args:
            sets: rows to train on, with weights.
            fraction: of the users or prompts to hold out.
            summary: to tell.

        Returns:
            The sets without the rows held out, and these rows.
        """
        rows = [row for members, _ in sets for row in members]
        names = [f"user {row.user}" if row.user else f"prompt {row.key}" for row in rows]
        chosen = iter(hold_out(names, fraction, self.seed))
        out: list[Any] = []
        rest: Sets = []
        for members, weight in sets:
            kept: list[Any] = []
            for row in members:
                (out if next(chosen) else kept).append(row)
            rest.append((kept, weight))
        total = len(rows)
        if rows and len(out) == total:
            raise UserError(
                f"--data.validation must leave rows to train on, got {fraction} of {total:,} rows"
            )
        trained = {row.key for members, _ in rest for row in members}
        held = [row for row in out if row.key not in trained]
        for row in out:
            if row.key in trained:
                summary.drop("validation row with a prompt that is trained on", row.where)
        summary.note(
            f"validation: {len(held):,} of {total:,} rows, by a hash of user, else prompt"
            + ("" if out else " (all rows share one user or prompt)")
        )
        return rest, held

    def add_set(self, rows: Sequence[AnyRow], weight: float, seen: str, summary: Summary) -> None:
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
            self.train_rows += rows
            drawn = f", {count:,} drawn a pass" if count != len(rows) else ""
            summary.note(f"{seen}: {len(rows):,} rows{drawn}")

    def prompts_of(self, rows: list[Row]) -> list[PromptRow]:
        """Prompts of rows that the summary has seen already."""
        encoder = self.encoder(Summary())
        encoded = (encoder.prompt_row(row, i) for i, row in enumerate(rows))
        return [row for row in encoded if row is not None]

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
        order: Callable[[int], Rows] | None,
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


def _pass(groups: list[Group], seed: int, fixed: bool, epoch: int) -> Rows:
    return one_pass(groups, seed, 0 if fixed else epoch)


def _straight(count: int, epoch: int) -> range:
    return range(count)
