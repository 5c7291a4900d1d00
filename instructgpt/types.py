"""What travels between the phases of the pipeline, and the words for it.

Shapes: B prompts, K responses a prompt, N = B * K sequences, P prompt tokens, R response tokens,
T = P + R, V vocabulary. One mask polarity everywhere: True is a real token that counts. Masks come
from lengths, never from ``tokens != pad``. What a network reads lies flat (``FlatRows``); prompts
that wait for responses are left-padded, responses right-padded.
"""

from __future__ import annotations

import sysconfig
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from instructgpt.functional.layout import Layout, pieces

Progress = Callable[[str, int, int], None]
"""Told (part of the phase, done, total) while something long runs inside one step."""


class Diagnosis(NamedTuple):
    """Something about a run that a user should look at, though it goes on."""

    name: str  # of the check that found it
    what: str  # was seen
    why: str  # it matters
    remedy: str

    def __str__(self) -> str:
        """In one line."""
        return f"{self.what}: {self.why}; {self.remedy}"


Tell = Callable[[Diagnosis], None]
"""Told what a user should look at."""


class UserError(ValueError):
    """Something the user gave is wrong; one line that names the place, the rule and the value."""


class NoDataError(UserError):
    """Rows were asked for that are not there."""


def require(holds: bool, name: str, rule: str, value: object) -> None:
    """Refuse a value that a user gave, in one line: the argument, the rule, the value.

    Args:
        holds: whether it is as it must be; write it so that NaN fails.
        name: its name.
        rule: what it must be.
        value: what it is.

    Raises:
        UserError: it is not.

    Examples:
        >>> require(-1 > 0, "clip_range", "> 0", -1)
        Traceback (most recent call last):
        instructgpt.types.UserError: clip_range must be > 0, got -1
    """
    if not holds:
        raise UserError(f"{name} must be {rule}, got {value}")


class RunFailedError(UserError):
    """A run that had begun went wrong, as by numbers that are not finite; exit code 1, not 2."""


class WaitingForLabelsError(UserError):
    """People have to rank responses before this can go on; says where."""


def failed(what: str, error: Exception) -> UserError:
    """The line for what a user's own code raised: the innermost place in it, and the message.

    Args:
        what: what failed, for the message.
        error: caught around the call of it.
    """
    ours, libraries = str(Path(__file__).parent), tuple(sysconfig.get_paths().values())
    called = traceback.extract_tb(error.__traceback__)
    frames = [frame for frame in called if not frame.filename.startswith(ours)]
    theirs = [frame for frame in frames if not frame.filename.startswith(libraries)] or frames
    last = theirs[-1] if theirs else None
    place = f" (at {last.filename}:{last.lineno} in {last.name})" if last else ""
    message = " ".join(f"{type(error).__name__}: {error}".split())
    return UserError(f"{what}: {message}{place}")


class Origin(NamedTuple):
    """Something a run is made from, known again by what it holds, wherever it lies."""

    place: str  # as given by the user
    digest: str


class Prompt(NamedTuple):
    """A prompt as written, before template and tokenizer."""

    text: str
    messages: list[
        dict[str, str]
    ]  # chat turns before the response; one user turn when the row had only text
    id: str
    meta: dict[str, Any]

    @property
    def row(self) -> dict[str, Any]:
        """Its keys in a file: the turns too, unless they are the text as the user's only one."""
        single = [{"role": "user", "content": self.text}]
        turns = {} if self.messages == single else {"messages": self.messages}
        return {"id": self.id, "prompt": self.text, **turns}


class FlatRows(NamedTuple):
    """Rows end to end, without padding."""

    tokens: Tensor  # [T] int64
    layout: Layout

    def select(self, segments: Sequence[int] | Tensor) -> FlatRows:
        """Some of the segments.

        Args:
            segments: their numbers; what one continues must be among them, before it.
        """
        layout, places = self.layout.select(segments)
        return FlatRows(self.tokens[places], layout)


def flat_rows(documents: Sequence[Sequence[int] | Tensor]) -> FlatRows:
    """Documents end to end.

    Args:
        documents: token ids of each.

    Examples:
        >>> flat_rows([[5, 6], [7]]).tokens
        tensor([5, 6, 7])
    """
    rows = [torch.as_tensor(document, dtype=torch.int64) for document in documents]
    return FlatRows(
        torch.cat([*rows, torch.tensor([], dtype=torch.int64)]),
        Layout.of([len(row) for row in rows]),
    )


def shared_rows(prompts: Sequence[list[int]], responses: Sequence[list[list[int]]]) -> FlatRows:
    """Prompts, each before its responses.

    Args:
        prompts: token ids of each.
        responses: token ids of the responses to each.

    Examples:
        >>> shared_rows([[5, 6]], [[[7], [8, 9]]]).layout.parents
        tensor([-1,  0,  0])
    """
    layout = Layout.shared(map(len, prompts), [[len(one) for one in own] for own in responses])
    parts = zip(prompts, responses, strict=True)
    tokens = [token for prompt, own in parts for part in (prompt, *own) for token in part]
    return FlatRows(torch.tensor(tokens, dtype=torch.int64), layout)


class LanguageBatch(NamedTuple):
    """Demonstrations, or blocks of text, for next-token prediction."""

    rows: FlatRows  # a segment is a demonstration or a block, which sees nothing of another
    targets: Tensor  # [T] bool: tokens whose prediction is trained; never the first of a segment

    def pieces(self, max_tokens: int | None, max_rows: int | None = None) -> list[LanguageBatch]:
        """Parts of at most so many tokens and rows, in order.

        Args:
            max_tokens: of a part; a row with more is alone. None: any number.
            max_rows: of a part; None: any number.
        """
        layout, found, start = self.rows.layout, [], 0
        cut = pieces(layout.lengths, max_tokens, max_rows)
        if len(cut) == 1:
            return [self]
        for part in cut:
            rows = self.rows.select(torch.arange(part.start, part.stop))
            end = start + rows.layout.tokens
            found.append(LanguageBatch(rows, self.targets[start:end]))
            start = end
        return found


class ComparisonBatch(NamedTuple):
    """K ranked responses a prompt, K varying; one that was judged alone ranks 1 (good) or 2 (bad).

    A row that fills up a batch has responses, but no ranking.
    """

    rows: FlatRows  # each prompt once, before its responses
    responses: Tensor  # [B, K] int64: their segments, 0 where there is none
    ranking: Tensor  # [B, K] int64: 1 = best, equal = tie, 0 where not ranked
    ranking_mask: Tensor  # [B, K] bool
    response_lengths: Tensor  # [B, K] int64, tokens; 0 where not ranked
    labelers: list[str]  # "" where unknown
    sources: list[str]  # the data set a row came from
    ids: list[str]
    numbers: list[int]  # of the prompts' rows, among those of their split

    @property
    def own_numbers(self) -> list[int]:
        """The numbers of rows that do not only fill up the batch."""
        own = self.ranking_mask.any(1).tolist()
        return [number for number, real in zip(self.numbers, own, strict=True) if real]

    @property
    def prompts(self) -> Tensor:
        """Segments of the prompts, [B] int64 on the CPU."""
        return (self.rows.layout.parents < 0).nonzero().squeeze(1)

    @property
    def row_tokens(self) -> Tensor:
        """Tokens of each prompt with all its responses, [B] int64 on the CPU."""
        ends = torch.cat([torch.zeros(1, dtype=torch.int64), self.rows.layout.lengths.cumsum(0)])
        starts = ends[self.prompts]
        return torch.cat([starts, ends[-1:]]).diff()

    @property
    def response_tokens(self) -> Tensor:
        """Tokens of all responses to each prompt, [B] int64 on the CPU."""
        return self.row_tokens - self.rows.layout.lengths[self.prompts]

    def pieces(self, max_tokens: int | None) -> list[ComparisonBatch]:
        """Parts of at most so many tokens; the responses to a prompt stay together.

        Args:
            max_tokens: of a part; a prompt with more is alone. None: all in one.
        """
        return [self._part(rows) for rows in pieces(self.row_tokens, max_tokens)]

    def _part(self, rows: range) -> ComparisonBatch:
        heads = [*self.prompts.tolist(), len(self.rows.layout.parents)]
        first, end = heads[rows.start], heads[rows.stop]
        here = slice(rows.start, rows.stop)
        return ComparisonBatch(
            self.rows.select(torch.arange(first, end)),
            (self.responses[here] - first).clamp_min(0),
            self.ranking[here],
            self.ranking_mask[here],
            self.response_lengths[here],
            self.labelers[here],
            self.sources[here],
            self.ids[here],
            self.numbers[here],
        )


class PromptBatch(NamedTuple):
    """Left-padded prompts to respond to."""

    tokens: Tensor  # [B, P] int64
    mask: Tensor  # [B, P] bool
    sample_ids: (
        Tensor  # [B] int64: names the sampling noise of a row, so that it depends on nothing else
    )
    prompts: list[Prompt]


class Sample(NamedTuple):
    """One response as a reward function sees it."""

    prompt: Prompt
    response: str  # decoded, without EOS
    prompt_tokens: list[int]
    response_tokens: list[int]  # with EOS when the response is finished
    finished: bool  # ended by EOS or a stop token, not by the length limit


class Rollout(NamedTuple):
    """Prompts with sampled responses."""

    tokens: Tensor  # [N, P + R] int64
    prompt_mask: Tensor  # [N, P] bool
    response_mask: Tensor  # [N, R] bool, EOS included
    finished: Tensor  # [N] bool
    # [N, R] float32: log-probability of each token by the pass that sampled it, of logits /
    # temperature (1 where the most likely token is taken); 0 after the response
    logprobs: Tensor
    # [N, R, V / 8] uint8: ids that each token was drawn from, as `pack_bits` makes them, where they
    # are recorded; else [N, R, 0]
    support: Tensor

    @property
    def mask(self) -> Tensor:
        """Real tokens of prompt and response, [N, P + R] bool."""
        return torch.cat([self.prompt_mask, self.response_mask], dim=1)

    @property
    def responses(self) -> Tensor:
        """Response tokens, [N, R]."""
        return self.tokens[:, self.prompt_mask.shape[1] :]


class ScoredRollout(NamedTuple):
    """A rollout with everything the frozen and the training models say about it."""

    rollout: Rollout
    scores: Tensor  # [N] float32
    logprobs: Tensor  # [N, R] of the sampling policy, by the training forward pass
    reference_logprobs: Tensor | None  # [N, R]; None: no reference
    # [N, R + 1], the last is the state after the last column; None: no value model
    values: Tensor | None
    entropy: Tensor  # [N, R] of the sampling policy


class CollectsRollouts(Protocol):
    """A module that trains on its own rollouts and so brings its own train loader."""

    def update_loader(self) -> Any:
        """A stateful loader of micro-batch indices."""
