"""Rows of text into rows of tokens, within the limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from instructgpt.data.formats import Row
from instructgpt.data.sources import OnError
from instructgpt.data.summary import Summary
from instructgpt.data.tallies import Limit
from instructgpt.models.chat import RefusedPromptError
from instructgpt.models.template import Template
from instructgpt.types import UserError


class Encoded(NamedTuple):
    """A row whose texts are tokens."""

    row: Row
    prompt: list[int]
    responses: list[list[int]]


@dataclass(frozen=True)
class Encoder:
    """Writes prompts and responses with a template and cuts them to size.

    Args:
        tokenizer: makes tokens.
        template: how a prompt is written.
        max_prompt_tokens: longer prompts lose their oldest turns, or the beginning of their text.
        max_response_tokens: longer responses lose their end, and with it EOS.
        drop_long_prompts: leave rows with longer prompts out instead.
        summary: told what is cut and dropped.
        on_error: what a prompt does that the template refuses.
    """

    tokenizer: PreTrainedTokenizerBase
    template: Template
    max_prompt_tokens: int
    max_response_tokens: int
    drop_long_prompts: bool
    summary: Summary
    on_error: OnError = "stop"

    def encode(self, rows: Sequence[Row]) -> list[Encoded | None]:
        """Tokens of each row; None for one that is dropped.

        Args:
            rows: as many as may be in memory; together they are encoded much faster.
        """
        prompts = self.template.encode_prompts(self.tokenizer, [row.prompt for row in rows])
        fitting = [self._fit(row, ids) for row, ids in zip(rows, prompts, strict=True)]
        kept = [row for row, ids in zip(rows, fitting, strict=True) if ids is not None]
        texts = [text for row in kept for text in row.responses]
        responses = iter(self.template.encode_responses(self.tokenizer, texts))
        return [
            None
            if ids is None
            else Encoded(row, ids, [self._cut(row, next(responses)) for _ in row.responses])
            for row, ids in zip(rows, fitting, strict=True)
        ]

    def _fit(self, row: Row, tokens: list[int] | RefusedPromptError) -> list[int] | None:
        """Tokens of the prompt, None when the row is dropped."""
        limit = self.max_prompt_tokens
        try:
            if isinstance(tokens, RefusedPromptError):
                raise tokens
            loss = "are left out" if self.drop_long_prompts else "lose their beginning"
            allowed = Limit("prompts", loss, "--data.max_prompt_tokens", limit)
            self.summary.measure("prompt tokens", len(tokens), allowed)
            if not tokens:
                self.summary.drop("prompt without tokens", row.where)
                return None
            if len(tokens) <= limit:
                return tokens
            if self.drop_long_prompts:
                self.summary.drop(f"prompt longer than {limit} tokens", row.where)
                return None
            fitting = self.template.shorten_prompt(self.tokenizer, row.prompt, tokens, limit)
        except RefusedPromptError as error:
            if self.on_error == "stop":
                raise UserError(f"{row.where}: {error}") from error
            self.summary.drop(f"bad ({error})", row.where)
            return None
        self.summary.shorten(f"prompts on the left, to {limit} tokens", row.where)
        return fitting

    def _cut(self, row: Row, tokens: list[int]) -> list[int]:
        """A response, with EOS unless it is cut."""
        limit = self.max_response_tokens
        allowed = Limit("responses", "lose their end and EOS", "--data.max_response_tokens", limit)
        self.summary.measure("response tokens", len(tokens), allowed)
        if len(tokens) > limit:
            self.summary.shorten(f"responses to {limit} tokens, without EOS", row.where)
        return tokens[:limit]
