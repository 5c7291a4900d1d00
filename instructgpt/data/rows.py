"""Rows as token ids, before they are put into batches."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from instructgpt.types import Prompt


class Span(NamedTuple):
    """A document inside a row: tokens ``start`` to ``end``, trained from ``trained`` on."""

    start: int
    trained: int
    end: int


class LanguageRow(NamedTuple):
    """One or more documents, one behind the other."""

    tokens: Tensor  # [T] int64
    spans: tuple[Span, ...]
    ids: tuple[str, ...] = ()  # of the documents

    def blank(self) -> LanguageRow:
        """A row that trains and counts nothing."""
        return self._replace(spans=tuple(s._replace(trained=s.end) for s in self.spans), ids=())


class ComparisonRow(NamedTuple):
    """K responses to a prompt."""

    sequences: tuple[Tensor, ...]  # K times prompt, response, EOS
    response_lengths: tuple[int, ...]
    ranking: tuple[int, ...]
    labeler: str
    source: str
    id: str
    ranked: bool = True
    number: int = 0  # among the rows of its split

    def blank(self) -> ComparisonRow:
        """A row that ranks nothing."""
        return self._replace(ranked=False, labeler="", source="", id="")


class PromptRow(NamedTuple):
    """A prompt to respond to."""

    tokens: Tensor  # [P] int64
    prompt: Prompt
    sample_id: int

    def blank(self) -> PromptRow:
        """A row whose response is thrown away."""
        return self._replace(sample_id=-1)


AnyRow = LanguageRow | ComparisonRow | PromptRow
