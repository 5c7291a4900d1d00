"""Win rates by hand, whatever the judge and the order in which it sees the answers."""

import random

import numpy as np
import pytest
from evaluation_answers import answer

from instructgpt.evaluation.judges import CallableJudge, Judgement, PanelJudge, ScoreJudge
from instructgpt.evaluation.win_rates import compare, compare_models
from instructgpt.types import UserError

BY_UTILITY = ScoreJudge("utility", lambda answers: [one.utility for one in answers])


class First:
    """Likes what it is shown first, unless the second is called good."""

    description = "biased"

    def __call__(self, pairs):
        return [Judgement(float(b.text != "good"), 0.0) for _, b in pairs]


def rows(*utilities):
    return [[answer(f"{u}", u)] for u in utilities]


def test_worked_example():
    # wins, loses, ties by score, ties because the texts are the same
    first = [*rows(3.0, 1.0), [answer("a", 2.0)], [answer("same", 5.0)]]
    second = [*rows(2.0, 2.0), [answer("b", 2.0)], [answer("same", 1.0)]]
    found = compare_models(BY_UTILITY, first, second, seed=0).rate
    assert found.value == (1 + 0 + 0.5 + 0.5) / 4
    assert found.ties == 0.5
    assert found.order_consistency == 1
    assert found.n == 4
    assert found.low <= found.value <= found.high
    # Wilson for 2 of 4: z² / n = .9604, the spread is 1.96 sqrt(.25 / 4 + .9604 / 16) / 1.9604
    assert found.wilson_high - found.value == pytest.approx(0.34999, abs=1e-4)


def test_both_orders_are_asked():
    # "good" beats what is shown before it, so against "bad" it wins shown second and first.
    good, bad, other = [answer("good")], [answer("bad")], [answer("other")]
    found = compare_models(First(), [good, bad], [bad, other], seed=0).rate
    # good over bad: 1 and 1; bad over other: 1 shown first, 0 shown second
    assert found.value == (1 + 0.5) / 2
    assert found.order_consistency == (1 + 0) / 2


def test_equal_texts_are_not_shown():
    def never(prompt, first, second):
        raise AssertionError

    outcomes = compare(CallableJudge("j", never), [answer("x")], [answer("x")])
    assert [part.tolist() for part in outcomes[:3]] == [[0.5], [1.0], [1.0]]
    assert np.isnan(outcomes.shown_first[0])


@pytest.mark.parametrize("judge", [BY_UTILITY, First()])
def test_what_one_wins_the_other_loses(judge):
    rng = random.Random(0)
    first, second = ([[answer(str(u), u)] for u in rng.choices(range(5), k=40)] for _ in range(2))
    there, back = (
        compare_models(judge, first, second, 0).rate,
        compare_models(judge, second, first, 0).rate,
    )
    assert there.value + back.value == pytest.approx(1)
    assert there.low + back.high == pytest.approx(1)
    assert (there.ties, there.order_consistency) == (back.ties, back.order_consistency)


def test_several_responses_count_as_one_prompt():
    # the first prompt: one win, one loss; the second: two wins
    first = [[answer("a", 2.0), answer("b", 1.0)], [answer("c", 3.0), answer("d", 3.0)]]
    second = [[answer("e", 1.0), answer("f", 2.0)], [answer("g", 1.0), answer("h", 2.0)]]
    found = compare_models(BY_UTILITY, first, second, 0).rate
    assert (found.value, found.n) == (0.75, 2)


def test_a_panel_votes_on_attributes():
    def prefers(pairs):
        return np.array([a["x"] for a, _ in pairs]), np.full(len(pairs), 0.1)

    one, other = answer("a", attributes={"x": 0.6}), answer("b", attributes={"x": 0.3})
    outcomes = compare(PanelJudge("panel", prefers), [one], [other])
    # shown first .6 + .05, shown second 1 - .3 - .05
    assert outcomes.wins.tolist() == pytest.approx([0.65])
    assert outcomes.ties.tolist() == pytest.approx([0.1])


def test_a_function_of_the_user():
    seen = []

    def longer(prompt, first, second):
        seen.append((prompt, first, second))
        return 0.5 if len(first) == len(second) else float(len(first) > len(second))

    judge = CallableJudge("mine:longer", longer)
    outcomes = compare(judge, [answer("aa"), answer("b")], [answer("a"), answer("c")])
    assert outcomes.wins.tolist() == [1.0, 0.5]
    assert outcomes.ties.tolist() == [0.0, 1.0]
    assert seen[0] == ("p", "aa", "a")
    assert ("p", "a", "aa") in seen


@pytest.mark.parametrize("value", [2, -0.1, None, "a", float("nan")])
def test_a_function_must_return_a_share(value):
    judge = CallableJudge("mine:judge", lambda *texts: value)
    with pytest.raises(UserError, match="judge mine:judge must return a number from 0"):
        judge([(answer("a"), answer("b"))])
