"""Rows of any kind: accepted and accounted for, or refused in one line that names the place."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from odd_rows import COLUMNS, EXAMPLES, any_values, changed_rows
from row_checks import WANTED, outcome, read

from instructgpt.data.columns import ASKING
from instructgpt.data.conversation import NATIVE
from instructgpt.data.reading import PUBLIC, Reading
from instructgpt.data.recognise import known_formats


def test_any_value_in_any_column():
    count = 0

    @settings(max_examples=24)
    @given(any_values, st.sampled_from(WANTED))
    def check(value, wanted):
        nonlocal count
        for row in EXAMPLES:
            for key in [*row, *COLUMNS]:
                read({**row, key: value}, wanted)
                count += 1

    check()
    assert count >= 10_000


@settings(max_examples=200)
@given(st.lists(changed_rows(any_values), min_size=4, max_size=4), st.sampled_from(WANTED))
def test_rows_with_some_things_changed(rows, wanted):
    for row in rows:
        read(row, wanted)


@settings(max_examples=100)
@given(changed_rows(), st.randoms(use_true_random=False), st.sampled_from(WANTED))
def test_the_order_of_columns_does_not_matter(row, rng, wanted):
    keys = list(row)
    rng.shuffle(keys)
    assert outcome({key: row[key] for key in keys}, wanted) == outcome(row, wanted)


SAID = "zebrafish and okapi"


@pytest.mark.parametrize("wanted", ["prompt", "demonstration", "comparison", "candidates"])
def test_a_column_that_changes_what_is_asked_is_used_or_refused(wanted):
    values = [SAID, [SAID], [[SAID, "yes"]], [{"role": "user", "content": SAID}], {"a": SAID}]
    for row in EXAMPLES:
        for key in set(ASKING) - set(row):
            for value in values:
                for parsed in read({**row, key: value}, wanted):
                    said = [turn["content"] for turn in parsed.row.prompt.messages]
                    assert any(SAID in text for text in said), (row, key, value)


@settings(max_examples=100)
@given(changed_rows(), st.sampled_from(WANTED))
def test_columns_that_are_mapped_are_those_of_the_public_name(row, wanted):
    names = {key: f"my {number}" for number, key in enumerate(row) if key in PUBLIC}
    named = {names.get(key, key): value for key, value in row.items()}
    assert outcome(named, wanted, Reading(columns=names)) == outcome(row, wanted)


@settings(max_examples=200)
@given(
    changed_rows(),
    st.dictionaries(st.sampled_from(PUBLIC), st.integers(0, 9), min_size=1, max_size=3),
    st.sampled_from(WANTED),
)
def test_any_mapping_of_columns(row, chosen, wanted):
    names = [*row, "absent", *(f"{key}.{name}" for key in row for name in ("content", "0"))]
    columns = {target: names[number % len(names)] for target, number in chosen.items()}
    read(row, wanted, Reading(columns=columns))


@settings(max_examples=200)
@given(changed_rows(), st.sampled_from([*NATIVE, *known_formats()]), st.sampled_from(WANTED))
def test_any_format_that_is_asked_for(row, name, wanted):
    read(row, wanted, Reading(name))
