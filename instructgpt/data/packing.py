"""Several documents in one row, so that little of a batch is padding."""

from __future__ import annotations

from bisect import bisect_left, insort

import torch

from instructgpt.data.rows import LanguageRow, Span


def pack(rows: list[LanguageRow], capacity: int) -> list[LanguageRow]:
    """Put documents into rows of at most ``capacity`` tokens, best fit, the longest first.

    Args:
        rows: none longer than ``capacity``.
        capacity: tokens of a row.

    Returns:
        Rows with every document once; the order is a function of the input alone.
    """
    bins: list[list[LanguageRow]] = []
    room: list[tuple[int, int]] = []  # (tokens left, bin), sorted
    for row in sorted(rows, key=lambda row: -len(row.tokens)):
        size = len(row.tokens)
        place = bisect_left(room, (size, -1))
        if place == len(room):
            bins.append([row])
            insort(room, (capacity - size, len(bins) - 1))
        else:
            left, number = room.pop(place)
            bins[number].append(row)
            insort(room, (left - size, number))
    return [join(rows) for rows in bins]


def join(rows: list[LanguageRow]) -> LanguageRow:
    """One row of all documents, one behind the other."""
    spans, offset = [], 0
    for row in rows:
        spans += [Span(*(offset + place for place in span)) for span in row.spans]
        offset += len(row.tokens)
    ids = tuple(name for row in rows for name in row.ids)
    return LanguageRow(torch.cat([row.tokens for row in rows]), tuple(spans), ids)
