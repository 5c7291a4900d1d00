"""Which documents lie in one row."""

from bisect import bisect_left, insort
from itertools import pairwise

import numpy as np
import pytest

from instructgpt.data.packing import pack


def rows_of(lengths, capacity):
    order, starts = pack(np.array(lengths), capacity)
    return [order[a:b].tolist() for a, b in pairwise(starts)]


def best_fit(lengths, capacity):
    """Best fit decreasing as it is told: a sorted list of what is left in each row."""
    bins, room = [], []
    for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
        size = lengths[place]
        found = bisect_left(room, (size, -1))
        if found == len(room):
            bins.append([place])
            insort(room, (capacity - size, len(bins) - 1))
        else:
            left, number = room.pop(found)
            bins[number].append(place)
            insort(room, (left - size, number))
    return bins


@pytest.mark.parametrize("seed", range(4))
def test_packing_is_complete_tight_and_best_fit(seed):
    lengths = np.random.default_rng(seed).integers(2, 40, 200).tolist()
    packed = rows_of(lengths, 40)
    assert sorted(place for row in packed for place in row) == list(range(200))
    assert max(sum(lengths[place] for place in row) for row in packed) <= 40
    # best fit decreasing needs at most 11/9 of the optimum + 1; the optimum is >= tokens / 40
    assert len(packed) <= 11 / 9 * -(-sum(lengths) // 40) + 1
    assert packed == best_fit(lengths, 40)


def test_packing_fills_a_row_to_the_last_token():
    # 7 + 3 and 6 + 4 make 10 each, although 3 would also fit beside 6
    assert rows_of([3, 4, 6, 7], 10) == [[3, 0], [2, 1]]
    assert rows_of([10, 10], 10) == [[0], [1]]
    assert rows_of([], 10) == []
