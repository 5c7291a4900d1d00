"""Where attention finds the tokens of each row of a flat micro-batch."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from instructgpt.functional.layout import Layout

CALL = 4600.0
"""What a call of attention costs on a CPU in itself, in numbers of hidden states."""
SHORT = 70.0
"""Length at which attention to the tokens before costs as much as the token itself."""
CANDIDATES = 32
"""Lengths that groups may be padded to, of which the best are chosen."""


class LengthGroup(NamedTuple):
    """Rows of like length, right-padded to the longest."""

    size: int
    length: int


class Segments(NamedTuple):
    """Every segment with all that it sees, end to end, as CUDA's attention takes them."""

    places: Tensor | None  # [K] of the keys; None: all tokens, as they lie
    query_ends: Tensor  # [S + 1] int32, after a 0
    key_ends: Tensor  # [S + 1] int32, after a 0
    most_queries: int
    most_keys: int


@dataclass(frozen=True, eq=False)
class RowPlaces:
    """The rows of a layout for attention, computed when they are first needed.

    Args:
        layout: of the micro-batch.
        width: of a hidden state: small ones are worth fewer calls.
    """

    layout: Layout
    width: int

    @classmethod
    def of(cls, layout: Layout, width: int) -> RowPlaces:
        """Those of a layout, computed once for all networks of a width that read its rows."""
        known = layout.attended.get(width)
        if not isinstance(known, cls):
            alone = copy(layout)  # each other's, they would stay until garbage is collected
            alone.attended = {}
            layout.attended[width] = known = cls(alone, width)
        return known

    @cached_property
    def groups(self) -> list[LengthGroup]:
        """Rows by length in few groups, so that neither padding nor calls cost much."""
        lengths = self.layout.row_lengths
        if not self._shares and self._equal:
            return [LengthGroup(len(lengths), int(lengths[0]))]
        return [LengthGroup(len(group), int(lengths[group].max())) for group in self._members]

    @cached_property
    def places(self) -> Tensor | None:
        """[sum of size * length] of the groups' tokens, one after the other; None: as they lie."""
        if not self._shares and self._equal:
            return None
        lengths, found = self.layout.row_lengths, []
        for group, (_, length) in zip(self._members, self.groups, strict=True):
            columns = torch.minimum(torch.arange(length), lengths[group, None] - 1)
            found.append(self.layout.row_places[self._starts[group, None] + columns].flatten())
        return torch.cat(found).to(self.layout.device)

    @cached_property
    def where(self) -> Tensor | None:
        """[T] place of each token in the groups, one after the other; None: as they lie."""
        if not self._shares and self._equal:
            return None
        lengths, start = self.layout.row_lengths, 0
        offsets = torch.zeros_like(lengths)
        for group in self._members:
            length = int(lengths[group].max())
            offsets[group] = start + length * torch.arange(len(group))
            start += length * len(group)
        found = offsets.repeat_interleave(lengths) + self.layout.row_columns
        return found[self.layout.seen_first].to(self.layout.device)

    @cached_property
    def segments(self) -> Segments:
        """Queries of a segment are its own tokens; its keys are the row's up to there."""
        layout, device = self.layout, self.layout.device
        queries, before = layout.lengths, layout.before
        keys = queries + before
        places = None
        if self._shares:
            columns = torch.arange(int(keys.sum())) - (keys.cumsum(0) - keys).repeat_interleave(
                keys
            )
            own = columns - before.repeat_interleave(keys)
            starts = queries.cumsum(0) - queries
            shared = starts[layout.parents.clamp_min(0)].repeat_interleave(keys) + columns
            places = torch.where(own < 0, shared, starts.repeat_interleave(keys) + own).to(device)
        return Segments(
            places,
            _ends(queries).to(device),
            _ends(keys).to(device),
            int(queries.max()),
            int(keys.max()),
        )

    @cached_property
    def _shares(self) -> bool:
        return bool((self.layout.parents >= 0).any())

    @cached_property
    def _equal(self) -> bool:
        lengths = self.layout.row_lengths
        return bool((lengths == lengths[0]).all())

    @cached_property
    def _starts(self) -> Tensor:
        lengths = self.layout.row_lengths
        return lengths.cumsum(0) - lengths

    @cached_property
    def _members(self) -> list[Tensor]:
        """Row numbers of each group; empty rows are in none."""
        lengths = self.layout.row_lengths
        order = lengths.argsort(stable=True)
        order = order[lengths[order] > 0]
        limits = group_lengths(lengths[order].tolist(), CALL / self.width)
        bounds = torch.searchsorted(lengths[order], torch.tensor(limits), right=True).tolist()
        return [order[a:b] for a, b in zip([0, *bounds[:-1]], bounds, strict=True)]


def group_lengths(lengths: list[int], call: float) -> list[int]:
    """The lengths that rows are padded to, so that tokens and calls cost least together.

    Args:
        lengths: of the rows, ascending.
        call: what a call costs, in tokens.

    Examples:
        >>> group_lengths([1, 2, 2, 3, 40], call=10)
        [3, 40]
        >>> group_lengths([1, 2, 2, 3, 40], call=0)
        [1, 2, 3, 40]
    """
    limits = sorted(set(lengths))
    step = -(-len(limits) // CANDIDATES)
    limits = limits[::-1][::step][::-1]  # the longest is always among them
    below = [0, *(bisect_left(lengths, limit + 1) for limit in limits)]
    best, choice = [0.0], [0]
    for end in range(1, len(limits) + 1):
        length = limits[end - 1]
        token = length * (1 + length / SHORT)
        costs = [best[at] + call + (below[end] - below[at]) * token for at in range(end)]
        best.append(min(costs))
        choice.append(costs.index(best[-1]))
    found, end = [], len(limits)
    while end:
        found.append(limits[end - 1])
        end = choice[end]
    return found[::-1]


class Attended:
    """What one kind of layer sees of the rows: all before a token, or what a window lets through.

    Args:
        rows: of the micro-batch.
        allows: whether a query (row) sees a key (column), of their positions.
        varlen: whether CUDA's attention over segments may be used.
    """

    def __init__(self, rows: RowPlaces, allows: Callable[[Tensor, Tensor], Tensor], varlen: bool):
        self.rows, self.varlen = rows, varlen
        longest = torch.arange(int(rows.layout.row_lengths.max()))
        causal = longest[:, None] >= longest[None]
        allowed = allows(longest[:, None], longest[None]).expand_as(causal)
        self._allowed = None if torch.equal(allowed, causal) else allowed
        self._masks: dict[tuple[int, torch.dtype | None], Tensor | None] = {}

    @cached_property
    def window(self) -> int | None:
        """Tokens that one sees at most, itself included; 0: any number; None: of another shape."""
        if self._allowed is None:
            return 0
        width = int(self._allowed[-1].sum())
        band = torch.ones_like(self._allowed).tril().triu(1 - width)
        return width if torch.equal(band, self._allowed) else None

    def mask(self, length: int, dtype: torch.dtype | None) -> Tensor | None:
        """The mask of rows of a length, [1, 1, L, L].

        Args:
            length: of the rows.
            dtype: of a mask that is added; None: a bool one, and none where all before is seen.
        """
        if (length, dtype) not in self._masks:
            self._masks[length, dtype] = self._mask(length, dtype)
        return self._masks[length, dtype]

    def _mask(self, length: int, dtype: torch.dtype | None) -> Tensor | None:
        allowed = torch.ones(length, length, dtype=torch.bool).tril()
        if self._allowed is not None:
            allowed = allowed & self._allowed[:length, :length]
        if dtype is None:
            causal = int(allowed.sum()) == length * (length + 1) // 2
            return None if causal else allowed[None, None].to(self.rows.layout.device)
        mask = torch.zeros(length, length, dtype=dtype).masked_fill(
            ~allowed, torch.finfo(dtype).min
        )
        return mask[None, None].to(self.rows.layout.device)


def _ends(lengths: Tensor) -> Tensor:
    return torch.nn.functional.pad(lengths.cumsum(0), (1, 0)).to(torch.int32)
