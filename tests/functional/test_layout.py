"""Layouts of flat rows, against a naive oracle that walks along every row."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from instructgpt.functional.layout import Layout, pieces

# prompt lengths, each with the lengths of its responses; none: the prompt is a document
TREES = st.lists(st.tuples(st.integers(0, 4), st.lists(st.integers(0, 4), max_size=3)), max_size=5)


def naive_rows(prompts, responses):
    """Each row as the places of its tokens, one by one; and the places of each segment."""
    rows, segments, place = [], [], 0
    for prompt, those in zip(prompts, responses, strict=True):
        shared = list(range(place, place + prompt))
        place += prompt
        segments.append((shared, []))
        for response in those:
            own = list(range(place, place + response))
            place += response
            segments.append((own, shared))
            rows.append(shared + own)
        if not those:
            rows.append(shared)
    return rows, segments


@given(TREES)
def test_facts_are_those_of_walking_along_each_row(trees):
    prompts, responses = [p for p, _ in trees], [r for _, r in trees]
    layout = Layout.shared(prompts, responses)
    rows, segments = naive_rows(prompts, responses)
    tokens = sum(map(sum, [prompts, *responses]))
    positions, previous = [-9] * tokens, [-9] * tokens
    for row in rows:
        for column, place in enumerate(row):
            positions[place] = column
            previous[place] = row[column - 1] if column else -1
    assert layout.tokens == tokens
    assert layout.positions.tolist() == positions
    assert layout.previous.tolist() == previous
    assert layout.row_places.tolist() == [place for row in rows for place in row]
    assert layout.row_columns.tolist() == [c for row in rows for c in range(len(row))]
    assert layout.row_lengths.tolist() == [len(row) for row in rows]
    assert layout.seen_first.tolist() == [
        layout.row_places.tolist().index(t) for t in range(tokens)
    ]
    assert layout.last.tolist() == [[-1, *before, *own][-1] for own, before in segments]
    starts, number = [], 0
    for own, _ in segments:
        starts.append(number)
        number += len(own)
    assert layout.starts.tolist() == starts
    assert layout.segments.tolist() == [s for s, (own, _) in enumerate(segments) for _ in own]


def test_documents_are_segments_that_nothing_continues():
    layout = Layout.of([2, 3])
    assert layout.parents.tolist() == [-1, -1]
    assert layout.positions.tolist() == [0, 1, 0, 1, 2]
    assert layout.rows.tolist() == [0, 1]
    assert Layout.of([]).tokens == 0


def test_some_segments_as_a_layout_of_their_own():
    layout = Layout.shared([2, 1, 3], [[1, 2], [], [1]])  # ab c de | f | ghi j
    part, places = layout.select([4, 5, 0, 2])
    assert part.lengths.tolist() == [3, 1, 2, 2]
    assert part.parents.tolist() == [-1, 0, -1, 2]
    assert places.tolist() == [6, 7, 8, 9, 0, 1, 3, 4]
    with pytest.raises(ValueError, match="must be chosen too"):
        layout.select([1])
    with pytest.raises(ValueError, match="before it"):
        layout.select([1, 0])


def test_what_is_no_layout_is_refused():
    for parents in ([0, -1], [-1, 0, 1], [1, -1]):
        with pytest.raises(ValueError, match="continues"):
            Layout(torch.ones(len(parents), dtype=torch.int64), torch.tensor(parents))
    with pytest.raises(ValueError, match=">= 0"):
        Layout.of([1, -1])


def test_facts_are_on_the_device_that_is_asked_for_and_loops_read_the_cpu():
    layout = Layout.shared([2], [[1, 1]]).to("meta")
    facts = [layout.starts, layout.positions, layout.previous, layout.last, layout.segments]
    assert {fact.device.type for fact in facts} == {"meta"}
    assert {fact.device.type for fact in (layout.lengths, layout.parents)} == {"cpu"}


@given(st.lists(st.integers(0, 9)), st.none() | st.integers(1, 12), st.none() | st.integers(1, 4))
def test_pieces_are_consecutive_full_and_within_the_limits(lengths, max_tokens, max_rows):
    found = pieces(lengths, max_tokens, max_rows)
    assert [row for piece in found for row in piece] == list(range(len(lengths)))
    assert pieces(torch.tensor(lengths), max_tokens, max_rows) == found

    def fits(piece):
        tokens = sum(lengths[row] for row in piece)
        return (max_tokens is None or tokens <= max_tokens) and len(piece) <= (max_rows or 99)

    assert all(fits(piece) or len(piece) == 1 for piece in found)
    # none could have taken the row after it
    assert not any(fits(range(piece.start, piece.stop + 1)) for piece in found[:-1])
