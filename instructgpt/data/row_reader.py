"""Reads rows of files, data sets of the hub and folders, as the options of a data module say."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from instructgpt.data.blocks import Blocks, Stream
from instructgpt.data.build import prepared
from instructgpt.data.cache import cache_folder
from instructgpt.data.conversation import Wanted
from instructgpt.data.folders import Split
from instructgpt.data.reading import RECOGNISE, Reading
from instructgpt.data.records import Recipe
from instructgpt.data.sources import OnError, sources_of
from instructgpt.data.streaming import in_memory
from instructgpt.data.summary import Summary
from instructgpt.data.views import Picked
from instructgpt.models.template import Template
from instructgpt.models.tokenizer import eos_id
from instructgpt.types import UserError


@dataclass(frozen=True)
class RowReader:
    """Makes rows of what names stand for.

    Args:
        tokenizer: of prompts, responses and text.
        template: of prompts.
        on_error: "stop" at the first bad row, or "skip" and count it.
        max_prompt_tokens: limit of prompts.
        max_response_tokens: limit of responses.
        drop_long_prompts: drop instead of cutting.
        cache: folder of the cache, None for the user's.
        num_proc: processes that tokenise.
        streaming: nothing is kept on the disk.
    """

    tokenizer: PreTrainedTokenizerBase | None
    template: Template | None
    on_error: OnError
    max_prompt_tokens: int
    max_response_tokens: int
    drop_long_prompts: bool
    cache: str | None
    num_proc: int | None
    streaming: bool

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
        names = [names] if isinstance(names, str) else names
        sources = sources_of(names, split, summary.note, self.streaming)
        recipe = self.recipe(wanted, reading, raw)
        if self.streaming:
            return in_memory(sources, recipe, summary)
        store = prepared(sources, recipe, cache_folder(self.cache), self.num_proc)
        summary.merge(Summary.from_json(store.summary))
        return Picked.all(store)

    def recipe(self, wanted: Wanted, reading: Reading, raw: bool = False) -> Recipe:
        """What is made of rows; arguments as for ``rows_of``."""
        return Recipe(
            wanted,
            self.on_error,
            reading,
            None if raw else self.tokenizer,
            None if wanted == "text" else self.template,
            self.max_prompt_tokens,
            self.max_response_tokens,
            self.drop_long_prompts,
        )

    def blocks_of(self, names: list[str] | str, size: int, summary: Summary) -> Blocks:
        """Blocks of a pretraining mix.

        Args:
            names: files, folders, patterns or data sets.
            size: tokens of a block.
            summary: to tell.
        """
        own = Summary()
        text = self.rows_of(names, "text", own)
        if self.tokenizer is None:
            raise ValueError("blocks need a tokenizer")
        blocks = Blocks(Stream([text], eos_id(self.tokenizer)), size, "pretraining mix")
        if not blocks:
            raise UserError(f"--data.pretraining: no rows left: {own.losses()}")
        summary.merge(own)
        return blocks
