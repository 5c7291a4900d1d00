"""Which rows are held out."""

import numpy as np

from instructgpt.data.order import text_hash
from instructgpt.data.split import hold_out, places


def hashes(names):
    return np.array([text_hash(name) for name in names], np.uint64)


def test_hold_out_keeps_equal_names_together_and_meets_the_fraction():
    chosen = hold_out(hashes(f"user {i % 500}" for i in range(2000)), 0.2, 0)
    assert (chosen[:500] == chosen[500:1000]).all()
    assert (chosen[:500] == chosen[1000:1500]).all()
    assert 0.15 < chosen.mean() < 0.25


def test_hold_out_does_not_depend_on_order_or_on_other_rows():
    names = hashes(f"prompt {i}" for i in range(200))
    chosen = hold_out(names, 0.3, 5)
    assert (hold_out(names[::-1], 0.3, 5) == chosen[::-1]).all()
    assert (hold_out(names[:100], 0.3, 5) == chosen[:100]).all()
    assert (hold_out(names, 0.3, 6) != chosen).any()


def test_at_least_one_name_is_held_out():
    assert hold_out(hashes("abc"), 1e-9, 0).sum() == 1
    assert not hold_out(hashes("aa"), 1e-9, 0).any()
    assert not hold_out(hashes(""), 0.5, 0).any()


def test_places_are_fixed_for_ever_and_spread_evenly():
    # splitmix64 of 0 begins with e220a8397b1dcdaf (Vigna's reference); a seed is mixed in first
    seeded = np.array([places(np.zeros(1, np.uint64), seed)[0] for seed in range(3)])
    assert len(set(seeded.tolist())) == 3
    from instructgpt.seeds import mix

    assert hex(int(places(np.array([mix(7)], np.uint64), 7)[0])) == "0xe220a8397b1dcdaf"
    found = places(np.arange(100_000, dtype=np.uint64), 1) / 2**64
    assert np.abs(np.histogram(found, 10, (0, 1))[0] - 10_000).max() < 500
