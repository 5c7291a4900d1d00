"""Pages of a decoding loop: each is one row's, or of rows that begin alike, and none is lost."""

import random
from collections import Counter

import pytest
import torch
from torch import nn

from instructgpt.models import pages
from instructgpt.models.pages import Pages, pool_size
from instructgpt.models.slots import Call, Range, Weighing
from instructgpt.models.stretches import Stretches
from instructgpt.models.varlen import varlen_takes

CPU = torch.device("cpu")
LAYER = nn.Identity()


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(pages, "PAGE", 4)


def places_of(memory, slot, tokens):
    return [memory.place(slot, token) for token in range(tokens)]


@pytest.mark.parametrize("seed", range(20))
def test_rows_that_come_and_go_own_their_pages_and_leave_all(seed):
    """Against a list of tokens for each row: what is written is there until the row leaves."""
    noise, size = random.Random(seed), 12
    memory = Pages(6, 14, CPU, size)
    stored = memory.memory(LAYER, "keys", torch.zeros(1))[:, 0]
    stored.fill_(-1.0)
    rows = {}  # slot: its tokens, how many of them it began with, how many it can have

    def write(slot, tokens):
        for token, value in enumerate(tokens):
            stored[memory.place(slot, token)] = value

    for step in range(200):
        free = [slot for slot in range(6) if slot not in rows]
        chance = noise.random()
        if chance < 0.4 and free:
            begin, grown = noise.randint(0, 9), noise.randint(1, 5)
            slot, alike = noise.choice(free), None
            if rows and noise.random() < 0.5:
                alike = noise.choice(list(rows))
                begin = rows[alike][1]
            if not memory.fits(begin + grown):
                continue
            memory.enter(slot, begin, begin + grown, alike)
            if alike is None:
                write(slot, tokens := [1000.0 * step + i for i in range(begin)])
            else:
                memory.copy(alike, slot, begin)
                tokens = rows[alike][0][:begin]
            rows[slot] = (list(tokens), begin, begin + grown)
        elif chance < 0.7 and rows:
            tokens, _, most = rows[slot := noise.choice(list(rows))]
            if len(tokens) < most:
                tokens.append(1000.0 * step + 999)
                stored[memory.place(slot, len(tokens) - 1)] = tokens[-1]
        elif chance < 0.85 and rows:
            memory.leave(slot := noise.choice(list(rows)))
            del rows[slot]
        elif rows and free:
            source, target = noise.choice(list(rows)), noise.choice(free)
            memory.move(source, target, len(rows[source][0]))
            rows[target] = rows.pop(source)
        owned = set()
        for slot, (tokens, begin, most) in rows.items():
            assert stored[places_of(memory, slot, len(tokens))].tolist() == tokens
            assert memory.places(slot, begin).tolist() == places_of(memory, slot, begin)
            owned |= {place // 4 for place in places_of(memory, slot, most)}
        assert 0 not in owned
        assert len(owned) + memory.free == size
    for slot in rows:
        memory.leave(slot)
    assert memory.free == size


def test_rows_that_begin_alike_share_full_pages_only():
    memory = Pages(3, 12, CPU, 9)
    memory.enter(0, 6, 10)
    memory.enter(2, 6, 10, 0)
    one, other = (places_of(memory, slot, 10) for slot in (0, 2))
    assert one[:4] == other[:4]
    assert not set(one[4:]) & set(other[4:])
    assert memory.free == 9 - 3 - 2
    memory.leave(0)
    assert memory.free == 9 - 3
    memory.leave(2)
    assert memory.free == 9


def test_the_table_stays_where_it_is_and_says_who_has_what():
    memory = Pages(3, 10, CPU, 9)
    where = memory.table.data_ptr()
    memory.enter(1, 5, 10)
    memory.settle()
    assert memory.table.data_ptr() == where
    assert memory.table.shape == (3, 3)
    assert Counter(memory.table.flatten().tolist())[0] == 6  # of the free slots
    positions = torch.tensor([0, 7, 3])
    places = torch.zeros(3, dtype=torch.int64)
    memory.advance(places, positions)
    assert places.tolist() == [0, memory.place(1, 7), 3]
    memory.move(1, 0, 5)
    memory.settle()
    assert (memory.table[0] > 0).all()
    assert (memory.table[1:] == 0).all()


def test_there_are_pages_for_the_longest_rows_or_what_there_is_room_for(monkeypatch):
    most = [4, 5, 9, 1]  # of 1, 2, 3 and 1 pages
    assert pool_size(most, 2, 0, CPU) == 5
    assert pool_size(most, 9, 10, CPU) == 7
    monkeypatch.setattr(pages, "free_bytes", lambda _: 10 * 4 * 10)  # 80 % of it: 8 pages
    assert pool_size(most, 4, 10, CPU) == 7
    monkeypatch.setattr(pages, "free_bytes", lambda _: 10 * 4 * 7)  # 5, one of which is nobody's
    assert pool_size(most, 4, 10, CPU) == 4
    monkeypatch.setattr(pages, "free_bytes", lambda _: 0)
    assert pool_size(most, 4, 10, CPU) == 3  # the longest row alone


@pytest.mark.skipif(not varlen_takes("block_table"), reason="needs torch 2.12")
@pytest.mark.parametrize("window", [None, 5])
@pytest.mark.parametrize(("kind", "groups"), [(Pages, 2), (Pages, 4), (Stretches, 4)])
@torch.no_grad()
def test_torch_itself_takes_the_arguments(kind, groups, window):
    """Its function, up to the kernel: numbers on the device "meta" have shapes alone."""
    meta = torch.device("meta")
    memory = kind.made_for([9, 14, 3], 3, 14, meta, 0)
    one = torch.zeros(2, dtype=torch.int64, device=meta)
    call = Call(memory, [Range(0, range(2), memory.length)], one, one)
    query = torch.zeros(2, 4, 8, dtype=torch.bfloat16, device=meta)
    like = query[:, :groups].flatten(1)
    stored = [memory.memory(LAYER, name, like).unflatten(1, (groups, 8)) for name in "kv"]
    memory.attend(call, query, tuple(stored), Weighing(0.3, None, window), torch.empty_like(query))
