"""Rows of text into rows of tokens, within the limits."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerBase

from instructgpt.data.formats import Row
from instructgpt.data.rows import ComparisonRow, LanguageRow, PromptRow, Span
from instructgpt.data.sources import OnError
from instructgpt.data.summary import Summary
from instructgpt.data.tallies import Limit
from instructgpt.models.chat import RefusedPromptError
from instructgpt.models.template import Template
from instructgpt.types import UserError


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

    def prompt(self, row: Row) -> list[int] | None:
        """Tokens of the prompt, None when the row is dropped."""
        limit = self.max_prompt_tokens
        try:
            tokens = self.template.encode_prompt(self.tokenizer, row.prompt)
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

    def responses(self, row: Row) -> list[list[int]]:
        """Tokens of the responses, each with EOS unless it is cut."""
        responses, limit = [], self.max_response_tokens
        loss = "lose their end and EOS"
        allowed = Limit("responses", loss, "--data.max_response_tokens", limit)
        for text in row.responses:
            tokens = self.template.encode_response(self.tokenizer, text)
            self.summary.measure("response tokens", len(tokens), allowed)
            if len(tokens) > limit:
                self.summary.shorten(f"responses to {limit} tokens, without EOS", row.where)
            responses.append(tokens[:limit])
        return responses

    def demonstration(self, row: Row) -> LanguageRow | None:
        """Prompt and response; the response is trained."""
        prompt = self.prompt(row)
        if prompt is None:
            return None
        tokens = prompt + self.responses(row)[0]
        spans = (Span(0, len(prompt), len(tokens)),)
        return LanguageRow(torch.tensor(tokens), spans, (row.prompt.id,))

    def comparison(self, row: Row) -> ComparisonRow | None:
        """Prompt with each response."""
        prompt = self.prompt(row)
        if prompt is None:
            return None
        responses = self.responses(row)
        return ComparisonRow(
            tuple(torch.tensor(prompt + response) for response in responses),
            tuple(len(response) for response in responses),
            tuple(row.ranking),
            row.labeler,
            row.source,
            row.prompt.id,
        )

    def prompt_row(self, row: Row, sample_id: int) -> PromptRow | None:
        """The prompt alone."""
        tokens = self.prompt(row)
        return None if tokens is None else PromptRow(torch.tensor(tokens), row.prompt, sample_id)
