"""Containers: the same rows in all of them, and one line for whatever else is in a file."""

import datasets
import pytest
from containers import ARROW, JSON, TABLES, write_container
from hypothesis import given, settings
from hypothesis import strategies as st
from odd_rows import EXAMPLES, any_values, changed_rows, texts
from row_checks import WANTED, check_line, outcome, read

from instructgpt.data.files import read_file
from instructgpt.data.formats import Document
from instructgpt.types import UserError

datasets.disable_progress_bars()


def items(path):
    """Items of a file, the wrong ones checked; [] where the file as a whole is refused."""
    found = []
    try:
        for item in read_file(path, lambda line: None):
            if isinstance(item.value, UserError):
                check_line(item.value, str(path))
            found.append(item)
    except UserError as error:
        check_line(error, str(path))
    return found


def rectangle(rows):
    """The rows with the same columns, as tables have them."""
    keys = dict.fromkeys(key for row in rows for key in row)
    return [{key: row.get(key) for key in keys} for row in rows]


@pytest.mark.parametrize("name", [*JSON, *TABLES, *ARROW])
@settings(max_examples=12)
@given(rows=st.lists(changed_rows(any_values), min_size=8, max_size=8))
def test_rows_with_some_things_changed_in_a_file(tmp_path_factory, name, rows):
    folder = tmp_path_factory.mktemp("files")
    rows = rows if name in JSON else rectangle(rows)
    found = items(write_container(folder, name, rows))
    assert len(found) <= len(rows)
    for number, item in enumerate(found):
        if not isinstance(item.value, UserError):
            read(item.value, WANTED[number % len(WANTED)])


def outcomes(row):
    """What a row gives for each use, without metadata and names, which are texts in tables."""
    return [
        [
            one
            if isinstance(one, Document)
            else one._replace(prompt=one.prompt._replace(meta={}), source="")
            for one in outcome(row, wanted)
        ]
        for wanted in WANTED
    ]


words = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=6)
plain = st.lists(words, min_size=1, max_size=3).map(" ".join).map(str.strip)
"""Texts that all containers can hold as they are."""


@pytest.mark.parametrize("name", [*JSON[1:], *TABLES, *ARROW])
@settings(max_examples=25)
@given(
    row=st.sampled_from(EXAMPLES),
    said=st.lists(plain, min_size=3, max_size=3),
)
def test_all_containers_hold_the_same_rows(tmp_path_factory, name, row, said):
    """Texts in the places of others, in each of the known formats."""
    names = [key for key, value in row.items() if isinstance(value, str)]
    rows = [{**row, key: text} for key, text in zip(names, said, strict=False)] or [row]
    found = items(write_container(tmp_path_factory.mktemp("same"), name, rows))
    for item, whole in zip(found, rows, strict=True):
        for got, expected in zip(outcomes(item.value), outcomes(whole), strict=True):
            # Objects in the cells of a table are read, or the row is refused.
            assert got == expected or (name in TABLES and not got)


@pytest.mark.parametrize("name", [*JSON, *TABLES, *ARROW[:3]])
@settings(max_examples=40)
@given(
    rows=st.lists(changed_rows(texts), min_size=2, max_size=4),
    places=st.lists(st.tuples(st.floats(0, 1), st.binary(max_size=3)), min_size=1, max_size=3),
)
def test_files_with_damage_are_read_or_refused(tmp_path_factory, name, rows, places):
    """Bytes are put in, over others or instead of the end."""
    path = write_container(tmp_path_factory.mktemp("files"), name, rectangle(rows))
    data = path.read_bytes()
    for place, put in places:
        at = int(place * len(data))
        data = data[:at] + (put + data[at + len(put) :] if put else b"")
    path.write_bytes(data)
    for item in items(path):
        if not isinstance(item.value, UserError):
            read(item.value, "prompt")
