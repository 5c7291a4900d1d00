"""Rules over all rows, on rows whose answer is worked out by hand."""

import json

import numpy as np
import pytest

from instructgpt.hygiene.balance import ClassBalance, SourceMixture, scaled
from instructgpt.hygiene.clean_row import SPLITS, CleanRow
from instructgpt.hygiene.lengths import LengthLimits
from instructgpt.hygiene.prefix import CommonPrefix
from instructgpt.hygiene.splits import Splits
from instructgpt.hygiene.users import UserCap
from instructgpt.types import UserError


def row(prompt, response="", user="", split="", system="", **more):
    turns = [{"role": "system", "content": system}] if system else []
    turns.append({"role": "user", "content": prompt})
    kind = "demonstrations" if response else "prompts"
    values = {
        "where": "f.jsonl:1",
        "kind": kind,
        "id": "1",
        "prompt": prompt,
        "messages": turns,
        "responses": [response] if response else [],
        "ranking": [],
        "text": "",
        "user": user,
        "labeler": "",
        "source": "",
        "split": split,
        "meta": {},
    }
    return CleanRow(**{**values, **more})


def decide(rule, rows):
    splits = np.array([SPLITS.index(one.split) if one.split else 0 for one in rows], np.uint8)
    return rule.decide(rule.keys(rows), splits)


def kept(rule, rows):
    return [one for one, out in zip(rows, decide(rule, rows).dropped, strict=True) if not out]


# -- long common prefixes


def test_of_prompts_that_begin_alike_the_first_stays():
    alike = [row("x" * 10 + end) for end in "abc"]
    rows = [row("short"), *alike, row("y" + "x" * 10)]
    decision = decide(CommonPrefix(10), rows)
    assert decision.dropped.tolist() == [False, False, True, True, False]
    assert decision.because.tolist() == [-1, -1, 1, 1, -1]
    assert not decide(CommonPrefix(12), rows).dropped.any()


def test_a_short_prompt_is_dropped_only_where_it_repeats_one():
    rows = [row("abc"), row("abcd"), row("abc  "), row(" abc")]
    assert kept(CommonPrefix(10), rows) == rows[:2]


def test_a_system_turn_is_no_common_prefix():
    rows = [row(f"question {i}", system="You are helpful. " * 30) for i in range(4)]
    assert kept(CommonPrefix(100), rows) == rows


def test_further_answers_to_a_prompt_stay_unless_asked():
    rows = [row("a", "1"), row("a", "2"), row("a", "1"), row("b", "1")]
    assert kept(CommonPrefix(), rows) == [rows[0], rows[1], rows[3]]
    assert kept(CommonPrefix(one_row_a_prompt=True), rows) == [rows[0], rows[3]]


# -- users


def test_a_user_keeps_so_many_prompts_and_all_rows_of_these():
    rows = [row(f"p{i % 7}", f"r{i}", user="a") for i in range(21)]
    rows += [row(f"q{i}", user="b") for i in range(3)] + [row(f"n{i}") for i in range(9)]
    left = kept(UserCap(3), rows)
    of_a = [one for one in left if one.user == "a"]
    assert len({one.prompt for one in of_a}) == 3
    assert len(of_a) == 9
    assert left[9:] == rows[21:]
    assert kept(UserCap(3), left) == left
    turned = kept(UserCap(3), rows[::-1])
    assert {one.prompt for one in turned} == {one.prompt for one in left}


# -- splits


def split_of(rule, rows):
    decision = decide(rule, rows)
    names = [SPLITS[at] for at in decision.split]
    return [
        (one, name) for one, name, out in zip(rows, names, decision.dropped, strict=True) if not out
    ]


def test_no_user_and_no_prompt_is_in_two_splits():
    rows = [row(f"p{i % 400}", user=f"u{i % 97}" if i % 3 else "") for i in range(2000)]
    found = split_of(Splits(0.2, 0.1), rows)
    for of in (lambda one: one.user or None, lambda one: one.key):
        places = {}
        for one, name in found:
            if of(one):
                places.setdefault(of(one), set()).add(name)
        assert {len(some) for some in places.values()} == {1}


def test_shares_are_of_users_and_hold_as_data_grow():
    rows = [row(f"p{i}", user=f"u{i}") for i in range(4000)]
    found = {one.user: name for one, name in split_of(Splits(0.2, 0.1), rows)}
    names = list(found.values())
    assert abs(names.count("validation") / 4000 - 0.2) < 0.02
    assert abs(names.count("test") / 4000 - 0.1) < 0.02
    fewer = split_of(Splits(0.2, 0.1), rows[:1000])
    assert all(found[one.user] == name for one, name in fewer)
    assert found != {one.user: name for one, name in split_of(Splits(0.2, 0.1, seed=1), rows)}


def test_three_users_are_enough_for_three_splits():
    rows = [row(f"p{i}", user=f"u{i % 3}") for i in range(30)]
    assert {name for _, name in split_of(Splits(), rows)} == set(SPLITS)


def test_what_files_call_test_stays_test_and_training_rows_leak_into_nothing():
    rows = [row("a", split="test"), row("b", split="test"), row("b", split="train")]
    rows += [row(f"c{i}", split="train") for i in range(50)]
    found = split_of(Splits(0.1, 0.5), rows)
    names = {one.prompt: name for one, name in found}
    assert names["a"] == "test"
    assert names["b"] != "test"
    assert [name for _, name in found].count("test") == 1
    assert "validation" in names.values()


@pytest.mark.parametrize(("validation", "test"), [(1.0, 0.0), (-0.1, 0.0), (0.5, 0.5)])
def test_shares_that_leave_nothing_are_refused(validation, test):
    with pytest.raises(UserError, match="--splits"):
        Splits(validation, test).check_options("prompts")


# -- lengths


def test_a_response_that_is_too_long_leaves_its_comparison():
    one = row("p", kind="comparisons", responses=["a" * 8, "b" * 99, "c"], ranking=[3, 1, 2])
    one = one._replace(meta={"ratings": [1, 9, 5], "other": [1, 2]})
    verdict = LengthLimits(most_response=2).check(one)
    assert verdict.row.responses == ["a" * 8, "c"]
    assert verdict.row.ranking == [2, 1]
    assert verdict.row.meta == {"ratings": [1, 5], "other": [1, 2]}
    assert LengthLimits(most_response=1).check(one).row is None
    assert (
        LengthLimits(most_prompt=1).check(one._replace(messages=[{"content": "x" * 5}])).row is None
    )
    assert LengthLimits().check(one) == (one, (), "")


# -- balance and mixtures


def of_class(name, count, split="train"):
    return [row(f"{name} {i}", split=split, meta={"category": name}) for i in range(count)]


def counts(rows, key):
    names = [key(one) for one in rows if one.split == "train"]
    return {name: names.count(name) for name in dict.fromkeys(names)}


def use_case(one):
    return one.meta.get("category")


def test_classes_get_equal_shares_and_only_training_rows_are_dropped():
    rows = [*of_class("chat", 50), *of_class("poetry", 30), *of_class("rare", 4), row("none")]
    rows += of_class("chat", 9, "validation")
    rule = ClassBalance("uniform", least=5)
    left = kept(rule, rows)
    assert counts(left, use_case) == {"chat": 30, "poetry": 30, "rare": 4}
    assert [one for one in left if one.split != "train"] == [
        one for one in rows if one.split != "train"
    ]
    assert kept(rule, left) == left


def test_the_papers_shares_are_those_of_table_1():
    rows = [*of_class("creative_writing", 456), *of_class("open_qa", 456), *of_class("chat", 84)]
    left = kept(ClassBalance("paper"), rows)
    assert counts(left, use_case) == {"creative_writing": 456, "open_qa": 124, "chat": 84}


def of_source(name, count):
    return [row(f"{name} {i}", split="train", source=name) for i in range(count)]


def test_a_mixture_by_temperature_worked_out():
    # Shares 400^½ : 100^½ = 20 : 10; "b" runs out first at 100 rows, so "a" keeps 200.
    rows = [*of_source("a", 400), *of_source("b", 100)]
    left = kept(SourceMixture(2.0), rows)
    assert counts(left, lambda one: one.source) == {"a": 200, "b": 100}
    again = SourceMixture(2.0, sizes={"a": 400, "b": 100})
    assert kept(again, left) == left
    assert len(kept(SourceMixture(2.0), left)) < len(left)


def test_a_cap_is_the_most_that_a_source_keeps():
    rows = [*of_source("a", 400), *of_source("b", 100)]
    assert counts(kept(SourceMixture(cap=150), rows), lambda one: one.source) == {
        "a": 150,
        "b": 100,
    }


@pytest.mark.parametrize("seed", range(20))
def test_sizes_in_their_shares_stay_as_they_are(seed):
    rng = np.random.default_rng(seed)
    sizes = {f"{i}": int(n) for i, n in enumerate(rng.integers(1, 1000, 8))}
    shares = {name: float(rng.uniform(0.1, 5)) for name in sizes}
    once = scaled(sizes, shares, sizes)
    assert scaled(once, shares, once) == once


def test_a_row_between_two_passes_is_what_it_was():
    one = row("a \ud800 é", "b\u2028", meta={"x": [1, None, {"y": 2.5}]})
    assert CleanRow.loads(one.dumps()) == one
    assert json.loads(one.dumps())
