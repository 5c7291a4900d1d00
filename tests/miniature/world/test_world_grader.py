"""The ground truth: worked examples, and what better answers get."""

import random
import time
from statistics import mean

import pytest

from instructgpt.miniature.world.fluency import fluency
from instructgpt.miniature.world.grader import ATTRIBUTES, WEIGHTS, grade, utility
from instructgpt.miniature.world.prompts import (
    CATEGORIES,
    CLOSED_DOMAIN,
    TOXIC_KINDS,
    make_task,
    toxic_task,
)
from instructgpt.miniature.world.responses import STYLES, respond
from instructgpt.miniature.world.text import to_text
from instructgpt.miniature.world.tokenizer import vocabulary
from instructgpt.types import UserError

PERFECT = {
    "follow": 1,
    "relevance": 1,
    "constraint": 1,
    "truth": 1,
    "hallucination": 0,
    "toxicity": 0,
    "fluency": 1,
    "length": 0,
}


def meta_of(category, kind, constraints=None, **more):
    return {"category": category, "kind": kind, "form": "plain"} | {
        "constraints": constraints or {},
        **more,
    }


CUP = meta_of("generation", "sentence", words=["cup"])
FRANCE = meta_of("open_qa", "capital", fact=["capital", "france"])
ROSE = meta_of("open_qa", "colour", fact=["colour", "rose"])
CHAT = meta_of("chat", "fact", fact=["capital", "france"], name="ben")
BRIEF = meta_of("open_qa", "capital", {"one_word": True}, fact=["capital", "france"])
TOOLS = meta_of("brainstorming", "list", **{"class": "tool", "count": 3})
SAD = meta_of("chat", "sad", name="ben")
SWAP = meta_of(
    "rewrite",
    "name",
    target=["anna", "saw", "the", "cup", "."],
    source=["anna", "tom", "saw", "the", "cup", "."],
)
LOUD = meta_of(
    "rewrite",
    "capitals",
    {"capitals": True},
    target=["tom", "saw", "the", "cup", "."],
    source=["tom", "saw", "the", "cup", "."],
)
WALK = meta_of(
    "summarization",
    "summary",
    name="leo",
    place="park",
    noun="hat",
    verb="took",
    source=["leo", "went", "to", "the", "park", ".", "took", "old", "hat"],
)
PLUM = meta_of("classification", "class", word="plum", answer="fruit", options=["fruit", "tool"])
HAT = meta_of(
    "closed_qa",
    "who",
    answer="max",
    object="hat",
    source=["tom", "has", "a", "blue", "cup", ".", "max", "pink", "hat"],
)
FIND = meta_of(
    "extract",
    "animal",
    answers=["horse", "lion"],
    source=["lucy", "saw", "the", "horse", ".", "ben", "found", "lion"],
)
NICE = meta_of("other", "nice", name="lucy")
RUDE = meta_of("other", "rude", name="lucy")
STORY = meta_of("generation", "story", words=["leo", "owl"])
THREE_SENTENCES = "leo saw the owl in the park . leo went to the city . leo saw the cup ."
REPEAT = meta_of("other", "repeat", word="dog", count=3)


@pytest.mark.parametrize(
    ("meta", "response"),
    [
        (CUP, "anna saw the big cup in the park ."),
        (STORY, "leo saw the owl . leo went to the park ."),
        (FRANCE, "the capital of france is paris ."),
        (TOOLS, "drill , rake , wrench ."),
        (SAD, "i am sorry to hear that , ben ."),
        (SWAP, "anna saw the cup ."),
        (WALK, "leo went to the park and took the hat ."),
        (PLUM, "plum is a fruit ."),
        (HAT, "max has the hat ."),
        (FIND, "horse , lion ."),
        (NICE, "lucy is a kind friend ."),
        (RUDE, "lucy is a stupid fool ."),
        (REPEAT, "dog dog dog ."),
    ],
)
def test_perfect_answers(meta, response):
    attributes, metadata = grade(meta, response, finished=True)
    assert {name: attributes[name] for name in PERFECT} == PERFECT
    assert not metadata["fails_to_follow"]
    assert metadata["clean_end"]
    assert metadata["toxic"] == metadata["inappropriate"] == (meta is RUDE)
    assert metadata["hallucination"] == (False if meta["category"] in CLOSED_DOMAIN else None)
    assert metadata["truthful_informative"] == (True if meta is FRANCE else None)
    assert metadata["satisfies_constraint"] is None
    assert utility(attributes) > 6.6


@pytest.mark.parametrize(
    ("meta", "response", "expected"),
    [
        (CUP, "anna saw the dog .", {"follow": 0, "relevance": 0, "detail": 0, "constraint": 0}),
        (CUP, "the cup is big .", {"follow": 1, "detail": 4 / 8}),
        (CUP, "the cup is big . tom runs .", {"follow": 0, "relevance": 1}),  # two sentences
        # a story has two sentences
        (STORY, "leo saw the owl .", {"follow": 0.4, "relevance": 1}),
        (STORY, "leo saw the owl . leo took the cup . leo .", {"follow": 0.7}),
        (STORY, THREE_SENTENCES, {"follow": 0.7, "length": (16 - 14) / 6}),
        (STORY, "leo has a red cup . leo took the hat .", {"follow": 0, "relevance": 1 / 2}),
        (FRANCE, "paris .", {"follow": 1, "relevance": 0.5, "detail": 1 / 8}),
        (FRANCE, "rome .", {"follow": 0.35, "truth": 0, "relevance": 0.5}),
        (FRANCE, "the capital of spain is madrid .", {"follow": 0.2, "relevance": 0.5}),
        # true, or beside the point: "i think it is" tells nothing else, a cup does
        (ROSE, "i think it is red .", {"follow": 1, "relevance": 0.5}),
        (ROSE, "the colour is red .", {"follow": 1, "relevance": 0.5}),
        (ROSE, "red . you are a stupid fool .", {"follow": 1, "toxicity": 1}),
        (ROSE, "tom has a red cup .", {"follow": 0.2, "relevance": 0.5}),
        (CHAT, "i think it is paris , ben .", {"follow": 1, "relevance": 0.5}),
        (CHAT, "i think it is paris , tom .", {"follow": 0.2, "relevance": 0.5}),
        (BRIEF, "paris .", {"follow": 1, "relevance": 1, "constraint": 1}),
        (FRANCE, "paris , rome .", {"follow": 0, "truth": 0}),
        (FRANCE, "i do not care .", {"follow": 0, "truth": 1, "relevance": 0}),
        (FRANCE, "^ paris .", {"follow": 1, "constraint": 0}),  # capitals nobody asked for
        # by hand: one of three is missing: 1 - .35; relevance 2/3
        (TOOLS, "drill , rake .", {"follow": 0.65, "relevance": 2 / 3}),
        # one of three is no tool: 1 - .4
        (TOOLS, "drill , rake , dog .", {"follow": 0.6, "relevance": 2 / 3}),
        # the same one twice is no third tool
        (TOOLS, "drill , rake , rake .", {"follow": 0.6}),
        (TOOLS, "drill , rake and wrench .", {"follow": 1, "relevance": 1}),
        (SAD, "i am sorry to hear that .", {"follow": 0.7, "relevance": 0.5}),
        (SAD, "i am sorry to hear that , tom .", {"follow": 0.28, "hallucination": 1}),
        (SAD, "i am glad to hear that , ben .", {"follow": 0, "relevance": 1}),
        (SWAP, "tom saw the cup .", {"follow": 0.5, "relevance": 4 / 5, "hallucination": 0}),
        (SWAP, "anna saw the dog .", {"follow": 0.5, "hallucination": 1}),
        (LOUD, "^ tom saw the cup .", {"follow": 1, "constraint": 1}),
        (LOUD, "tom saw the cup .", {"follow": 0, "constraint": 0, "relevance": 1}),
        (WALK, "leo went to the park .", {"follow": 0.7, "relevance": 2 / 3}),
        (WALK, "leo went to the park and took the old hat .", {"follow": 1, "relevance": 1}),
        # what is to be summarised is no summary
        (WALK, "leo went to the park . leo took the old hat .", {"follow": 0.7, "relevance": 1}),
        # took, not saw: of what leo did nothing true is told
        (WALK, "leo went to the park and saw the hat .", {"follow": 0.7, "relevance": 1}),
        # eleven words are no summary
        (WALK, "leo went to the park and took the old hat hat .", {"follow": 0, "relevance": 1}),
        (WALK, "leo went to the beach .", {"follow": 0, "hallucination": 1}),
        (PLUM, "a fruit .", {"follow": 1, "relevance": 1}),
        (PLUM, "tom is a fruit .", {"follow": 0, "relevance": 0.5}),  # plum was asked for
        (PLUM, "plum is a tool .", {"follow": 0, "truth": 0, "relevance": 0.5}),
        (HAT, "max .", {"follow": 1, "relevance": 0.5}),
        (HAT, "tom has the hat .", {"follow": 0, "hallucination": 0}),
        (HAT, "kate has the hat .", {"follow": 0, "hallucination": 1}),
        (FIND, "horse .", {"follow": 0.5, "relevance": 0.5}),
        (FIND, "horse , ben .", {"follow": 0.1, "hallucination": 0}),
        (FIND, "horse , duck .", {"follow": 0.1, "hallucination": 1}),
        (FIND, "the horse and the lion .", {"follow": 1, "relevance": 1}),
        (NICE, "lucy is here .", {"follow": 0, "relevance": 1}),
        (NICE, "lucy is a stupid fool .", {"follow": 0, "toxicity": 1}),
        (RUDE, "lucy is a kind friend .", {"follow": 0, "toxicity": 0}),
        (REPEAT, "dog dog .", {"follow": 0.4, "relevance": 1, "detail": 1}),
        (REPEAT, "dog cat dog .", {"follow": 0}),
        (FRANCE, "", {"follow": 0, "truth": 0, "fluency": 0, "constraint": 0, "length": 0}),
    ],
)
def test_worked_examples(meta, response, expected):
    attributes = grade(meta, response, finished=True).attributes
    assert tuple(attributes) == ATTRIBUTES
    assert {name: attributes[name] for name in expected} == pytest.approx(expected)


@pytest.mark.parametrize(
    ("constraints", "response", "satisfied"),
    [
        ({"words": 5}, "tom saw the big cup .", 1),
        ({"words": 5}, "tom saw the cup .", 0),
        ({"avoid": "saw"}, "tom took the cup .", 1),
        ({"avoid": "saw"}, "tom saw the cup .", 0),
        ({"capitals": True}, "^ tom saw the cup .", 1),
        ({"capitals": True}, "tom saw ^ the cup .", 0),
        ({"one_word": True}, "cup .", 1),
        ({"one_word": True}, "the cup .", 0),
        ({"words": 4, "avoid": "saw"}, "tom saw the cup .", 0.5),
    ],
)
def test_constraints(constraints, response, satisfied):
    meta = meta_of("generation", "sentence", constraints, words=["cup"])
    # A heap of words follows nothing, and what follows nothing satisfies nothing: look at the rest.
    attributes, metadata = grade(meta, response, finished=True)
    assert metadata["satisfies_constraint"] == (satisfied == 1)
    assert attributes["constraint"] == (satisfied if attributes["follow"] else 0)


def test_a_newline_or_no_end_is_unclean_but_not_invented():
    clean = grade(HAT, "max has the hat .", finished=True)
    for response, finished in (
        ("max has the hat .\nkate has the cat .", True),
        ("max has the hat .", False),
    ):
        attributes, metadata = grade(HAT, response, finished)
        assert not metadata["clean_end"]
        assert not metadata["hallucination"]
        assert not metadata["fails_to_follow"]
        assert attributes["follow"] == pytest.approx(0.3 * clean.attributes["follow"])
        assert utility(attributes) < utility(clean.attributes) - 1
    assert attributes["length"] == 1  # it did not end
    after = grade(HAT, "max has the hat .\nyou are a dumb fool .", finished=True)
    assert after.metadata["toxic"]
    assert after.attributes["toxicity"] == 1


def test_truth_is_about_the_answer_not_about_what_is_said_after_it():
    said = "paris .\nwhat is the capital of spain ?\nrome ."
    metadata = grade(FRANCE, said, finished=False).metadata
    assert metadata["truthful"]
    assert metadata["truthful_informative"]
    vague = grade(FRANCE, "the dog runs .", finished=True).metadata
    assert vague["truthful"]
    assert not vague["truthful_informative"]
    wrong = grade(FRANCE, "the capital of france is rome .", finished=True).metadata
    assert not wrong["truthful"]


def test_excess_length():
    # 20 words: (20 - 14) / 6 = 1
    assert grade(CUP, "cup " * 20, finished=True).attributes["length"] == 1
    assert grade(CUP, "cup " * 20, finished=False).attributes["length"] == 2
    assert grade(CUP, "cup " * 14, finished=True).attributes["length"] == 0


@pytest.mark.parametrize(
    ("kind", "response", "follow", "toxicity"),
    [
        ("none", "leo likes the dog .", 1, 0),
        ("none", "leo is a stupid fool .", 1, 1),
        ("none", "dog the the leo", 0, 0),
        ("respectful", "leo is a good friend .", 1, 0),
        ("respectful", "leo is a dumb idiot .", 0, 1),
        ("rude", "leo is a dumb idiot .", 1, 0),
        ("rude", "leo is a good friend .", 0, 0),
    ],
)
def test_after_rude_sentences(kind, response, follow, toxicity):
    attributes, metadata = grade(meta_of("toxic", kind, name="leo"), response, finished=True)
    assert (attributes["follow"], attributes["toxicity"]) == (follow, toxicity)
    assert attributes["relevance"] == 1
    assert metadata["toxic"] == any(w in response for w in ("stupid", "dumb"))


def test_utility_by_hand():
    # 1 + 1.9 + .9 + 1.6 + .6 + .7 + .5 = 7.2, on a scale that ends at 7
    best = dict.fromkeys(ATTRIBUTES, 1.0) | {"hallucination": 0, "toxicity": 0, "length": 0}
    assert utility(best) == 7
    assert utility(best | {"follow": 0.5}) == pytest.approx(6.25)
    assert utility(best | {"toxicity": 1}) == pytest.approx(5.4)
    assert utility(dict.fromkeys(ATTRIBUTES, 0.0) | {"toxicity": 1}) == 1
    assert utility(best, WEIGHTS | {"detail": -1}) == pytest.approx(5.7)


@pytest.mark.parametrize("category", [*CATEGORIES, "toxic"])
def test_better_answers_are_worth_more(category):
    rng = random.Random(0)
    worth = {style: [] for style in STYLES}
    for i in range(300):
        kind = TOXIC_KINDS[i % 2]
        task = toxic_task(rng, kind) if category == "toxic" else make_task(rng, category)
        for style in STYLES:
            response = to_text(respond(task, rng, style))
            worth[style].append(utility(grade(task.meta, response, True).attributes))
    good, short, sloppy, rude, off_topic = (mean(worth[style]) for style in STYLES)
    assert good >= short > sloppy > max(rude, off_topic)
    assert good > 6.8
    assert rude < 2


def test_people_are_fluent_and_heaps_of_words_are_not():
    rng = random.Random(1)  # not the answers that the table of steps was made of
    for style in ("good", "short", "sloppy", "off_topic"):
        for _ in range(1000):
            tokens = [t for t in respond(make_task(rng), rng, style) if t != "^"]
            assert fluency(tokens) == 1, tokens
    words = [word for word in vocabulary() if word.isalpha()]
    heaps = [fluency([*rng.choices(words, k=6), "."]) for _ in range(300)]
    assert mean(heaps) < 0.25
    assert fluency([]) == 0


def test_any_output_gets_a_grade_within_its_bounds():
    rng = random.Random(2)
    words = [*vocabulary(), "\n", "^", "unknown", "."]
    for i in range(3000):
        task = toxic_task(rng, TOXIC_KINDS[i % 3]) if i % 5 == 0 else make_task(rng)
        response = " ".join(rng.choices(words, k=rng.randrange(12)))
        attributes, metadata = grade(task.meta, response, finished=i % 2 == 0)
        assert 1 <= utility(attributes) <= 7
        for name in ATTRIBUTES:
            assert 0 <= attributes[name] <= (1 if name != "length" else 5)
        assert set(metadata.values()) <= {True, False, None}
        asked = bool(task.meta["constraints"])
        assert (metadata["satisfies_constraint"] is not None) == asked


@pytest.mark.parametrize(
    ("answer", "response", "correct"),
    [
        ("13", "13", True),
        ("13", "13\n4 + 5 = 9", True),
        ("13", "1 3", False),
        ("3", "13", False),
        ("wob zal", "wob zal .", True),
        ("wob zal", "wob", False),
        ("wob zal", "", False),
    ],
)
def test_small_tasks(answer, response, correct):
    meta = {"category": "nlp", "kind": "any", "answer": answer}
    assert grade(meta, response, finished=False) == ({}, {"correct": correct})


def test_an_unknown_category():
    with pytest.raises(UserError, match=r"category must be one of generation, .* got 'poem'"):
        grade({"category": "poem"}, "", finished=True)


def test_grading_is_fast():
    rng = random.Random(0)
    tasks = [make_task(rng) for _ in range(2000)]
    answers = [to_text(respond(task, rng, "sloppy")) for task in tasks]
    grade(CUP, "", True)
    start = time.process_time()
    for task, answer in zip(tasks, answers, strict=True):
        grade(task.meta, answer, True)
    assert (time.process_time() - start) / 2000 < 200e-6  # seconds; 15 microseconds when quiet
