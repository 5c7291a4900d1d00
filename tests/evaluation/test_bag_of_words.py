"""A Bradley–Terry model of words against dense Newton steps, and by hand."""

import math
import random

import numpy as np
import pytest

from instructgpt.evaluation import bag_of_words
from instructgpt.evaluation.bag_of_words import BagOfWords, RankedTexts, fit_words, words

VOCABULARY = ["yes", "no", "Maybe", "why", "?", "because", "so"]


def choices(count, seed=0):
    """K from 2 to 4 responses with ties; "because" is liked."""
    rng = random.Random(seed)
    found = []
    for number in range(count):
        texts = [
            " ".join(rng.choices(VOCABULARY, k=rng.randint(1, 6)))
            for _ in range(rng.choice([2, 3, 4]))
        ]
        likes = [text.count("because") + rng.choice([0, 0, 1]) for text in texts]
        ranking = [1 + sum(other > like for other in likes) for like in likes]
        found.append(RankedTexts(texts, ranking, weight=1 + number % 2))
    return found


def newton(some, ridge):
    """Weights by Newton's method on every pair written out, and how many pairs there are."""
    known = sorted({word for one in some for text in one.texts for word in words(text)})

    def logs(text):
        return np.array([math.log(1 + words(text).count(word)) for word in known])

    rows, shares = [], []
    for one in some:
        pairs = [
            logs(better) - logs(worse)
            for better, rank in zip(one.texts, one.ranking, strict=True)
            for worse, other in zip(one.texts, one.ranking, strict=True)
            if rank < other
        ]
        rows += pairs
        shares += [one.weight / len(pairs) for _ in pairs]
    x, share, w = np.array(rows), np.array(shares), np.zeros(len(known))
    for _ in range(30):
        wrong = 1 / (1 + np.exp(x @ w))
        slope = ridge * w - x.T @ (share * wrong)
        bend = ridge * np.eye(len(w)) + x.T @ (x * (share * wrong * (1 - wrong))[:, None])
        w = w - np.linalg.solve(bend, slope)
    return dict(zip(known, w, strict=True)), len(rows)


def test_weights_are_those_of_newtons_method():
    some = choices(40)
    expected, pairs = newton(some, bag_of_words.RIDGE)
    found = fit_words(some)
    assert found.pairs == pairs
    assert found.weights == pytest.approx(expected, abs=1e-6)
    assert max(found.weights, key=found.weights.get) == "because"


def test_the_order_of_rows_and_responses_is_nothing():
    some = choices(30, seed=1)
    turned = [RankedTexts(one.texts[::-1], one.ranking[::-1], one.weight) for one in some[::-1]]
    assert fit_words(turned).weights == pytest.approx(fit_words(some).weights, abs=1e-6)


def test_a_score_by_hand():
    bag = BagOfWords({"yes": 2.0, "!": -1.0}, pairs=1)
    # "yes" twice, "!" once, "sir" is not known
    assert bag.score("Yes, yes sir!") == pytest.approx(2 * math.log(3) - math.log(2))
    assert bag.scores(["sir", "!"]).tolist() == [0.0, -math.log(2)]


def test_rows_that_decide_nothing_fit_nothing():
    assert fit_words([RankedTexts(["a", "b"], [1, 1])]) == BagOfWords({}, 0)
    assert fit_words([]) == BagOfWords({}, 0)


def test_words_in_most_responses_are_kept(monkeypatch):
    """ "a" is in three responses; "b" and "c" are in two, "d", five times, in one."""
    monkeypatch.setattr(bag_of_words, "MOST_WORDS", 2)
    found = fit_words(
        [RankedTexts(["a b", "a c"], [1, 2]), RankedTexts(["a b c", "d d d d d"], [1, 2])]
    )
    assert list(found.weights) == ["a", "b"]
