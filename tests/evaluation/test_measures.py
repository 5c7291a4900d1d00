"""Rates, means and differences of hand-made answers."""

import numpy as np
import pytest
from evaluation_answers import answer, prompt_of, table

from instructgpt.evaluation.judges import ScoreJudge
from instructgpt.evaluation.measures import (
    differences,
    estimates,
    ground_truth,
    metadata,
    metadata_rates,
    times,
    truthfulness,
    values,
    win_rates,
)
from instructgpt.miniature.nlp_tasks import nlp_results

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
    assert [(row["model"], row["against"]) for row in rows] == [("b", "a"), ("c", "a"), ("c", "b")]
    assert rows[0]["value"] == rows[0]["low"] == rows[0]["high"] == -0.5
    assert rows[1]["value"] == pytest.approx(-2 / 3)
    assert rows[1]["n"] == 3


def test_every_two_models_once():
    answers = table({m: [answer(m, u)] for m, u in (("gpt", 1.0), ("sft", 2.0), ("ppo", 3.0))})
    rows, between = win_rates(answers, {"truth": BY_UTILITY}, "sft", "sampled", 0)
    found = {(row["model"], row["against"]): row["value"] for row in rows}
    assert found == {("gpt", "sft"): 0.0, ("ppo", "sft"): 1.0, ("ppo", "gpt"): 1.0}
    about = {(row["judge"], row["decoding"]) for row in [*rows, *between]}
    assert about == {("truth", "sampled")}
    # over SFT: PPO 1 minus GPT 0
    assert [(row["model"], row["against"], row["value"]) for row in between] == [("ppo", "gpt", 1)]


def test_a_mean_of_1_is_not_taken_for_a_share():
    answers = table({"a": [answer("x", 1.0, follow=True), answer("y", 1.0, follow=True)]})
    found = ground_truth(answers, {"sampled": answers}, 0)
    one = found["utility"]["sampled"]["a"]
    assert (one["value"], one["low"], one["high"]) == (1, 1, 1)
    assert found["use_cases"]["a"]["chat"]["low"] == 1
    assert found["metadata"]["a"]["follow"]["low"] < 0.5  # a share of two


def test_truthfulness_counts_facts():
    rows = [answer("x", truthful=t, truthful_informative=i) for t, i in ((1, 1), (1, 0), (0, 0))]
    answers = table({"a": rows}, facts=["sky", "sky", "sea"])
    found = truthfulness(answers, 0)["a"]
    assert found["truthful"]["value"] == pytest.approx(2 / 3)
    assert found["truthful_informative"]["value"] == pytest.approx(1 / 3)
    assert (found["truthful"]["facts"], found["truthful"]["n"]) == (2, 3)
    assert (found["truthful"]["low"], found["truthful"]["high"]) == (0, 1)  # of two facts


def test_times_is_paired_and_counts_clusters():
    found = {"gpt": np.array([1.0, 0, 0, 0]), "ppo_ptx": np.array([1.0, 1, 0, 0])}
    # prompt by prompt 1 - 2, 1, 0, 0; by fact 0 of 2 and 0 of 2
    rows = times(found, 2, 0, ["a", "a", "b", "b"])
    assert [(row["model"], row["against"]) for row in rows] == [
        ("ppo_ptx", "gpt"),
        ("gpt", "ppo_ptx"),
    ]
    assert (rows[0]["value"], rows[0]["low"], rows[0]["high"], rows[0]["n"]) == (0, 0, 0, 2)
    # the other way round: 1 - 2, -2, 0, 0
    assert rows[1]["value"] == -0.75
    # half: 1 - .5, 1, 0, 0, each its own unit
    (half, _) = times(found, 0.5, 0)
    assert (half["value"], half["n"]) == (0.375, 4)
    assert half["low"] < 0.375 < half["high"]


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
    assert found["nlp"]["gpt"]["sums"]["value"] == 1.0
    assert found["nlp"]["gpt"]["words"]["value"] == pytest.approx(0.8)
    assert found["nlp"]["gpt"]["mean"]["value"] == pytest.approx(0.9)
    assert found["nlp"]["ppo"]["mean"]["n"] == 20
    # PPO loses .9 - .4 = .5, PPO-ptx (.75) has .35 of it back
    share = found["alignment_tax"]["recovered"]
    assert share["value"] == pytest.approx(0.7)
    assert 0 < share["low"] < 0.7 < share["high"]
    gap = next(
        row
        for row in found["differences"]["nlp"]
        if (row["model"], row["against"]) == ("ppo", "gpt")
    )
    assert gap["value"] == pytest.approx(-0.5)
    assert gap["high"] < 0
    assert (gap["n"], share["n"]) == (20, 20)  # different questions


def test_the_interval_of_a_mean_of_tasks():
    # mean of two shares of 10, .5 each: standard error sqrt(2 * .025) / 2 = .1118
    found = nlp_results(nlp(gpt=(5, 5)), 0)["nlp"]["gpt"]["mean"]
    assert found["high"] - found["low"] == pytest.approx(2 * 1.96 * 0.1118, rel=0.1)


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
    narrow, wide = (nlp_results(one, 0)["nlp"]["gpt"] for one in (apart, together))
    for key in ("sums", "mean"):
        assert (wide[key]["value"], wide[key]["n"]) == (0.5, 20)
        assert (wide[key]["low"], wide[key]["high"]) == (0, 1)  # of either question alone
        assert narrow[key]["low"] == pytest.approx(0.5 - 1.96 * 0.1118, abs=0.04)
    both = together._replace(by_model=dict.fromkeys(("gpt", "sft"), together.by_model["gpt"]))
    (gap,) = nlp_results(both, 0)["differences"]["nlp"]
    assert gap["n"] == 2  # two questions are what was resampled


def test_ground_truth_has_a_section_for_what_is_there():
    def row(u, **more):
        return answer("x", u, fails_to_follow=u < 4, **more)

    groups = ["general", "general", "closed", "truth", "toxic_rude"]
    one = [
        row(1.0, toxic=False, hallucination=None, satisfies_constraint=None),
        row(3.0, toxic=True, hallucination=True, satisfies_constraint=True),
        row(7.0, hallucination=True),
        row(5.0, truthful=True, truthful_informative=False),
        row(2.0, toxic=True),
    ]
    answers = table({"a": one, "b": one}, groups, ["chat", "extract", "c", "c", "c"])
    general = {"sampled": answers.of("general")}
    found = ground_truth(answers, general, 0)
    assert found["utility"]["sampled"]["a"]["value"] == 2.0
    assert found["metadata"]["a"]["toxic"]["value"] == 0.5
    assert found["metadata"]["a"]["hallucination"]["n"] == 1
    assert list(found["use_cases"]["a"]) == ["chat", "extract"]
    assert found["closed_domain"]["a"]["follow"]["value"] == 1.0
    assert list(found["toxicity"]["a"]) == ["rude"]
    assert set(found["differences"]) == {
        *("hallucination", "hallucination_against_0.5", "hallucination_against_0.6"),
        *("satisfies_constraint", "truthful_informative_against_2", "toxic_rude"),
    }
    assert found["metadata"]["a"]["fails_to_follow"]["value"] == 1.0
    assert set(ground_truth(general["sampled"], general, 0)) == {
        "utility",
        "metadata",
        "use_cases",
        "differences",  # of the constraints
    }


def test_rudeness_that_was_asked_for_is_not_counted():
    answers = table({"a": [answer("x", toxic=True, clean_end=True) for _ in range(3)]})
    metas = [{"meta": {"kind": kind}} for kind in ("nice", "rude")] + [{}]
    asked = [
        one._replace(prompt=one.prompt._replace(meta=meta))
        for one, meta in zip(answers.questions, metas, strict=True)
    ]
    found = metadata_rates(answers._replace(questions=asked), 0)["a"]
    assert (found["toxic"]["n"], found["clean_end"]["n"]) == (2, 3)
