"""Prompts, answers, web and small tasks."""

import json
import random
from collections import Counter

import pytest

from instructgpt.miniature.world.knowledge import HELD_OUT, MISCONCEPTIONS, TOXIC, TRUTH
from instructgpt.miniature.world.prompts import (
    CATEGORIES,
    FEW_SHOT,
    MIXES,
    TOXIC_KINDS,
    few_shot_prefix,
    make_task,
    toxic_task,
)
from instructgpt.miniature.world.responses import STYLES, respond
from instructgpt.miniature.world.tasks import NLP_TASKS, SERIES, ZORG, nlp_item, nlp_prompt
from instructgpt.miniature.world.text import to_text
from instructgpt.miniature.world.web import DOCUMENTS, web_document


@pytest.mark.parametrize("mix", MIXES)
def test_the_mix_of_use_cases(mix):
    rng = random.Random(0)
    counts = Counter(make_task(rng, mix=mix).meta["category"] for _ in range(8000))
    total = sum(MIXES[mix])
    assert total == pytest.approx(100, abs=0.2)  # Table 1 adds up to 99.9
    for category, share in zip(CATEGORIES, MIXES[mix], strict=True):
        # three standard errors of a share of 45.6 % are 1.7 points
        assert counts[category] / 8000 == pytest.approx(share / total, abs=0.018)


def test_table_1():
    shares = dict(zip(CATEGORIES, MIXES["paper"], strict=True))
    assert shares["generation"] == 45.6
    assert shares["extract"] == 1.9


@pytest.mark.parametrize("category", CATEGORIES)
def test_forms_and_ends(category):
    rng = random.Random(1)
    tasks = [make_task(rng, category) for _ in range(1000)]
    forms = Counter(task.meta["form"] for task in tasks)
    expected = {"plain", "user"} - ({"user"} if category == "chat" else set())
    assert set(forms) == expected | ({"few_shot"} if category in FEW_SHOT else set())
    if category in FEW_SHOT:
        assert forms["few_shot"] / 1000 == pytest.approx(0.18, abs=0.04)
    for task in tasks:
        assert task.tokens[-1] in ("\n", ":")
        assert json.loads(json.dumps(task.meta)) == task.meta
        if task.meta["form"] == "few_shot":
            assert task.meta["constraints"] == {}


def test_constraints_are_in_the_text():
    rng = random.Random(2)
    asked = {
        "words": "use exactly {} words .",
        "capitals": "capital letters",
        "avoid": "do not use the word {} .",
        "one_word": "answer in one word .",
    }
    numbers = {4: "four", 5: "five", 7: "seven"}
    seen = Counter()
    for _ in range(4000):
        task = make_task(rng)
        text = to_text(task.tokens)
        for name, value in task.meta["constraints"].items():
            assert asked[name].format(numbers.get(value, value)) in text
            seen[name] += 1
        for name in set(asked) - set(task.meta["constraints"]):
            assert asked[name].split(" {}")[0] not in text
    assert min(seen[name] for name in asked) > 30


@pytest.mark.parametrize("category", ["open_qa", "chat"])
def test_held_out_facts_are_not_asked(category):
    rng = random.Random(3)
    asked = [make_task(rng, category, known="trained").meta for _ in range(2000)]
    facts = {tuple(meta["fact"]) for meta in asked if "fact" in meta}
    assert facts.isdisjoint(HELD_OUT)
    assert len(facts) > 60


def test_no_opposite_is_held_out():
    """Its reverse, which somebody asks for or sees in a rewriting, would tell it."""
    assert {relation for relation, _ in HELD_OUT} == {"capital", "colour", "sound"}
    assert all(value != fact[1] for fact, value in MISCONCEPTIONS.items())


def test_held_out_facts_only():
    rng = random.Random(3)
    asked = {tuple(make_task(rng, "open_qa", known="held_out").meta["fact"]) for _ in range(500)}
    assert asked == HELD_OUT


@pytest.mark.parametrize("kind", TOXIC_KINDS)
def test_prompts_after_rude_sentences(kind):
    rng = random.Random(4)
    for _ in range(100):
        tokens, meta = toxic_task(rng, kind)
        context, *asked = to_text(tokens).removesuffix("\n").split("\n")
        assert TOXIC & set(context.split())
        assert meta["name"] in context.split()
        word = {"none": None, "respectful": "nice", "rude": "rude"}[kind]
        assert asked == ([f"say something {word} about {meta['name']} ."] if word else [])


def test_the_few_shot_prefix():
    shown = (
        "q : what is the opposite of hot ?\na : the opposite of hot is cold .\n"
        "q : write a sentence about a box .\na : anna saw the big box in the park .\n"
    )
    asked = few_shot_prefix([*["list", "two", "tools", "."], "\n"])
    assert to_text(asked) == shown + "q : list two tools .\na :"
    assert to_text(few_shot_prefix(["two", "tools", ":"])) == shown + "two tools :"


def test_answers_by_hand():
    rng = random.Random(0)
    task = make_task(rng, "open_qa")._replace(
        meta={
            "category": "open_qa",
            "kind": "capital",
            "form": "plain",
            "constraints": {},
            "fact": ["capital", "italy"],
        }
    )
    assert ("capital", "italy") not in MISCONCEPTIONS
    assert to_text(respond(task, rng, "good")) == "the capital of italy is rome ."
    assert to_text(respond(task, rng, "short")) == "rome ."
    sloppy = {to_text(respond(task, rng, "sloppy")) for _ in range(200)}
    assert {"i think it is rome .", "everyone says it is rome .", "rome ."} < sloppy
    assert len(sloppy) > 10  # other values and other subjects


def test_rude_answers_are_rude_and_others_are_not():
    rng = random.Random(0)
    for style in STYLES:
        for _ in range(300):
            task = make_task(rng)
            if task.meta["kind"] != "rude":
                assert bool(TOXIC & set(respond(task, rng, style))) == (style == "rude")


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_documents(kind):
    rng = random.Random(0)
    texts = [to_text(web_document(rng, kind)) for _ in range(300)]
    assert all(text.strip() == text and text for text in texts)
    assert len(set(texts)) > 100
    toxic = sum(bool(TOXIC & set(text.split())) for text in texts)
    if kind == "toxic":
        assert toxic == 300
    elif kind not in ("homework", "reading"):
        assert toxic == 0


def test_the_register_decides_whether_the_web_is_right():
    rng = random.Random(0)
    stated = {"encyclopedia": Counter(), "questions": Counter()}
    for kind, counts in stated.items():
        for _ in range(3000):
            text = f" {to_text(web_document(rng, kind))} ".replace("\n", " ")
            for (relation, subject), believed in MISCONCEPTIONS.items():
                if relation == "capital" and f" of {subject} " in text:
                    said = text.split(f" of {subject} ")[1].split(".")[0].split()
                    counts["believed"] += said[-1] == believed
                    counts["true"] += said[-1] == TRUTH[relation, subject]
    shares = {k: c["believed"] / (c["believed"] + c["true"]) for k, c in stated.items()}
    assert shares["encyclopedia"] == pytest.approx(0.08, abs=0.04)
    assert shares["questions"] == pytest.approx(0.85, abs=0.05)


def test_small_tasks_are_right():
    rng = random.Random(0)
    for _ in range(300):
        question, answer = nlp_item(rng, "arithmetic")
        assert [str(eval("".join(question[:-1])))] == answer
        question, answer = nlp_item(rng, "translation")
        assert answer == [ZORG[question[3]], ZORG[question[2]]]  # the noun first
        question, answer = nlp_item(rng, "series")
        first, second, third = map(int, question[2:5])
        assert second - first == third - second == int(answer[0]) - third != 0
    assert len(SERIES) == 2 * (16 + 13 + 10)  # steps 1 to 3, up and down, within 0 to 18


@pytest.mark.parametrize("task", NLP_TASKS)
def test_the_shown_items_do_not_give_the_answer_away(task):
    rng = random.Random(0)
    for _ in range(300):
        text = to_text(nlp_prompt(rng, task).question)
        items = text.split("\n")
        size = 1 if task == "arithmetic" else 2
        asked = "\n".join(items[2 * size :])
        assert len(items) == 3 * size
        assert asked not in "\n".join(items[: 2 * size])
