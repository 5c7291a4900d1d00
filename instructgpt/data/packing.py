"""Several documents in one row, so that little of a batch is padding."""

from __future__ import annotations

from heapq import heappop, heappush

import numpy as np


def pack(lengths: np.ndarray, capacity: int) -> tuple[np.ndarray, np.ndarray]:
    """Put documents into rows of at most ``capacity`` tokens, best fit, the longest first.

    Args:
        lengths: tokens of each document, none longer than ``capacity``.
        capacity: tokens of a row.

    Returns:
        Places of the documents, row by row, and where each row begins in them, and the last ends:
        a function of the lengths alone.
    """
    by_size = np.argsort(-lengths, kind="stable")
    bins = np.zeros(len(lengths), np.int64)  # of the documents by size
    room: list[list[int]] = [[] for _ in range(capacity + 1)]  # bins by the tokens left in them
    there = 0  # bit i: some bin has room for i
    count = 0
    for place, size in enumerate(lengths[by_size].tolist()):
        fits = there >> size
        if fits:
            left = size + (fits & -fits).bit_length() - 1
            number = heappop(room[left])
            if not room[left]:
                there &= ~(1 << left)
        else:
            left, number, count = capacity, count, count + 1
        bins[place] = number
        left -= size
        if left:
            heappush(room[left], number)
            there |= 1 << left
    order = np.argsort(bins, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(bins, minlength=count))])
    return by_size[order], starts
