"""Orders and splits: functions of names alone, and what they promise."""

from collections import Counter

import numpy as np
import pytest

from instructgpt.data import order
from instructgpt.data.order import Group, chunk, cycle, one_pass, stream, text_hash
from instructgpt.seeds import permutation


def test_text_hash_is_fixed_for_ever():
    # blake2b("abc", 8 bytes); a change would move rows between splits of running projects
    assert text_hash("abc") == 0xD8BB14D833D59559


def naive_cycle(size, start, count, *names):
    """One row after the other: place p is in permutation number p // size."""
    places = (divmod(place, size) for place in range(start, start + count))
    return [int(permutation(size, *names, turn)[offset]) for turn, offset in places]


def naive_pass(groups, seed, index):
    """Each group's share of its own permutations, then all of them shuffled."""
    rows = [
        group.start + row
        for number, group in enumerate(groups)
        for row in naive_cycle(group.size, index * group.share, group.share, seed, number)
    ]
    return [rows[place] for place in permutation(len(rows), seed, -1, index).tolist()]


def test_cycle_gives_one_permutation_after_another():
    first, second = cycle(5, 0, 5, 1).tolist(), cycle(5, 5, 5, 1).tolist()
    assert first != second
    assert sorted(first) == sorted(second) == list(range(5))
    assert cycle(5, 0, 5, 2).tolist() != first
    for start in range(20):
        assert cycle(5, start, 13, 1).tolist() == naive_cycle(5, start, 13, 1)


def test_passes_respect_weights():
    # 10 rows of weight 2, 10 of weight 0.5: in two passes each of the first comes 4 times,
    # each of the others once
    groups = [Group(0, 10, 20), Group(10, 10, 5)]
    first, second = (one_pass(groups, 0, index).tolist() for index in (0, 1))
    assert len(first) == len(second) == 25
    assert first != second
    assert Counter(first + second) == {row: 4 if row < 10 else 1 for row in range(20)}
    assert first == one_pass(groups, 0, 0).tolist() != one_pass(groups, 1, 0).tolist()
    assert any(row >= 10 for row in first[:20])  # shuffled together
    assert first == naive_pass(groups, 0, 0)
    assert second == naive_pass(groups, 0, 1)


def test_an_order_does_not_change_between_versions():
    # written down when rows were Python lists: a run that began then goes on with the same rows
    assert one_pass([Group(0, 7, 7), Group(7, 4, 2)], 3, 1).tolist() == [6, 4, 7, 5, 0, 2, 10, 3, 1]


def test_a_pass_is_shuffled_in_pieces(monkeypatch):
    groups = [Group(0, 40, 40), Group(40, 9, 20)]
    whole = one_pass(groups, 0, 3).tolist()
    monkeypatch.setattr(order, "PIECE", 7)
    assert one_pass(groups, 0, 3).tolist() == whole


def test_rows_are_numbers_not_objects():
    groups = [Group(0, 10, 10)]
    for rows in (cycle(5, 0, 9, 1), one_pass(groups, 0, 0), stream(groups, 0, 3, 12)):
        assert rows.dtype == np.int64


def test_stream_is_all_passes_in_a_row():
    groups = [Group(0, 4, 4), Group(4, 3, 2)]
    whole = [row for index in range(4) for row in naive_pass(groups, 7, index)]
    for start in range(15):
        assert stream(groups, 7, start, 9).tolist() == whole[start : start + 9]


def test_chunks_make_up_the_whole():
    rows = list(range(12))
    for world in (1, 2, 3, 4):
        assert [row for rank in range(world) for row in chunk(rows, rank, world)] == rows
    with pytest.raises(ValueError, match="12 rows do not divide by 5 processes"):
        chunk(rows, 0, 5)
    assert chunk(np.arange(12), 1, 4).tolist() == [3, 4, 5]
