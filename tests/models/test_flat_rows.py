"""Where attention finds its rows, against naive loops."""

import gc
import itertools
import warnings
import weakref
from functools import wraps

import pytest
import torch
from flat_families import build, flat_rows
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from instructgpt.functional.layout import Layout
from instructgpt.models import flat_proof
from instructgpt.models.flat import hidden_states
from instructgpt.models.flat_rows import SHORT, Attended, RowPlaces, group_lengths

TREES = st.lists(
    st.tuples(st.integers(1, 9), st.lists(st.integers(0, 9), max_size=3)), min_size=1, max_size=5
)


@given(TREES, st.sampled_from([8, 100, 10_000]))
def test_each_row_is_in_one_group_and_each_token_is_taken_from_its_row(trees, width):
    layout = Layout.shared([p for p, _ in trees], [r for _, r in trees])
    rows, tokens = RowPlaces(layout, width), torch.arange(layout.tokens)
    wanted = [row.tolist() for row in layout.row_places.split(layout.row_lengths.tolist())]
    taken = tokens if rows.places is None else tokens[rows.places]
    parts = taken.split([size * length for size, length in rows.groups])
    shapes = zip(parts, rows.groups, strict=True)
    grouped = [row for part, shape in shapes for row in part.view(*shape).tolist()]
    for row in wanted:  # padded with its own last token
        grouped.remove(next(one for one in grouped if one[: len(row)] == row and {*one} == {*row}))
    assert grouped == []
    assert torch.equal(taken if rows.where is None else taken[rows.where], tokens)


def naive_cost(lengths, limits, call):
    costs = [min(limit for limit in limits if limit >= length) for length in lengths]
    used = {*costs}
    return call * len(used) + sum(cost * (1 + cost / SHORT) for cost in costs)


@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=7).map(sorted), st.sampled_from([0, 5, 50])
)
def test_groups_cost_least(lengths, call):
    distinct = sorted(set(lengths))
    choices = [
        (*some, distinct[-1])
        for count in range(len(distinct))
        for some in itertools.combinations(distinct[:-1], count)
    ]
    best = min(naive_cost(lengths, limits, call) for limits in choices)
    found = group_lengths(lengths, call)
    assert found[-1] == lengths[-1]
    assert naive_cost(lengths, found, call) == pytest.approx(best)


def test_many_lengths_are_few_groups_that_hold_all():
    lengths = list(range(1, 1000))
    found = group_lengths(lengths, 100.0)
    assert found == sorted(set(found))
    assert found[-1] == 999
    assert 2 <= len(found) <= 32


@given(TREES)
def test_segments_see_their_rows_up_to_themselves(trees):
    layout = Layout.shared([p for p, _ in trees], [r for _, r in trees])
    segments = RowPlaces(layout, 8).segments
    places = torch.arange(layout.tokens) if segments.places is None else segments.places
    queries, keys = segments.query_ends.tolist(), segments.key_ends.tolist()
    starts = layout.starts.tolist()
    assert (queries[-1], keys[-1]) == (layout.tokens, len(places))
    for number, (start, parent) in enumerate(zip(starts, layout.parents.tolist(), strict=True)):
        own = list(range(start, start + int(layout.lengths[number])))
        before = int(layout.lengths[parent]) if parent >= 0 else 0
        seen = list(range(starts[parent], starts[parent] + before))
        assert list(range(queries[number], queries[number + 1])) == own
        assert places[keys[number] : keys[number + 1]].tolist() == seen + own
    assert segments.most_queries == max(b - a for a, b in itertools.pairwise(queries))
    assert segments.most_keys == max(b - a for a, b in itertools.pairwise(keys))


def test_networks_of_a_width_share_places_which_go_when_the_layout_goes():
    layout = Layout.of([2, 7, 7])
    places = RowPlaces.of(layout, 8)
    assert RowPlaces.of(layout, 8) is places
    assert RowPlaces.of(layout, 16) is not places
    found, seen = places.places, weakref.ref(places)
    assert found is not None
    gc.disable()
    try:
        del layout, places
        assert seen() is None
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("allows", "window"),
    [
        (lambda q, k: k <= q, 0),
        (lambda q, k: (k <= q) & (k > q - 3), 3),
        (lambda q, k: (k <= q) & (k // 3 == q // 3), None),  # chunks
    ],
)
def test_masks_are_what_the_architecture_asks_for(allows, window):
    seen = Attended(RowPlaces(Layout.of([2, 7]), 8), allows, False)
    assert seen.window == window
    places = torch.arange(7)
    wanted = allows(places[:, None], places[None]).expand(7, 7)
    for length in (2, 7):
        part = wanted[:length, :length]
        mask = seen.mask(length, None)
        assert (mask is None) == torch.equal(part, torch.ones_like(part).tril())
        assert mask is None or torch.equal(mask[0, 0], part)
        added = seen.mask(length, torch.float32)[0, 0]
        assert torch.equal(added == 0, part)
        assert (added[~part] == torch.finfo(torch.float32).min).all()


def naive_varlen(
    query, key, value, cu_q, cu_k, max_q, max_k, *, scale, window_size, enable_gqa=False
):
    """What torch documents of its attention over segments, one query at a time."""
    heads, outputs = query.shape[1], []
    assert enable_gqa == (key.shape[1] != heads)
    key, value = (x.repeat_interleave(heads // x.shape[1], 1) for x in (key, value))
    for a, b, c, d in zip(cu_q[:-1], cu_q[1:], cu_k[:-1], cu_k[1:], strict=True):
        assert b - a <= max_q
        assert d - c <= max_k
        for place in range(a, b):
            last = d - (b - place)  # causality is counted from the last key
            first = c if window_size[0] < 0 else max(c, last - window_size[0])
            keys, values = key[first : last + 1], value[first : last + 1]
            weights = (torch.einsum("hd,khd->hk", query[place], keys) * scale).softmax(-1)
            outputs.append(torch.einsum("hk,khd->hd", weights, values))
    return torch.stack(outputs)


def older_varlen(query, key, value, cu_q, cu_k, max_q, max_k, *, scale, window_size):
    """That of torch 2.11, which wants as many heads of keys."""
    limits = {"scale": scale, "window_size": window_size}
    return naive_varlen(query, key, value, cu_q, cu_k, max_q, max_k, **limits)


@pytest.mark.parametrize("kernel", [naive_varlen, older_varlen])
@pytest.mark.parametrize("name", ["gpt2", "llama", "mistral"])
def test_attention_over_segments_is_called_as_torch_documents_it(
    tiny_tokenizer, monkeypatch, name, kernel
):
    """The kernel is for CUDA only: a naive one stands in for it."""
    model, rows = build(name, tiny_tokenizer), flat_rows()
    expected = hidden_states(model, rows)
    calls = []

    @wraps(kernel)
    def attention(*args, **options):
        calls.append(1)
        return kernel(*args, **options)

    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", attention)
    setattr(model, flat_proof.PROOFS, {("cpu", torch.float32, False, False): "varlen"})
    found = hidden_states(model, rows)
    assert len(calls) == 2  # layers
    assert_close(found, expected, rtol=1e-5, atol=1e-5)


def too_wide(*_, **__):
    raise RuntimeError("head_size must be a multiple of 8")


@pytest.mark.parametrize(("attention", "kernel"), [(naive_varlen, "varlen"), (too_wide, "grouped")])
def test_attention_over_segments_is_used_where_it_is_right(
    tiny_tokenizer, monkeypatch, attention, kernel
):
    """What it refuses is said in one line; no layer pads its rows for that."""
    model, rows = build("llama", tiny_tokenizer).bfloat16(), flat_rows()
    monkeypatch.setattr(flat_proof, "SEGMENTS", {"cpu"})
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", attention)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        hidden_states(model, rows)
    told = [str(one.message) for one in caught if "attention over segments" in str(one.message)]
    line = (
        "llama does not take torch's attention over segments (RuntimeError: head_size must be a "
        "multiple of 8): rows of like length are attended to together"
    )
    assert told == ([line] if kernel == "grouped" else [])
    assert list(getattr(model, flat_proof.PROOFS).values()) == [kernel]
