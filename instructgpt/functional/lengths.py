"""Rows of like length share a forward pass: the longest would make most of the others padding."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

GROUPS = 4
"""Forward passes of a batch: more save padding, fewer save calls."""


def length_groups(lengths: Tensor, size: int | None = None) -> tuple[Tensor, ...]:
    """Row numbers by length, in groups.

    Args:
        lengths: [S] tokens.
        size: rows of a group; None: a few groups, of which none is much larger than another.

    Examples:
        >>> length_groups(torch.tensor([3, 1, 1, 2, 9]))
        (tensor([1, 2]), tensor([3]), tensor([0]), tensor([4]))
        >>> length_groups(torch.tensor([3, 1, 1, 2, 9]), size=3)
        (tensor([1, 2, 3]), tensor([0, 4]))
    """
    order = lengths.argsort(stable=True)
    if not len(order):
        return ()
    return order.tensor_split(min(GROUPS, len(order))) if size is None else order.split(size)


def in_order(parts: Sequence[Tensor], groups: Sequence[Tensor]) -> Tensor:
    """What was computed for groups of rows, in the order of the rows.

    Args:
        parts: of the groups, [rows, ...] each.
        groups: row numbers.
    """
    return torch.cat(list(parts))[torch.cat(list(groups)).argsort()]
