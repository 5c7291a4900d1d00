"""Best-of-n against all subsets."""

from itertools import combinations

import numpy as np
import pytest
from evaluation_answers import answer

from instructgpt.evaluation.best_of_n import (
    best_of_n,
    best_weights,
    expected_of_best,
    expected_win,
    kl_of_best,
)
from instructgpt.evaluation.judges import ScoreJudge

BY_UTILITY = ScoreJudge("utility", lambda answers: [one.utility for one in answers])


def numbers(count, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=count), rng.normal(size=count)


@pytest.mark.parametrize("n", [1, 2, 3, 6])
def test_expectation_over_all_subsets(n):
    scores, values = numbers(6)
    best = [max(subset, key=lambda i: scores[i]) for subset in combinations(range(6), n)]
    assert expected_of_best(scores, values, n) == pytest.approx(values[best].mean())


def test_of_equal_scores_the_later_is_better():
    assert expected_of_best([1.0, 1.0, 0.0], [5.0, 7.0, 9.0], 3) == 7


def test_weights_are_probabilities():
    for n in (1, 2, 8, 16):
        assert best_weights(16, n).sum() == pytest.approx(1)


@pytest.mark.parametrize("n", [1, 2, 4])
def test_wins_over_a_sample_outside_the_subset(n):
    scores, values = numbers(5)
    wins = (values[:, None] > values[None, :]) + 0.5 * (values[:, None] == values[None, :])
    shares = []
    for opponent in range(3):
        rest = [i for i in range(5) if i != opponent]
        for subset in combinations(rest, n):
            shares.append(wins[max(subset, key=lambda i: scores[i]), opponent])
    assert expected_win(list(scores), wins[:, :3], n) == pytest.approx(np.mean(shares))


def test_kl_grows_like_the_logarithm():
    # the best of two has density 2F: KL = integral of 2F log 2F = log 2 - 1/2
    points = (np.arange(10_000) + 0.5) / 10_000
    assert kl_of_best(2) == pytest.approx((2 * points * np.log(2 * points)).mean(), abs=1e-6)


def test_rows():
    answers, scores = [], []
    for prompt in range(3):
        score, value = numbers(5, prompt)
        answers.append([answer(f"{prompt} {i}", float(v)) for i, v in enumerate(value)])
        scores.append(score.tolist())
    rows = best_of_n(answers, scores, BY_UTILITY, seed=0)
    assert [row.n for row in rows] == [1, 2, 4]
    assert rows[0].score.value == pytest.approx(np.mean(scores))
    assert rows[0].score.n == 3
    assert rows[0].score.low < rows[0].score.value < rows[0].score.high
    utilities = [[one.utility for one in prompt] for prompt in answers]
    assert rows[0].utility.value == pytest.approx(np.mean(utilities))
    assert rows[0].kl == 0
    assert all(row.win_rate.n == 3 for row in rows)
    # chosen by the utility itself, each n is better than the one before
    by_truth = best_of_n(answers, utilities, BY_UTILITY, seed=0)
    shares = [row.win_rate.value for row in by_truth]
    assert shares == sorted(shares)
    # with 4 samples nothing is left to compare the best of 4 with
    four = best_of_n([one[:4] for one in answers], [one[:4] for one in scores], BY_UTILITY, 0)
    assert [row.win_rate is not None for row in four] == [True, True, False]


def test_without_grades_there_are_scores():
    rows = best_of_n([[answer("a"), answer("b")]], [[0.0, 1.0]], None, seed=0)
    assert [(row.utility, row.win_rate) for row in rows] == [(None, None)] * 2
    assert [row.score.value for row in rows] == [0.5, 1.0]
