"""Accuracy on public NLP tasks."""

import pytest
from evaluation_answers import answer, prompt_of, table
from evaluation_results import results_of

from instructgpt.evaluation.roles import Roles
from instructgpt.miniature.nlp_tasks import add_nlp


def nlp_results(answers, seed):
    found = results_of({})
    add_nlp(found, answers, Roles(base="gpt", rl="ppo", rl_ptx="ppo_ptx"), seed)
    return found


def nlp(**right):
    """Two tasks with 10 items each: model -> how many are right in each."""
    groups = ["nlp_sums"] * 10 + ["nlp_words"] * 10
    models = {
        model: [answer("x", correct=i % 10 < counts[i // 10]) for i in range(20)]
        for model, counts in right.items()
    }
    return table(models, groups)


def test_nlp_tasks_and_what_is_recovered():
    found = nlp_results(nlp(gpt=(10, 8), sft=(6, 6), ppo=(4, 4), ppo_ptx=(7, 8)), 0)
    assert found.nlp["gpt"]["sums"].value == 1.0
    assert found.nlp["gpt"]["words"].value == pytest.approx(0.8)
    assert found.nlp["gpt"]["mean"].value == pytest.approx(0.9)
    assert found.nlp["ppo"]["mean"].n == 20
    # PPO loses .9 - .4 = .5, PPO-ptx (.75) has .35 of it back
    share = found.alignment_tax.recovered
    assert share.value == pytest.approx(0.7)
    assert 0 < share.low < 0.7 < share.high
    gap = next(
        row for row in found.differences["nlp"] if (row.model, row.against) == ("ppo", "gpt")
    )
    assert gap.value == pytest.approx(-0.5)
    assert gap.high < 0
    assert (gap.n, share.n) == (20, 20)  # different questions


def test_the_interval_of_a_mean_of_tasks():
    # mean of two shares of 10, .5 each: standard error sqrt(2 * .025) / 2 = .1118
    found = nlp_results(nlp(gpt=(5, 5)), 0).nlp["gpt"]["mean"]
    assert found.high - found.low == pytest.approx(2 * 1.96 * 0.1118, rel=0.1)


def test_items_with_the_same_question_are_one_cluster():
    right = [True] * 10 + [False] * 10
    apart = table({"gpt": [answer("x", correct=one) for one in right]}, ["nlp_sums"] * 20)
    together = apart._replace(
        questions=[
            # ten items each end in one of two questions, after other examples
            one._replace(prompt=prompt_of(f"{i} + 0 = {i}\n{i // 10} + 7 ="))
            for i, one in enumerate(apart.questions)
        ]
    )
    narrow, wide = (nlp_results(one, 0).nlp["gpt"] for one in (apart, together))
    for key in ("sums", "mean"):
        assert (wide[key].value, wide[key].n) == (0.5, 20)
        assert (wide[key].low, wide[key].high) == (0, 1)  # of either question alone
        assert narrow[key].low == pytest.approx(0.5 - 1.96 * 0.1118, abs=0.04)
    both = together._replace(by_model=dict.fromkeys(("gpt", "sft"), together.by_model["gpt"]))
    (gap,) = nlp_results(both, 0).differences["nlp"]
    assert gap.n == 2  # two questions are what was resampled
