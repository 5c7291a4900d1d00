"""Comparisons: what reward models and policies learn people's preferences from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

from instructgpt.data.base import StageData
from instructgpt.data.collate import collate_comparisons, collate_language
from instructgpt.data.conversation import Wanted
from instructgpt.data.rows import ComparisonRow, LanguageRow
from instructgpt.data.sources import load
from instructgpt.data.summary import Summary
from instructgpt.models.tokenizer import pad_id
from instructgpt.types import ComparisonBatch, UserError


class ComparisonDataModule(StageData):
    """Prompts with K ranked responses; all C(K, 2) pairs of a prompt are one batch element.

    Rows: ``{"prompt": str, "responses": [str], "ranking": [int]}`` with 1 = best and equal = tie;
    ``ratings`` (higher = better) will do instead of ``ranking``; also HH transcripts and
    ``chosen``/``rejected`` of TRL, UltraFeedback or ShareGPT, as texts or chat turns, a tie where
    their scores are equal. Responses with the same text tie at their mean rank. A response judged
    alone, as in KTO (``prompt``, ``completion``, ``label``), is read for algorithms that learn from
    such rows. As .jsonl, .json, .csv, .tsv (.gz) or .parquet.

    Args:
        batch_size: prompts per process and micro-batch, each with all its responses; a step sees
            these x processes x ``--trainer.accumulate_grad_batches`` (paper: 64).
        demonstrations: files, folders or data sets of demonstrations; after training a reward model
            is shifted so that they score 0 on average (paper, section 3.5).
        pairwise: train on every decided pair as a row of its own, shuffled. An ablation: it
            overfits (paper, section 3.5).
        **common: options that all data modules have (``StageData``).
    """

    batch_type = ComparisonBatch
    wanted = "comparison"

    def wants(self, predict: bool) -> Wanted:
        """Rows to be scored need no ranking; some algorithms learn from responses judged alone."""
        if predict:
            return "responses"
        module = self.trainer.lightning_module if self.trainer else None
        return "candidates" if getattr(module, "reads_unpaired", False) else self.wanted

    def __init__(
        self,
        *,
        batch_size: int = 64,
        demonstrations: list[str] | str | None = None,
        pairwise: bool = False,
        **common: Any,
    ) -> None:
        super().__init__(batch_size=batch_size, **common)
        self.demonstrations = demonstrations
        self.pairwise = pairwise
        self.demonstration_rows: list[LanguageRow] = []

    @property
    def collate(self) -> Callable[[list[Any]], ComparisonBatch]:
        """Makes a batch of rows."""
        return partial(collate_comparisons, pad_id=pad_id(self.tokenizer))

    def build(self, summary: Summary, predict: bool) -> None:
        """Tokenise, and count what the rankings say."""
        sets, held = self.read(summary, predict)
        encoder = self.encoder(summary)
        kept: list[ComparisonRow] = []
        for rows, weight in sets:
            encoded = [row for one in rows if (row := encoder.comparison(one)) is not None]
            kept += encoded
            decided = [row for row in encoded if decides(row)]
            if (len(encoded) - len(decided)) * max(1, weight) >= self.step_rows:
                # An optimizer step could hold nothing else, and have nothing to learn from.
                left = len(encoded) - len(decided)
                summary.note(f"left out of training: {left:,} rows, all tied")
                encoded = decided
            if self.pairwise:
                encoded = [pair for row in encoded for pair in pairs(row) or alone(row)]
            self.add_set(encoded, weight, "train", summary)
        if kept and not any(map(decides, kept)):
            raise UserError(
                "--data.train must hold a row whose ranking is not all tied, "
                f"got {len(kept):,} tied rows"
            )
        encoded = [row for one in held if (row := encoder.comparison(one)) is not None]
        if encoded and not predict and not any(map(decides, encoded)):
            raise UserError(
                "--data.validation must hold a row whose ranking is not all tied, which "
                f"val/accuracy is measured on, got {len(encoded):,} tied rows"
            )
        self.train_rows, self.validation_rows = numbered(self.train_rows), numbered(encoded)
        self.prompt_rows = self.prompts_of(held)
        _describe(kept + encoded, summary)
        if self.demonstrations and not predict:
            self._load_demonstrations(summary)

    @property
    def step_rows(self) -> int:
        """Rows of an optimizer step."""
        accumulated = self.trainer.accumulate_grad_batches if self.trainer else 1
        return self.batch_size * self.world_size * accumulated

    def _load_demonstrations(self, summary: Summary) -> None:
        names = self.demonstrations
        files = [names] if isinstance(names, str) else names or []
        own = Summary()  # their lengths are not those of the comparisons
        encoder = self.encoder(own)
        rows = load(files, "demonstration", self.on_error, own)
        encoded = (encoder.demonstration(row) for row in rows)
        self.demonstration_rows = [row for row in encoded if row is not None]
        if not self.demonstration_rows:
            raise UserError(f"--data.demonstrations: no rows left: {own.losses()}")
        summary.note(f"demonstrations for the offset: {len(self.demonstration_rows):,} rows")
        for line in own.lines():
            summary.note(f"  {line}")

    def demonstration_dataloader(self) -> Any:
        """Demonstrations, each once, as ``LanguageBatch``; None when no files were given."""
        if not self.demonstration_rows:
            return None
        collate = partial(collate_language, pad_id=pad_id(self.tokenizer))
        return self.evaluation_loader(self.demonstration_rows, collate)


def numbered(rows: list[ComparisonRow]) -> list[ComparisonRow]:
    """The rows of a split, each with its place among them."""
    return [row._replace(number=number) for number, row in enumerate(rows)]


def alone(row: ComparisonRow) -> list[ComparisonRow]:
    """The row, if its one response was judged alone."""
    return [row] if len(row.ranking) == 1 else []


def decides(row: ComparisonRow) -> bool:
    """Whether a row says that a response is better than another, or good or bad."""
    return bool(pairs(row) or alone(row))


def pairs(row: ComparisonRow) -> list[ComparisonRow]:
    """Every decided pair of a row as a row of its own."""
    count = len(row.ranking)
    return [
        row._replace(
            sequences=(row.sequences[i], row.sequences[j]),
            response_lengths=(row.response_lengths[i], row.response_lengths[j]),
            ranking=(1, 2),
        )
        for i in range(count)
        for j in range(count)
        if row.ranking[i] < row.ranking[j]
    ]


def _describe(rows: list[ComparisonRow], summary: Summary) -> None:
    sizes = Counter(len(row.ranking) for row in rows)
    decided = sum(len(pairs(row)) for row in rows)
    ties = sum(k * (k - 1) // 2 * count for k, count in sizes.items()) - decided
    undecided = sum(not decides(row) for row in rows)
    shown = ", ".join(f"K={k} {count:,}" for k, count in sorted(sizes.items()))
    summary.note(f"rankings: {shown}; {decided:,} decided pairs, {ties:,} ties")
    if judged := [row.ranking[0] for row in rows if alone(row)]:
        summary.note(f"judged alone: {judged.count(1):,} good, {judged.count(2):,} bad")
    if undecided:
        summary.note(f"warning: {undecided:,} rows are all tied and train nothing")
