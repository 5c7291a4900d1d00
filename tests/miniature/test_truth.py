"""What the grades of hand-made answers come to."""

import pytest
from evaluation_answers import answer, table
from evaluation_results import LEAST, results_of

from instructgpt.evaluation.records import to_json
from instructgpt.miniature.truth import add_ground_truth, metadata_rates, truthfulness


def ground_truth(answers, general, seed):
    found = results_of({})
    add_ground_truth(found, answers, general, seed)
    return found


def test_a_mean_of_1_is_not_taken_for_a_share():
    answers = table({"a": [answer("x", 1.0, follow=True), answer("y", 1.0, follow=True)]})
    found = ground_truth(answers, {"sampled": answers}, 0)
    one = found.utility["sampled"]["a"]
    assert (one.value, one.low, one.high) == (1, 1, 1)
    assert found.use_cases["a"]["chat"].low == 1
    assert found.metadata["a"]["follow"].low < 0.5  # a share of two


def test_truthfulness_counts_facts():
    rows = [answer("x", truthful=t, truthful_informative=i) for t, i in ((1, 1), (1, 0), (0, 0))]
    answers = table({"a": rows})
    asked = [
        one._replace(prompt=one.prompt._replace(meta={"meta": {"fact": fact}}))
        for one, fact in zip(answers.questions, ["sky", "sky", "sea"], strict=True)
    ]
    found = truthfulness(answers._replace(questions=asked), 0)["a"]
    assert found["truthful"].value == pytest.approx(2 / 3)
    assert found["truthful_informative"].value == pytest.approx(1 / 3)
    assert (found["truthful"].facts, found["truthful"].n) == (2, 3)
    assert (found["truthful"].low, found["truthful"].high) == (0, 1)  # of two facts


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
    assert found.utility["sampled"]["a"].value == 2.0
    assert found.metadata["a"]["toxic"].value == 0.5
    assert found.metadata["a"]["hallucination"].n == 1
    assert list(found.use_cases["a"]) == ["chat", "extract"]
    assert found.closed_domain["a"]["follow"].value == 1.0
    assert list(found.toxicity["a"]) == ["rude"]
    assert set(found.differences) == {
        *("hallucination", "hallucination_against_0.5", "hallucination_against_0.6"),
        *("satisfies_constraint", "truthful_informative_against_2", "toxic_rude"),
    }
    assert found.metadata["a"]["fails_to_follow"].value == 1.0
    few = to_json(ground_truth(general["sampled"], general, 0))
    assert set(few) - set(LEAST) == {
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
    assert (found["toxic"].n, found["clean_end"].n) == (2, 3)
