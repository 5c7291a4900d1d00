"""Rates, means and differences of hand-made answers."""

import numpy as np
import pytest
from evaluation_answers import answer, table

from instructgpt.evaluation.judges import ScoreJudge
from instructgpt.evaluation.measures import (
    differences,
    estimates,
    metadata,
    times,
    values,
    win_rates,
)

BY_UTILITY = ScoreJudge("utility", lambda answers: [one.utility for one in answers])


def test_values_average_responses_and_leave_out_what_does_not_apply():
    answers = table(
        {"a": [[answer("x", toxic=True), answer("y", toxic=False)], answer("z", toxic=None)]}
    )
    found = values(answers, metadata("toxic"))["a"]
    assert found[0] == 0.5
    assert np.isnan(found[1])
    estimate = estimates({"a": found}, 0)["a"]
    assert (estimate.value, estimate.n) == (0.5, 1)
    assert estimates({"a": found[1:]}, 0) == {}


def test_differences_are_later_minus_earlier_and_paired():
    one = np.array([1.0, 0.0, 1.0, np.nan])
    rows = differences({"a": one, "b": one - 0.5, "c": one * 0}, 0)
    assert [(row.model, row.against) for row in rows] == [("b", "a"), ("c", "a"), ("c", "b")]
    assert rows[0].value == rows[0].low == rows[0].high == -0.5
    assert rows[1].value == pytest.approx(-2 / 3)
    assert rows[1].n == 3


def test_every_two_models_once():
    answers = table({m: [answer(m, u)] for m, u in (("gpt", 1.0), ("sft", 2.0), ("ppo", 3.0))})
    rows, between, orders = win_rates(answers, {"truth": BY_UTILITY}, "sft", "sampled", 0)
    found = {(row.model, row.against): row.value for row in rows}
    assert found == {("gpt", "sft"): 0.0, ("ppo", "sft"): 1.0, ("ppo", "gpt"): 1.0}
    about = {(row.judge, row.decoding) for row in [*rows, *between]}
    assert about == {("truth", "sampled")}
    assert orders == []  # it never sees both
    # over SFT: PPO 1 minus GPT 0
    assert [(row.model, row.against, row.value) for row in between] == [("ppo", "gpt", 1)]


def test_times_is_paired_and_counts_clusters():
    found = {"gpt": np.array([1.0, 0, 0, 0]), "ppo_ptx": np.array([1.0, 1, 0, 0])}
    # prompt by prompt 1 - 2, 1, 0, 0; by fact 0 of 2 and 0 of 2
    rows = times(found, 2, 0, ["a", "a", "b", "b"])
    assert [(row.model, row.against) for row in rows] == [
        ("ppo_ptx", "gpt"),
        ("gpt", "ppo_ptx"),
    ]
    assert (rows[0].value, rows[0].low, rows[0].high, rows[0].n) == (0, 0, 0, 2)
    # the other way round: 1 - 2, -2, 0, 0
    assert rows[1].value == -0.75
    # half: 1 - .5, 1, 0, 0, each its own unit
    (half, _) = times(found, 0.5, 0)
    assert (half.value, half.n) == (0.375, 4)
    assert half.low < 0.375 < half.high
