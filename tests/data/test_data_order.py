"""Orders and splits: functions of names alone, and what they promise."""

from collections import Counter

import pytest

from instructgpt.data.order import Group, chunk, cycle, hold_out, one_pass, stream, text_hash


def test_text_hash_is_fixed_for_ever():
    # blake2b("abc", 8 bytes); a change would move rows between splits of running projects
    assert text_hash("abc") == 0xD8BB14D833D59559


def test_cycle_gives_one_permutation_after_another():
    assert sorted(cycle(5, 0, 5, 1)) == sorted(cycle(5, 5, 5, 1)) == list(range(5))
    assert cycle(5, 0, 5, 1) != cycle(5, 5, 5, 1)
    whole = cycle(5, 0, 23, 1)
    for start in range(20):
        assert cycle(5, start, 3, 1) == whole[start : start + 3]
    assert cycle(5, 0, 5, 2) != cycle(5, 0, 5, 1)


def test_passes_respect_weights():
    # 10 rows of weight 2, 10 of weight 0.5: in two passes each of the first comes 4 times,
    # each of the others once
    groups = [Group(0, 10, 20), Group(10, 10, 5)]
    first, second = one_pass(groups, 0, 0), one_pass(groups, 0, 1)
    assert len(first) == len(second) == 25
    assert first != second
    assert Counter(first + second) == {row: 4 if row < 10 else 1 for row in range(20)}
    assert first == one_pass(groups, 0, 0) != one_pass(groups, 1, 0)
    assert any(row >= 10 for row in first[:20])  # shuffled together


def test_stream_is_all_passes_in_a_row():
    groups = [Group(0, 4, 4), Group(4, 3, 2)]
    whole = [row for index in range(4) for row in one_pass(groups, 7, index)]
    for start in range(15):
        assert stream(groups, 7, start, 9) == whole[start : start + 9]


def test_chunks_make_up_the_whole():
    rows = list(range(12))
    for world in (1, 2, 3, 4):
        assert [row for rank in range(world) for row in chunk(rows, rank, world)] == rows
    with pytest.raises(ValueError, match="12 rows do not divide by 5 processes"):
        chunk(rows, 0, 5)


def test_hold_out_keeps_equal_names_together_and_meets_the_fraction():
    names = [f"user {i % 500}" for i in range(2000)]
    chosen = hold_out(names, 0.2, 0)
    assert chosen[:500] == chosen[500:1000] == chosen[1000:1500]
    assert 0.15 < sum(chosen) / 2000 < 0.25


def test_hold_out_does_not_depend_on_order_or_on_other_rows():
    names = [f"prompt {i}" for i in range(200)]
    chosen = hold_out(names, 0.3, 5)
    assert hold_out(names[::-1], 0.3, 5) == chosen[::-1]
    assert hold_out(names[:100], 0.3, 5) == chosen[:100]
    assert hold_out(names, 0.3, 6) != chosen


def test_at_least_one_name_is_held_out():
    assert sum(hold_out(["a", "b", "c"], 1e-9, 0)) == 1
    assert hold_out(["a", "a"], 1e-9, 0) == [False, False]
