"""Comparisons: what reward models and policies learn people's preferences from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from instructgpt.data.base import StageData
from instructgpt.data.conversation import Wanted
from instructgpt.data.pairs import Rankings, described, rankings_of
from instructgpt.data.rows import LanguageRow
from instructgpt.data.sketch import Sketch, sketch
from instructgpt.data.stored_rows import Comparisons, Demonstrations, Prompts, RankedPairs
from instructgpt.data.stream_loader import Cut
from instructgpt.data.stream_records import RowCut
from instructgpt.data.streaming import check_options
from instructgpt.data.summary import Summary
from instructgpt.data.used import used
from instructgpt.data.views import Picked, together
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
        batch_size: prompts per process and batch, each with all its responses; a step sees
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
        if self.streaming:
            check_options({"pairwise": pairwise}, "which does not shuffle the pairs of all rows")
        self.demonstrations = demonstrations
        self.pairwise = pairwise
        self.demonstration_rows: Sequence[LanguageRow] = []
        self.train_prompts: list[Sketch] = []  # of each set, unless it is streamed

    def build(self, summary: Summary, predict: bool) -> None:
        """Leave out what trains nothing, and count what the rankings say."""
        sets, held = self.read(summary, predict)
        rankings = [rankings_of(picked) for picked, _ in sets]
        self.train_prompts = [sketch(picked.numbers("key")) for picked, _ in sets]
        for (picked, weight), found in zip(sets, rankings, strict=True):
            decided = found.decided
            if (left := int((~decided).sum())) * max(1, weight) >= self.step_rows:
                # An optimizer step could hold nothing else, and have nothing to learn from.
                summary.note(f"left out of training: {left:,} rows, all tied")
                picked, found = picked.where(decided), found.where(decided)
            first = len(self.train_sets)
            rows = Comparisons(picked, first)
            chosen = RankedPairs(rows, found.pairs(), first) if self.pairwise else rows
            self.train_sets.add(chosen, weight, "train", summary)
        trained = sum(len(found) for found in rankings)
        if trained and not any(found.decided.any() for found in rankings):
            raise UserError(
                "--data.train must hold a row whose ranking is not all tied, "
                f"got {trained:,} tied rows"
            )
        judged = [rankings_of(picked) for picked in held]
        if not predict:
            _check_decided(judged)
        self.hold(held, summary)
        for line in described([*rankings, *judged]):
            summary.note(line)
        if self.demonstrations and not predict:
            self._load_demonstrations(self.demonstrations, summary)

    def stream(self, summary: Summary, predict: bool) -> None:
        """Check also that accuracy can be measured."""
        super().stream(summary, predict)
        if self.demonstrations:
            self._load_demonstrations(self.demonstrations, summary)

    def hold(self, held: list[Picked], summary: Summary) -> None:
        """Measure on comparisons, and respond to their prompts."""
        self.validation_rows = together(Comparisons, held)
        self.prompt_rows = together(Prompts, held)
        if self.streaming:
            judged = [rankings_of(picked) for picked in held]
            _check_decided(judged)
            for line in described(judged) if held else []:
                summary.note(f"validation {line}")

    def cut(self) -> Cut:
        """Each record is a row."""
        return RowCut(self.reader.recipe(self.wants(False), self.reading).schema, Comparisons)

    @property
    def step_rows(self) -> int:
        """Rows of an optimizer step."""
        accumulated = self.trainer.accumulate_grad_batches if self.trainer else 1
        return self.batch_size * self.world_size * accumulated

    def _load_demonstrations(self, names: list[str] | str, summary: Summary) -> None:
        own = Summary()  # their lengths are not those of the comparisons
        rows = Demonstrations(self.reader.rows_of(names, "demonstration", own))
        if not rows:
            raise UserError(f"--data.demonstrations: no rows left: {own.losses()}")
        self.demonstration_rows = rows
        summary.note(f"demonstrations for the offset: {len(rows):,} rows")
        for line in own.lines():
            summary.note(f"  {line}")

    def used(self) -> list[dict[str, Any]]:
        """Add samples of the prompts that are trained on, and the demonstrations for the offset."""
        found, rows = super().used(), [len(self.demonstration_rows)]
        for one, prompts in zip(found, self.train_prompts, strict=False):  # these come first
            one["prompts"] = prompts.plain
        names = self.demonstrations
        return found + (used("offset of the scores", names, rows) if names else [])

    def demonstration_dataloader(self) -> Any:
        """Demonstrations, each once, as ``LanguageBatch``; None when no files were given."""
        if not self.demonstration_rows:
            return None
        return self.evaluation_loader(self.demonstration_rows)


def _check_decided(judged: list[Rankings]) -> None:
    """Refuse validation rows of which none says that a response is better than another."""
    total = sum(map(len, judged))
    if total and not any(found.decided.any() for found in judged):
        raise UserError(
            "--data.validation must hold a row whose ranking is not all tied, which "
            f"val/accuracy is measured on, got {total:,} tied rows"
        )
