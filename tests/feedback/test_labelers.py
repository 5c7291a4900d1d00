"""Labelers choose, rank and rate as their probabilities say."""

import math

import numpy as np
import pytest

from instructgpt.feedback.labelers import Labeler, generator, probabilities

ANN = Labeler("ann", "training", {"follow": 2.0, "toxic": -1.0}, noise=0.5, tie=0.25)
GOOD, BAD = {"follow": 1.0, "toxic": 0.0}, {"follow": 0.5, "toxic": 0.0}


def test_value_of_a_response():
    assert ANN.utility(GOOD) == 3.0  # 1 + 2
    assert ANN.utility({"follow": 0.5, "toxic": 1.0}) == 1.0  # 1 + 1 - 1


def test_probabilities_of_a_comparison():
    # difference 1: win = sigma((1 - .25) / .5) = sigma(1.5), lose = sigma((-1 - .25) / .5)
    win, lose = 1 / (1 + math.exp(-1.5)), 1 / (1 + math.exp(2.5))
    preference = ANN.prefers(GOOD, BAD)
    assert preference == pytest.approx((win, 1 - win - lose))
    other_way = ANN.prefers(BAD, GOOD)
    assert other_way == pytest.approx((lose, preference.tie))  # ties are symmetric
    assert preference.win + preference.tie + other_way.win == pytest.approx(1)


def test_far_apart_does_not_overflow():
    win, lose = probabilities(np.array([1e9, -1e9]), 1e-3, 0.2)
    assert win == pytest.approx([1, 0])
    assert lose == pytest.approx([0, 1])


def test_probabilities_match_ranking_two():
    rng, draws = np.random.default_rng(0), 20_000
    rankings = [tuple(ANN.rank([GOOD, BAD], ["a", "b"], rng)) for _ in range(draws)]
    preference = ANN.prefers(GOOD, BAD)
    error = 4 * 0.5 / draws**0.5  # four standard errors at most
    assert rankings.count((1, 2)) / draws == pytest.approx(preference.win, abs=error)
    assert rankings.count((1, 1)) / draws == pytest.approx(preference.tie, abs=error)
    assert set(rankings) == {(1, 2), (1, 1), (2, 1)}


def test_best_of_three_is_plackett_luce():
    labeler = ANN._replace(tie=0.0)
    rng, draws = np.random.default_rng(1), 20_000
    values = [{"follow": x, "toxic": 0.0} for x in (1.0, 0.7, 0.2)]
    best = [labeler.rank(values, "abc", rng).index(1) for _ in range(draws)]
    worth = [math.exp(labeler.utility(value) / labeler.noise) for value in values]
    for i in range(3):
        assert best.count(i) / draws == pytest.approx(worth[i] / sum(worth), abs=0.015)


def test_ties_go_down_from_the_best():
    quiet = ANN._replace(noise=1e-9, tie=0.25)
    # values 3, 2.9, 2.7, 1: the second is within .25 of the first, the third is not
    values = [{"follow": x, "toxic": 0.0} for x in (0.85, 1.0, 0.0, 0.95)]
    assert quiet.rank(values, "abcd", np.random.default_rng(0)) == [3, 1, 4, 1]


def test_the_same_text_is_looked_at_once():
    loud = ANN._replace(noise=5.0, tie=0.01)
    rng = np.random.default_rng(0)
    for _ in range(20):
        ranking = loud.rank([GOOD, BAD, GOOD], ["x", "y", "x"], rng)
        assert ranking in ([1, 3, 1], [2, 1, 2])


def test_ratings_stay_on_the_scale_and_keep_the_mean():
    rng = np.random.default_rng(0)
    ratings = [
        ANN._replace(weights={"follow": 3.0}).rate({"follow": 1.0}, rng) for _ in range(5000)
    ]
    assert np.mean(ratings) == pytest.approx(4.0, abs=0.05)  # 1 + 3, the noise has mean 0
    loud = ANN._replace(noise=20.0)
    assert {loud.rate(GOOD, rng) for _ in range(300)} == {1, 2, 3, 4, 5, 6, 7}


def test_generators_depend_on_their_key_alone():
    assert generator(1, "ann", "p3").random() == generator(1, "ann", "p3").random()
    assert generator(1, "ann", "p3").random() != generator(1, "ann", "p4").random()
    assert generator(1, "\ud800").random() >= 0  # half a surrogate pair in an id
