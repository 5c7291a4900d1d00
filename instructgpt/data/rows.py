"""Rows as token ids, before they are put into batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from instructgpt.types import Prompt


class LanguageRow(NamedTuple):
    """A document whose end is predicted."""

    tokens: Tensor  # [T] int64
    trained: int  # the first token that is predicted; at least 1
    id: str = ""

    def blank(self) -> LanguageRow:
        """A row that trains and counts nothing."""
        return self._replace(trained=len(self.tokens), id="")


class ComparisonRow(NamedTuple):
    """K responses to a prompt."""

    prompt: Tensor  # [P] int64
    responses: tuple[Tensor, ...]  # K times response and EOS
    ranking: tuple[int, ...]  # of all of them, or of none
    labeler: str
    source: str
    id: str
    number: int = 0  # among the rows of its split

    def blank(self) -> ComparisonRow:
        """A row that ranks nothing: the least that can be computed."""
        least = self.prompt[:1], (self.responses[0][:1],)
        return ComparisonRow(*least, (), labeler="", source="", id="", number=self.number)


class PromptRow(NamedTuple):
    """A prompt to respond to."""

    tokens: Tensor  # [P] int64
    prompt: Prompt
    sample_id: int

    def blank(self) -> PromptRow:
        """A row whose response is thrown away."""
        return self._replace(sample_id=-1)


AnyRow = LanguageRow | ComparisonRow | PromptRow


Ids = Sequence[int] | np.ndarray
"""Token ids in a list or an array."""


def joined(*parts: Ids) -> Tensor:
    """One tensor of some tokens, one behind the other, [T] int64."""
    return torch.from_numpy(np.concatenate([np.asarray(part, np.int64) for part in parts]))


def demonstration_row(prompt: Ids, response: Ids, name: str) -> LanguageRow:
    """Prompt and response; the response is trained.

    Args:
        prompt: tokens.
        response: tokens.
        name: of the row.
    """
    return LanguageRow(joined(prompt, response), len(prompt), name)


def comparison_row(
    prompt: Ids,
    responses: Sequence[Ids],
    ranking: Sequence[int],
    labeler: str,
    source: str,
    name: str,
) -> ComparisonRow:
    """A prompt and the responses to it.

    Args:
        prompt: tokens.
        responses: tokens of each.
        ranking: of the responses.
        labeler: who ranked them.
        source: what they are from.
        name: of the row.
    """
    tokens = tuple(joined(response) for response in responses)
    return ComparisonRow(joined(prompt), tokens, tuple(ranking), labeler, source, name)
