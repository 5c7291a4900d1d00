"""Flat rows: the tokens of a micro-batch lie end to end, and a layout says which belong together.

A segment is a document, a prompt, or a continuation of a prompt, which stands before all of its
continuations. A row is what one token can see at most: a document, or a prompt with one of its
continuations. So K responses to a prompt are K rows whose first tokens are computed once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property

import torch
from torch import Tensor

CPU = torch.device("cpu")


class Layout:
    """Which tokens of a flat micro-batch belong together, and where each row goes on.

    Args:
        lengths: [S] int64 tokens of each segment, in the order they lie in.
        parents: [S] int64 number of the segment that a segment continues; -1: none.
        device: of the facts; the two above stay on the CPU, where loops read them.

    Examples:
        >>> layout = Layout.shared([2, 1], [[1, 2], []])  # a b|c|d e|f: rows abc, abde, f
        >>> layout.positions, layout.previous
        (tensor([0, 1, 2, 2, 3, 0]), tensor([-1,  0,  1,  1,  3, -1]))
        >>> layout.starts, layout.last, layout.tokens
        (tensor([0, 2, 3, 5]), tensor([1, 2, 4, 5]), 6)
        >>> layout.rows, layout.row_lengths, layout.row_places
        (tensor([1, 2, 3]), tensor([3, 4, 1]), tensor([0, 1, 2, 0, 1, 3, 4, 5]))
    """

    # Not a dataclass: Lightning takes those in a batch apart when it changes number formats.
    def __init__(self, lengths: Tensor, parents: Tensor, device: torch.device = CPU) -> None:
        """Check that what is continued comes before and continues nothing itself."""
        numbers, continues = torch.arange(len(lengths)), parents >= 0
        if bool((parents >= numbers).any() | (parents[parents[continues]] >= 0).any()):
            raise ValueError("a segment continues one before it that continues none")
        if bool((lengths < 0).any()):
            raise ValueError("lengths must be >= 0")
        self.lengths, self.parents, self.device = lengths, parents, device
        self.attended: dict[int, object] = {}  # what attention made of it, by the width of a state

    @classmethod
    def of(cls, lengths: Sequence[int] | Tensor) -> Layout:
        """Documents.

        Args:
            lengths: tokens of each.
        """
        counts = torch.as_tensor(lengths, dtype=torch.int64)
        return cls(counts, torch.full_like(counts, -1))

    @classmethod
    def shared(cls, prompts: Iterable[int], responses: Iterable[Sequence[int]]) -> Layout:
        """Prompts, each before its responses.

        Args:
            prompts: tokens of each.
            responses: tokens of the responses to each.
        """
        lengths: list[int] = []
        parents: list[int] = []
        for prompt, those in zip(prompts, responses, strict=True):
            parents += [-1, *[len(lengths)] * len(those)]
            lengths += [prompt, *those]
        return cls(_integers(lengths), _integers(parents))

    def to(self, device: torch.device | str) -> Layout:
        """The same layout with its facts on a device; itself where they are there."""
        if torch.device(device) == self.device:
            return self
        return Layout(self.lengths, self.parents, torch.device(device))

    @property
    def tokens(self) -> int:
        """T."""
        return self._ends[-1] if self._ends else 0

    @cached_property
    def _ends(self) -> list[int]:
        ends: list[int] = self.lengths.cumsum(0).tolist()
        return ends

    @cached_property
    def _starts(self) -> Tensor:
        return self.lengths.cumsum(0) - self.lengths

    @cached_property
    def before(self) -> Tensor:
        """[S] tokens that a segment has before it in its row; on the CPU."""
        return torch.where(self.parents >= 0, self.lengths[self.parents.clamp_min(0)], 0)

    @cached_property
    def _continued(self) -> Tensor:
        """[S] place of the token that the first one of a segment follows; -1: none; on the CPU."""
        ends = self._starts + self.lengths - 1
        return torch.where(self.before > 0, ends[self.parents.clamp_min(0)], -1)

    @cached_property
    def starts(self) -> Tensor:
        """[S] place of the first token of each segment."""
        return self._starts.to(self.device)

    @cached_property
    def segments(self) -> Tensor:
        """[T] number of the segment that a token is of."""
        return torch.repeat_interleave(self.lengths).to(self.device)

    @cached_property
    def positions(self) -> Tensor:
        """[T] tokens before each in its row."""
        first = (self.before - self._starts).repeat_interleave(self.lengths)
        return (torch.arange(self.tokens) + first).to(self.device)

    @cached_property
    def previous(self) -> Tensor:
        """[T] place of the token before each in its row; -1: none."""
        previous = torch.arange(-1, self.tokens - 1)
        begun = self.lengths > 0
        previous[self._starts[begun]] = self._continued[begun]
        return previous.to(self.device)

    @cached_property
    def last(self) -> Tensor:
        """[S] place of each segment's last token; of an empty one, the one before it; -1: none."""
        ends = self._starts + self.lengths - 1
        return torch.where(self.lengths > 0, ends, self._continued).to(self.device)

    @cached_property
    def rows(self) -> Tensor:
        """Numbers of the segments that end a row: those that nothing continues; on the CPU."""
        ends = torch.ones(len(self.lengths), dtype=torch.bool)
        ends[self.parents[self.parents >= 0]] = False
        return ends.nonzero().squeeze(1)

    @cached_property
    def row_lengths(self) -> Tensor:
        """Tokens of each row, what it continues included; on the CPU."""
        return (self.lengths + self.before)[self.rows]

    @cached_property
    def row_places(self) -> Tensor:
        """[U] places of the tokens of all rows, row after row, shared ones in each; on the CPU."""
        before, own = self.before[self.rows], self._starts[self.rows]
        first = self._starts[self.parents[self.rows].clamp_min(0)]
        columns = self.row_columns
        column_of_own = columns - before.repeat_interleave(self.row_lengths)
        shared = first.repeat_interleave(self.row_lengths) + columns
        owned = own.repeat_interleave(self.row_lengths) + column_of_own
        return torch.where(column_of_own < 0, shared, owned)

    @cached_property
    def row_columns(self) -> Tensor:
        """[U] tokens before each in its row; on the CPU."""
        ends = self.row_lengths.cumsum(0)
        starts = (ends - self.row_lengths).repeat_interleave(self.row_lengths)
        return torch.arange(len(starts)) - starts

    @cached_property
    def seen_first(self) -> Tensor:
        """[T] where each token is in ``row_places`` for the first time; on the CPU."""
        found = torch.full((self.tokens,), len(self.row_places))
        numbers = torch.arange(len(self.row_places))
        return found.scatter_reduce(0, self.row_places, numbers, "amin")

    def select(self, segments: Sequence[int] | Tensor) -> tuple[Layout, Tensor]:
        """Some of the segments as a layout of their own, and the places of their tokens here.

        Args:
            segments: their numbers; what one continues must be among them, before it.
        """
        chosen = torch.as_tensor(segments, dtype=torch.int64)
        number = torch.full((len(self.lengths) + 1,), -1)  # the last for parents that are -1
        number[chosen] = torch.arange(len(chosen))
        parents = number[self.parents[chosen]]
        if bool(((parents < 0) & (self.parents[chosen] >= 0)).any()):
            raise ValueError("what a segment continues must be chosen too")
        layout = Layout(self.lengths[chosen], parents, self.device)
        moved = (self._starts[chosen] - layout._starts).repeat_interleave(layout.lengths)
        return layout, (torch.arange(layout.tokens) + moved).to(self.device)


def pieces(
    lengths: Sequence[int] | Tensor, max_tokens: int | None, max_rows: int | None = None
) -> list[range]:
    """Consecutive row numbers cut into micro-batches; a row longer than the limit is alone.

    Args:
        lengths: tokens of each row.
        max_tokens: of a micro-batch; None: any number.
        max_rows: of a micro-batch; None: any number.

    Examples:
        >>> pieces([3, 1, 1, 2, 9], 5)
        [range(0, 3), range(3, 4), range(4, 5)]
        >>> pieces([3, 1, 1, 2, 9], 5, max_rows=2)
        [range(0, 2), range(2, 4), range(4, 5)]
    """
    counts: list[int] = lengths.tolist() if isinstance(lengths, Tensor) else list(lengths)
    found, start, tokens = [], 0, 0
    for row, length in enumerate(counts):
        too_long = max_tokens is not None and tokens + length > max_tokens
        if row > start and (too_long or row - start == max_rows):
            found.append(range(start, row))
            start, tokens = row, 0
        tokens += length
    return [*found, range(start, len(counts))] if counts else []


def _integers(numbers: list[int]) -> Tensor:
    return torch.tensor(numbers, dtype=torch.int64)
