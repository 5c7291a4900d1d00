"""Words, sentences and stories."""

import random
from itertools import product

import pytest

from instructgpt.miniature.world import knowledge
from instructgpt.miniature.world.grammar import SENTENCES, SLOTS, rude_sentence, sentence, story
from instructgpt.miniature.world.text import enumeration, in_capitals, to_text, to_tokens


@pytest.mark.parametrize("length", range(5))
def test_text_and_tokens_are_inverse(length):
    for tokens in product(["a", ".", "^", "\n"], repeat=length):  # every order, 4 ** length
        text = to_text(tokens)
        assert to_tokens(text) == list(tokens)
        assert "  " not in text
        assert " \n" not in text
        assert "\n " not in text


def test_capitals_and_lists():
    assert in_capitals(["tom", ",", "7"]) == ["^", "tom", ",", "7"]
    assert enumeration(["a", "b", "c"]) == ["a", ",", "b", ",", "c", "."]
    assert enumeration(["a"]) == ["a", "."]


def fits(tokens):
    """Whether some pattern makes these tokens: a naive parser."""
    words = tokens[:-1]
    return tokens[-1] == "." and any(
        len(words) == len(pattern.split())
        and all(w in SLOTS.get(p, [p]) for w, p in zip(words, pattern.split(), strict=True))
        for pattern in SENTENCES
    )


@pytest.mark.parametrize(
    ("required", "length", "avoid"),
    [
        ([], None, []),
        (["dog"], 4, []),
        (["dog"], 5, []),
        (["dog"], 7, ["is"]),
        (["box"], None, ["saw"]),
        (["tom"], None, ["the"]),  # only: tom has a red ball .
        (["tom", "dog"], None, ["likes"]),
        (["weak"], None, []),
    ],
)
def test_sentences_keep_what_is_asked(required, length, avoid):
    rng = random.Random(0)
    made = [sentence(rng, required, length, avoid) for _ in range(200)]
    for tokens in made:
        assert fits(tokens)
        assert set(required) <= set(tokens)
        assert not set(avoid) & set(tokens)
        assert length in (None, len(tokens) - 1)
    assert len(set(map(tuple, made))) > 20


def test_every_pattern_is_used():
    rng = random.Random(0)
    lengths = [len(sentence(rng)) - 1 for _ in range(2000)]
    # by hand, of 10 patterns: one has 3 words, two 4, three 5, one 6, two 7, one 8
    for length, patterns in {3: 1, 4: 2, 5: 3, 6: 1, 7: 2, 8: 1}.items():
        assert lengths.count(length) / 2000 == pytest.approx(patterns / 10, abs=0.04)


def test_what_cannot_be_said():
    with pytest.raises(ValueError, match="no sentence has"):
        sentence(random.Random(0), ["tom", "dog"], avoid=["the"])


def test_stories_are_about_somebody():
    rng = random.Random(0)
    tokens = story(rng, "tom", "dog", sentences=3)
    assert tokens.count(".") == tokens.count("tom") == 3
    assert "dog" in tokens[: tokens.index(".")]


def test_rude_sentences():
    rng = random.Random(0)
    said = [rude_sentence(rng, "tom") for _ in range(300)]
    assert all(knowledge.TOXIC & set(tokens) for tokens in said)
    assert 0.5 < sum("tom" in tokens for tokens in said) / 300 < 0.8  # two patterns of three


def test_misconceptions_are_wrong_values_of_the_same_kind():
    assert len(knowledge.TRUTH) == 24 + 22 + 14 + 28
    assert len(knowledge.MISCONCEPTIONS) == 35
    assert len(knowledge.HELD_OUT) == 17
    for (relation, subject), believed in knowledge.MISCONCEPTIONS.items():
        assert believed != knowledge.TRUTH[relation, subject]
        assert believed in knowledge.VALUES[relation]


def test_facts_are_told_apart():
    facts = knowledge.FACTS
    assert set(facts["trained"]) | set(facts["held_out"]) == set(facts["all"])
    assert set(facts["held_out"]) == knowledge.HELD_OUT
    assert not set(facts["trained"]) & knowledge.HELD_OUT
    fact = ("capital", "france")
    assert to_text(knowledge.question(fact)) == "what is the capital of france ?"
    assert to_text(knowledge.statement(fact, "rome")) == "the capital of france is rome ."
