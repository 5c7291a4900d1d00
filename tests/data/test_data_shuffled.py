"""What a stream gives: everything once a turn, mixed, and the same again from any place."""

from collections import Counter
from itertools import islice

import pytest
from streams import Numbers, stream

from instructgpt.data import shuffled
from instructgpt.data.shuffled import CHUNK, Cursor, Mixture, ShuffledSet
from instructgpt.types import UserError


def taken(stream, count, start=None):
    """So many values, and the place behind each."""
    items = stream.items() if start is None else stream.items(start)
    pairs = list(islice(items, count))
    return [item.value for item, _ in pairs], [place for _, place in pairs]


def test_a_turn_has_every_item_once_in_an_order_of_its_own():
    values, _ = taken(stream(), 150)
    turns = [values[start : start + 50] for start in (0, 50, 100)]
    assert all(sorted(turn) == list(range(50)) for turn in turns)
    assert len({tuple(turn) for turn in turns}) == 3
    assert taken(stream(seed=1), 150)[0] != values
    assert taken(stream(buffer=8), 150)[0] != values


def test_items_of_a_buffer_are_mixed_and_others_meet_in_the_next_turn():
    # one file: the first 7 items drawn are the first 7 of the file, but not in their order
    values, _ = taken(stream(files=((0, 50),)), 100)
    assert sorted(values[:7]) == list(range(7)) != values[:7]
    second = [set(values[50 + start : 57 + start]) for start in range(44)]
    assert set(range(7)) not in second  # the buffer begins elsewhere


def test_a_stream_goes_on_from_any_place_and_reads_one_buffer_for_it():
    values, places = taken(stream(), 150)
    for done, place in enumerate(places, 1):
        again = stream()
        rest, _ = taken(again, 150 - done, place)
        assert rest == values[done:]
        first = stream()
        taken(first, 1, place)
        # the buffer it stands in, and the next where nothing of it is left
        assert sum(source.read for source in first.sources) <= 14


def test_a_buffer_is_limited_in_bytes_too(monkeypatch):
    monkeypatch.setattr(shuffled, "BUFFER_BYTES", 24)  # numbers count 8
    values, _ = taken(stream(files=((0, 50),)), 50)
    assert [sorted(values[start : start + 3]) for start in (0, 3, 6)] == [
        [0, 1, 2],
        [3, 4, 5],
        [6, 7, 8],
    ]


def test_a_buffer_may_hold_everything():
    values, places = taken(stream(buffer=100), 150)
    assert all(sorted(values[start : start + 50]) == list(range(50)) for start in (0, 50, 100))
    assert all(
        taken(stream(buffer=100), 9, place)[0] == values[i : i + 9]
        for i, place in enumerate(places[:140], 1)
    )


def test_a_stream_without_items_is_refused():
    with pytest.raises(UserError, match="must hold rows"):
        taken(ShuffledSet([Numbers([])], 7, 0, 0), 1)


def mixture(weights=(3, 1)):
    files = [(0, 40)], [(100, 110)]
    sets = [stream(5, number, spans) for number, spans in enumerate(files)]
    return Mixture(sets, weights, 0)


def test_sets_are_drawn_from_by_their_weights():
    one = mixture()
    chunks = list(islice(one.chunks(0, one.start), 60))
    values = [item.value for chunk in chunks for item in chunk.items]
    assert len(values) == 60 * CHUNK
    small = sum(value >= 100 for value in values)
    # binomial: 1920 draws at 1/4, standard deviation 19
    assert abs(small - 480) < 80
    counts = Counter(values)
    for numbers in (range(40), range(100, 110)):  # each set again and again, evenly
        times = [counts[number] for number in numbers]
        assert max(times) - min(times) <= 1


def test_a_mixture_goes_on_from_any_chunk():
    one = mixture()
    chunks = list(islice(one.chunks(0, one.start), 20))
    for chunk in chunks:
        other = mixture().chunks(chunk.number, chunk.cursors)
        assert list(islice(other, 20 - chunk.number)) == chunks[chunk.number :]


def test_a_single_set_is_no_matter_of_chance():
    one = Mixture([stream()], [0.3], 0)
    (chunk,) = islice(one.chunks(0, one.start), 1)
    assert [item.value for item in chunk.items] == taken(stream(), CHUNK)[0]
    assert chunk.cursors == (Cursor(),)
