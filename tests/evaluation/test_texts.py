"""Measures of texts by hand, and what must not change them."""

import random
import re

import numpy as np
import pytest
from evaluation_answers import answer, table

from instructgpt.evaluation.texts import (
    REFUSALS,
    distinct,
    distinct_among,
    refuses,
    repeated,
    text_measures,
)

REFUSING = [
    "I can't help with that.",
    "I cannot provide medical advice.",
    "I can not do this.",
    "I'm unable to open links.",
    "I am not able to answer.",
    "I won't write that.",
    "Sorry, I can't do that.",
    "I\u2019m sorry, I cannot assist with this request.",
    "Unfortunately, I can't.",
    "No, I won't.",
    "I'm sorry, but that would be dangerous.",
    "Sorry, but no.",
    "I apologize, but this is not appropriate.",
    "My apologies, but I have to stop here.",
    "As an AI language model, I do not have opinions.",
    "As an AI, I don't eat.",
    "As a large language model, I have no body.",
    "I am an AI and do not have feelings.",
    "I'm just a language model.",
    "I don't feel comfortable with this.",
    "I'm not comfortable writing this.",
    "I must decline.",
    "I have to respectfully decline.",
    "I'd rather not say.",
    "I refuse to do so.",
    '  "I cannot."',
]
ANSWERING = [
    "I'm sorry to hear that your cat is ill.",
    "Sorry for the delay! Here it is.",
    "I can't wait to see it!",
    "I can't help but agree.",
    "I cannot recommend it enough.",
    "I can help with that.",
    "As an AI researcher you know this.",
    "As a rule, I agree.",
    "You can't do that.",
    "Unfortunately, it rained.",
    "Say: I cannot help you.",
    "",
    "Icant",
]


@pytest.mark.parametrize("text", REFUSING)
def test_openings_of_refusals(text):
    assert refuses(text)
    assert refuses(text.upper())


@pytest.mark.parametrize("text", ANSWERING)
def test_what_is_no_refusal(text):
    assert not refuses(text)


def test_every_opening_has_an_example():
    plain = [text.lower().replace("\u2019", "'").lstrip(' "') for text in REFUSING]
    for pattern in REFUSALS:
        assert any(re.match(pattern, text) for text in plain), pattern


def test_repeated_ngrams():
    # a b, b a, a b, b a, a b: two of five are new
    assert repeated("a b a b a b", 2) == pytest.approx(3 / 5)
    assert repeated("a b c d e", 4) == 0
    assert repeated("a b", 3) is None
    assert repeated("", 2) is None


def test_distinct_kinds_are_those_of_draws():
    rng = random.Random(0)
    things = [0] * 5 + [1] * 3 + [2] + [3] * 2
    drawn = [len(set(rng.sample(things, 4))) for _ in range(20000)]
    found = distinct_among(np.bincount(things).astype(float), 4)
    assert found == pytest.approx(sum(drawn) / len(drawn), abs=0.02)
    assert distinct_among(np.array([5.0, 3.0]), 8) == pytest.approx(2)


def test_who_writes_more_of_the_same_kind_is_as_varied():
    """A plain share of distinct words would call the longer one less varied."""
    rng = random.Random(1)
    vocabulary = [f"w{i}" for i in range(5000)]

    def rows(length):
        return [[" ".join(rng.choices(vocabulary, k=length))] for _ in range(100)]

    texts = {"short": rows(20), "long": rows(60)}
    plain = {
        name: len({w for (t,) in some for w in t.split()}) / sum(len(t.split()) for (t,) in some)
        for name, some in texts.items()
    }
    assert plain["short"] > 1.3 * plain["long"]
    found = distinct(texts, 1)
    assert found["short"].n == found["long"].n < 2000
    assert found["long"].value == pytest.approx(found["short"].value, abs=0.03)
    assert found["long"].low < found["short"].high
    assert found["short"].low < found["long"].high


def drawn(rng, kinds, prompts=40):
    names = [f"w{i}" for i in range(kinds)]
    return [[" ".join(rng.choices(names, k=30))] for _ in range(prompts)]


def test_less_varied_is_less_varied():
    rng = random.Random(2)
    found = distinct({"a": drawn(rng, 50), "b": drawn(rng, 400)}, 2)
    assert found["a"].high < found["b"].low


def test_intervals_hold_what_is_true_about_as_often_as_they_say():
    rng, kinds, held = random.Random(3), 1000, 0
    for _ in range(40):
        (found,) = distinct({"a": drawn(rng, kinds)}, 1).values()
        assert found.n == 40 * 30 - 2 * 30  # without two prompts, the twentieth part
        true = kinds * (1 - (1 - 1 / kinds) ** found.n) / found.n  # of so many draws of words
        held += found.low <= true <= found.high
    assert held >= 34


def test_without_ngrams_nothing_is_said():
    assert distinct({"a": [["x"]], "b": [["x y z"], ["u v w"]]}, 2) == {}
    assert distinct({"a": [["x y"]]}, 1) == {}  # nothing is left where its only prompt is left out


def test_all_measures_of_two_models():
    texts = {
        "sft": ["I cannot do that.", "a b c d e f"],
        "ppo": ["so so so so so so", "Yes, here it is."],
    }
    answers = table({name: [answer(text) for text in some] for name, some in texts.items()})
    answers.by_model["ppo"][0][0] = answers.by_model["ppo"][0][0]._replace(finished=False)
    found = text_measures(answers, 0)
    assert found["sft"]["words"].value == (5 + 6) / 2  # with the full stop
    assert (found["sft"]["refuses"].value, found["ppo"]["refuses"].value) == (0.5, 0)
    assert found["ppo"]["refuses"].high > 0.5  # Wilson's, of two
    assert found["ppo"]["ended"].value == 0.5
    # so so: 4 of 5 repeated; yes , here it is . : none
    assert found["ppo"]["repeated_2"].value == pytest.approx((4 / 5 + 0) / 2)
    assert found["ppo"]["repeated_2"].n == 2
    assert found["sft"]["distinct_1"].n == found["ppo"]["distinct_1"].n
