"""Length-controlled win rates: against an oracle, and what must hold of any of them."""

from statistics import NormalDist

import numpy as np
import pytest
from evaluation_answers import answer, table

from instructgpt.evaluation.judges import CallableJudge, ScoreJudge
from instructgpt.evaluation.length_control import (
    RIDGE,
    JudgedPairs,
    fit,
    length_controlled,
    sigmoid,
)
from instructgpt.evaluation.measures import difficulty, win_rates


def controlled(wins, longer, difficulty=None, owner=None):
    owner = np.arange(len(wins)) if owner is None else np.array(owner)
    pairs = JudgedPairs(owner, np.array(wins, dtype=float), np.array(longer, dtype=float))
    return length_controlled(pairs, int(owner.max()) + 1, 0, difficulty)


def test_a_worked_example():
    """Two wins of three where the answer is longer by d, one of two where it is shorter by d.

    With two lengths the curve goes through both shares but for the ridge; without it θ would be the
    mean of both log-odds, (log 2 + log 1) / 2, and the rate sigmoid of it, .5858.
    """
    found = controlled([1, 1, 0, 1, 0] * 200, [9, 9, 9, -9, -9] * 200)
    assert found.value == pytest.approx(1 / (1 + np.exp(-np.log(2) / 2)), abs=1e-3)
    assert found.low < found.value < found.high
    assert found.n == 1000


def test_newton_finds_what_a_plain_descent_finds():
    rng = np.random.default_rng(0)
    features = np.stack([np.ones(60), rng.normal(size=60), rng.normal(size=60)], 1)
    wins, weights = rng.random(60), rng.integers(0, 3, (2, 60)).astype(float)
    found = fit(features, wins, weights)
    for row, chosen in zip(weights, found, strict=True):
        slow = np.zeros(3)
        for _ in range(3000):  # the gradient of the penalised log-likelihood, written out
            chance = 1 / (1 + np.exp(-features @ slow))
            slope = features.T @ (row * (wins - chance)) - np.array([0, RIDGE, RIDGE]) * slow
            slow += 0.05 * slope
        assert chosen == pytest.approx(slow, abs=1e-5)


def test_the_regression_is_that_of_statsmodels():
    api = pytest.importorskip("statsmodels.api")
    rng = np.random.default_rng(1)
    features = np.stack([np.ones(4000), rng.normal(size=4000)], 1)
    wins = (rng.random(4000) < sigmoid(features @ [0.3, 0.8])).astype(float)
    theirs = api.GLM(wins, features, family=api.families.Binomial()).fit().params
    assert fit(features, wins, np.ones((1, 4000)))[0] == pytest.approx(theirs, abs=1e-3)


def test_where_length_plays_no_part_it_is_the_plain_rate():
    # each length once with a win and once with a loss; and equal lengths
    assert controlled([1, 0] * 30, np.repeat(np.arange(30) - 15, 2)).value == pytest.approx(0.5)
    found = controlled([1, 1, 1, 0] * 30, np.repeat(np.arange(30) - 15, 4))
    assert found.value == pytest.approx(0.75, abs=1e-6)
    assert controlled([1, 0, 1], [0, 0, 0]).value == pytest.approx(2 / 3, abs=1e-6)


@pytest.mark.parametrize("share", [0.5, 0.7, 0.85])
def test_a_judge_of_length_alone_finds_both_as_good(share):
    """However often the model is the longer one, and though the lengths tell wins from losses."""
    rng = np.random.default_rng(3)
    longer = np.round(rng.normal(NormalDist().inv_cdf(share), 1, 500) * 200)
    found = controlled((longer > 0) + 0.5 * (longer == 0), longer)
    plain = (longer > 0).mean()
    assert plain == pytest.approx(share, abs=0.05)
    assert found.low <= 0.5 <= found.high
    assert found.value == pytest.approx(0.5, abs=0.06)
    soft = controlled(sigmoid(2 * np.tanh(longer / longer.std(ddof=1))), longer)
    assert soft.value == pytest.approx(0.5, abs=0.003)


def test_of_models_exchanged_it_is_one_minus_itself():
    rng = np.random.default_rng(4)
    wins, longer, hard = rng.random(50), rng.normal(30, 90, 50).round(), rng.random(50)
    there, back = controlled(wins, longer, hard), controlled(1 - wins, -longer, hard)
    assert there.value + back.value == pytest.approx(1)
    assert there.low + back.high == pytest.approx(1, abs=1e-6)
    assert there.high + back.low == pytest.approx(1, abs=1e-6)


def test_it_does_not_depend_on_the_unit_of_length():
    rng = np.random.default_rng(5)
    wins, longer = rng.random(50), rng.normal(30, 90, 50)
    assert controlled(wins, longer) == pytest.approx(controlled(wins, longer * 1000))


def test_what_separates_wins_from_losses_stays_finite():
    found = controlled([1, 1, 1, 0, 0, 0], [5, 6, 7, -5, -6, -7])
    assert 0.3 < found.value < 0.7
    assert 0 <= found.low <= found.high <= 1
    won = controlled([1, 1, 1, 1], [5, -6, 7, 2])
    assert (won.value, won.high) == (1, 1)
    assert won.low < 0.8  # Wilson's, not certainty
    few = controlled([1, 0], [3, -2])
    assert np.isfinite(few[:3]).all()
    assert controlled([1.0], [3]) is None  # what is length, and what is the model?


def test_one_length_tells_nothing():
    assert controlled([1, 0, 1], [4, 4, 4]) is None


def test_prompts_count_alike_however_many_answers_they_have():
    # by prompt 1, .5: mean .75; all lengths equal
    assert controlled([1, 1, 0], [0, 0, 0], owner=[0, 1, 1]).value == pytest.approx(0.75)


def test_hard_prompts_are_told_by_other_models():
    one, other = np.array([1.0, 0.0, np.nan, 0.5]), np.array([1.0, 1.0, np.nan, np.nan])
    ours = np.array([0.5, 0.5, 1.0, np.nan])
    # means 1, .5, and of what nobody else was judged on the middle of all: 3 of 4
    assert difficulty([one, other], ours).tolist() == [1.0, 0.5, 0.75]
    assert difficulty([one], ours) is None


def test_a_difficulty_of_prompts_is_taken_into_account():
    rng = np.random.default_rng(6)
    hard = rng.normal(size=1000)
    longer = 100 * rng.normal(size=1000) + 80 * hard  # longer where the baseline is easy to beat
    chance = sigmoid(0.4 + 1.5 * hard)  # length itself plays no part
    wins = (rng.random(1000) < chance).astype(float)
    assert controlled(wins, longer, hard).value == pytest.approx(chance.mean(), abs=0.03)


def test_every_row_of_win_rates_has_it():
    longer = CallableJudge("longer", lambda _, a, b: 0.5 + 0.5 * np.sign(len(a) - len(b)))
    rng = np.random.default_rng(7)
    models = {
        name: [answer("x" * int(n)) for n in rng.integers(1, most, 300)]
        for name, most in (("sft", 60), ("ppo", 90))
    }
    (row,) = win_rates(table(models), {"longer": longer}, "sft", "sampled", 0).rows
    assert row.value > 0.6
    assert row.length_controlled.value == pytest.approx(0.5, abs=0.08)
    even = ScoreJudge("even", lambda answers: [0.0 for _ in answers])
    (row,) = win_rates(table(models), {"even": even}, "sft", "sampled", 0).rows
    assert row.length_controlled.value == pytest.approx(0.5)
