"""The summary: parts make the whole, whatever the cut; it is bounded, and JSON both ways."""

import json
import pickle
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instructgpt.data import summary as module
from instructgpt.data.formats import Told
from instructgpt.data.summary import Summary
from instructgpt.data.tallies import Lengths, Limit

LIMIT = Limit("prompts", "lose their beginning", "--most", 9)
few, word = st.integers(0, 6).map(str), st.sampled_from("abc")
told = st.builds(
    Told,
    st.dictionaries(few, word, max_size=4),
    st.lists(few, max_size=2),
    st.sampled_from(["", "x"]),
)
EVENTS = st.one_of(
    st.tuples(st.just("read"), few, word, few, told),
    st.tuples(st.just("skip"), few, few),
    st.tuples(st.just("drop"), few, few),
    st.tuples(st.just("shorten"), few, few),
    st.tuples(st.just("measure"), word, st.integers(0, 12), st.sampled_from([None, LIMIT])),
    st.tuples(st.just("note"), few),
    st.tuples(st.just("tell"), word),
)


def counted(events):
    summary = Summary()
    for verb, *arguments in events:
        getattr(summary, verb)(*arguments)
    return summary


def state(summary):
    """All there is to it, in the order in which it is shown."""
    return json.dumps(summary.to_json())


@settings(max_examples=300)
@given(st.lists(st.lists(EVENTS, max_size=12), max_size=5))
def test_parts_in_any_cut_make_the_whole(parts):
    rooms = {"FILES": 3, "COLUMNS": 2, "REASONS": 3, "NOTES": 2}  # so that they do not suffice
    with mock.patch.multiple(module, **rooms):
        whole = counted(event for part in parts for event in part)
        merged = Summary()
        for part in parts:  # as a process hands them over
            one = Summary.from_json(json.loads(state(counted(part))))
            merged.merge(pickle.loads(pickle.dumps(one)))
    assert state(merged) == state(whole)
    assert merged.lines() == whole.lines()


def test_a_summary_read_again_goes_on_counting():
    one = counted([("read", "f", "text", "f:1", Told({"text": "used as text"}))])
    one.example = "⟦x⟧"
    two = Summary.from_json(json.loads(state(one)))
    two.read("f", "text", "f:2", Told({"text": "used as text"}))
    assert two.lines() == [
        "read f: 2 text",
        "  columns: text used as text",
        "example, the trained part in ⟦ ⟧:",
        "  | ⟦x⟧",
    ]
    assert one.lines()[0] == "read f: 1 text"  # not the same counters


def test_the_size_does_not_grow_with_rows_files_and_columns():
    def size(rows):
        one = Summary()
        for row in range(rows):
            columns = {f"{name:07}": f"use {name % 150}" for name in range(row, row + 9)}
            one.read(f"{row:07}", "text", f"{row}", Told(columns, [f"note {row:07}"], ""))
            one.skip(f"{row:07}", f"{row}: bad")
            one.drop(f"reason {row:07}", "here")
            one.shorten(f"what {row:07}", "here")
            one.measure("tokens", row)
            one.note(f"line {row}")
            one.tell(f"{row:07} (first: here)")
        return len(state(one)), one

    (small, _), (large, one) = size(2000), size(8000)
    assert large < 1.2 * small
    lines = one.lines()
    assert lines[lines.index("line 0") - 1] == "… more such notes …"
    assert "read more than 980 further files: 7,980 text, 7,980 bad" in lines
    assert "dropped 7,900: for other reasons" in lines
    assert "cut 7,900: for other reasons" in lines
    assert "7,900 times something else was to be said of a row" in lines
    assert lines[lines.index("line 99") + 1 :][:2] == ["… 7,800 more notes …", "line 7900"]
    assert one.losses().endswith("(here); 7,900 for other reasons; 8,000 bad (0: bad)")


def test_a_line_about_the_same_is_told_once():
    one = counted([("tell", "a (first: f:1)"), ("note", "x"), ("tell", "b")])
    one.merge(counted([("tell", "a (first: f:2)"), ("tell", "c")]))
    assert one.lines() == ["a (first: f:1)", "b", "c", "x"]


def test_files_beyond_the_listed_ones_share_a_line():
    one = Summary()
    for number in range(25):
        uses = {"text": "used as text", f"c{number:02}": "not used"}
        one.read(f"f{number}", "text", f"f{number}:1", Told(uses))
    assert one.lines()[-4:] == [
        "read f19: 1 text",
        "  columns: text used as text; c19 not used",
        "read 5 further files: 5 text",
        "  columns: text used as text; c20, c21, c22, c23, c24 not used",
    ]


def test_columns_beyond_the_listed_ones_are_counted():
    one = Summary()
    one.read("f", "text", "f:1", Told({f"c{number:03}": "not used" for number in range(25)}))
    assert one.lines()[1].endswith("c018, c019 and 5 more not used")
    one.read("f", "text", "f:2", Told({f"c{number:03}": "not used" for number in range(200)}))
    assert one.lines()[1].endswith("c018, c019 and more than 80 more not used")


def lengths_of(values):
    lengths = Lengths()
    for value in values:
        lengths.add(value)
    return lengths


def test_quantiles_are_nearest_rank():
    # 10 values: 5% -> 1st, 25% -> 3rd, 50% -> 5th, 75% -> 8th, 95% -> 10th
    found = lengths_of(range(10, 110, 10)).quantiles()
    assert found == "5% 10 · 25% 30 · 50% 50 · 75% 80 · 95% 100 · max 100"
    assert lengths_of([7]).quantiles() == "5% 7 · 25% 7 · 50% 7 · 75% 7 · 95% 7 · max 7"


@given(st.lists(st.integers(0, 2**40), min_size=1))
def test_long_lengths_are_counted_closely_and_the_longest_exactly(values):
    lengths, ordered = lengths_of(values), sorted(values)
    for percent in (1, 50, 95, 100):
        exact = ordered[max(1, -(-percent * len(values) // 100)) - 1]
        (found,) = lengths.nearest_rank(percent)
        assert exact <= found <= exact * (1 + 1 / 4096)
        assert found == exact or exact >= 8192
    assert lengths.most == max(values)


@pytest.mark.parametrize("longest", [10**5, 10**6])
def test_lengths_need_no_more_room_for_more_texts(longest):
    assert len(lengths_of(range(longest)).counts) < 8192 + 4096 * 7 + 1
