"""The files of the world: splits, secrets, sizes, formats, tokens."""

import json
import os
import random
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from refusals import parse_demonstration, parse_prompt, parse_text

import instructgpt.miniature.world
from instructgpt.data.files import Item
from instructgpt.miniature.world.dataset import People, Sizes, draw, files, misconceptions, split_of
from instructgpt.miniature.world.grader import grade
from instructgpt.miniature.world.knowledge import HELD_OUT, MISCONCEPTIONS, question
from instructgpt.miniature.world.prompts import (
    CATEGORIES,
    FORMS,
    MIXES,
    TOXIC_KINDS,
    make_task,
    without_greeting,
)
from instructgpt.miniature.world.responses import STYLES
from instructgpt.miniature.world.tasks import NLP_TASKS
from instructgpt.miniature.world.text import to_text, to_tokens
from instructgpt.miniature.world.tokenizer import UNKNOWN, make_tokenizer, vocabulary
from instructgpt.miniature.world.web import DOCUMENTS

ROOT = Path(__file__).parents[2]
SIZES = Sizes(
    documents=3000,
    validation_documents=50,
    demonstrations=600,
    validation_demonstrations=50,
    label_prompts=800,
    rl_prompts=1500,
    validation_prompts=100,
    general=150,
    closed=20,
    truth=60,
    toxic=40,
    nlp=30,
)
PEOPLE = People(mix="paper", toxic_share=0.06, good_share=0.3, short_share=0.35)
TRAINING = ("demonstrations", "prompts_label", "prompts_rl")
VALIDATION = ("demonstrations_validation", "prompts_validation")


@pytest.fixture(scope="module")
def world():
    return files(0, SIZES, PEOPLE)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    make_tokenizer().save_pretrained(folder)
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def test_sizes(world):
    assert {name: len(rows) for name, rows in world.items()} == {
        "text": 3000,
        "text_validation": 50,
        "demonstrations": 600,
        "demonstrations_validation": 50,
        "prompts_label": 800,
        "prompts_rl": 1500,
        "prompts_validation": 100,
        "evaluation": 150 + 4 * 20 + 60 + 3 * 40,
        "evaluation_few_shot": 150 + 4 * 20 + 60 + 3 * 40,
        "nlp": 3 * 30,
    }
    sets = Counter(row["set"] for row in world["evaluation"])
    assert (sets["general"], sets["truth"]) == (150, 60)
    assert sets["closed"] == 80
    assert [sets[f"toxic_{kind}"] for kind in TOXIC_KINDS] == [40, 40, 40]
    assert Counter(row["set"] for row in world["nlp"]) == {f"nlp_{t}": 30 for t in NLP_TASKS}


def test_ids_are_unique(world):
    for rows in world.values():
        ids = [row["id"] for row in rows if "id" in row]
        assert len(set(ids)) == len(ids)
    everywhere = [row["id"] for name in TRAINING + VALIDATION for row in world[name]]
    assert len(set(everywhere)) == len(everywhere)


def test_the_splits_share_no_prompt(world):
    def request(row):  # whoever asks
        return to_text(without_greeting(to_tokens(row["prompt"])))

    named = [*TRAINING, *VALIDATION, "evaluation"]
    prompts = {name: {request(row) for row in world[name]} for name in named}
    training = set().union(*(prompts[name] for name in TRAINING))
    validation = set().union(*(prompts[name] for name in VALIDATION))
    evaluation = prompts["evaluation"]
    assert not training & validation
    assert not training & evaluation
    assert not validation & evaluation
    drawn = {request(row) for row in world["evaluation"] if row["set"] != "truth"}
    assert {split_of(to_tokens(prompt)) for prompt in drawn} == {"evaluation"}
    for prompt in training | validation:
        assert split_of(to_tokens(prompt)) != "evaluation"


def test_a_fifth_of_all_prompts_is_kept_for_evaluation():
    rng = random.Random(0)
    tasks = [make_task(rng).tokens for _ in range(8000)]
    texts = {to_text(without_greeting(tokens)) for tokens in tasks}
    shares = Counter(split_of(to_tokens(text)) for text in texts)
    # three standard errors of 20 % of some 5,000 texts are 1.7 points
    assert shares["evaluation"] / len(texts) == pytest.approx(0.2, abs=0.02)
    assert shares["validation"] / len(texts) == pytest.approx(0.1, abs=0.015)


def test_evaluation_prompts_do_not_repeat(world):
    for name in ("evaluation", "prompts_validation"):
        by_set = Counter((row.get("set"), row["prompt"]) for row in world[name])
        repeated = sum(count - 1 for count in by_set.values())
        assert repeated <= 0.02 * len(world[name])


def test_a_set_that_has_all_prompts_there_are_repeats_them():
    tasks = [make_task(random.Random(i)) for i in range(400)]
    few = [task for task in tasks if split_of(task.tokens) == "evaluation"][:3]
    drawn = list(draw(random.Random(0), 30, "evaluation", lambda rng: rng.choice(few)))
    assert len(drawn) == 30


def test_held_out_misconceptions_are_nowhere_but_in_their_set(world):
    asked = {" ".join(question(fact)) for fact in HELD_OUT}
    for name in (*TRAINING, *VALIDATION):
        for row in world[name]:
            assert tuple(row["meta"].get("fact", ())) not in HELD_OUT
            assert not any(secret in row["prompt"] for secret in asked)
    for row in world["evaluation"]:
        is_secret = tuple(row["meta"].get("fact", ())) in HELD_OUT
        assert is_secret == (row["set"] == "truth")
    assert {
        tuple(r["meta"]["fact"]) for r in world["evaluation"] if r["set"] == "truth"
    } == HELD_OUT
    told = misconceptions()
    assert sum(row["held_out"] for row in told) == 17
    assert len(told) == len(MISCONCEPTIONS)
    assert all(row["true"] != row["believed"] for row in told)


def test_the_mix_is_that_of_table_1(world):
    rows = [row for row in world["prompts_rl"] if row["category"] != "toxic"]
    assert 1 - len(rows) / 1500 == pytest.approx(0.06, abs=0.02)
    counts = Counter(row["category"] for row in rows)
    for category, share in zip(CATEGORIES, MIXES["paper"], strict=True):
        assert counts[category] / len(rows) == pytest.approx(share / 99.9, abs=0.04)
    kinds = {row["meta"]["kind"] for row in world["prompts_rl"] if row["category"] == "toxic"}
    assert kinds == {"none", "respectful", "rude"}
    assert not any(row["category"] == "toxic" for row in world["demonstrations"])


def test_the_quality_of_demonstrations(world):
    styles = Counter(row["style"] for row in world["demonstrations"])
    for style, share in {"good": 0.3, "short": 0.35, "sloppy": 0.35}.items():
        assert styles[style] / 600 == pytest.approx(share, abs=0.06)  # three standard errors
    only = files(0, SIZES, PEOPLE._replace(good_share=0.0, short_share=1.0))["demonstrations"]
    assert {row["style"] for row in only} == {"short"}


def test_few_shot_rows_are_the_same_but_for_the_prompt(world):
    for plain, shown in zip(world["evaluation"], world["evaluation_few_shot"], strict=True):
        assert {**shown, "prompt": ""} == {**plain, "prompt": ""}
        assert shown["prompt"].endswith(":")
        assert plain["prompt"].removesuffix("\n") in shown["prompt"]


def test_a_file_does_not_depend_on_the_sizes_of_others(world):
    more = files(0, SIZES._replace(documents=10, demonstrations=700, general=10, nlp=40), PEOPLE)
    assert more["text"] == world["text"][:10]
    assert more["demonstrations"][:600] == world["demonstrations"]
    assert more["prompts_rl"] == world["prompts_rl"]
    for name in ("closed", "truth", "toxic_none", "toxic_rude"):
        ours, theirs = (
            [row for row in files_["evaluation"] if row["set"] == name] for files_ in (world, more)
        )
        assert ours == theirs


def test_another_seed_is_another_world_with_the_same_facts(world):
    other = files(1, SIZES, PEOPLE)
    for name in world:
        assert other[name][:20] != world[name][:20]


def test_rows_are_in_the_public_formats(world):
    for name, rows in world.items():
        parse = parse_text if name.startswith("text") else parse_prompt
        parse = parse_demonstration if name.startswith("demonstrations") else parse
        for i, row in enumerate(rows[:300]):
            item = Item(f"{name}:{i}", name, json.loads(json.dumps(row)))
            parsed, form = parse(item)
            assert form in ("text", "prompt", "demonstration (prompt, response)")
            if form != "text":
                assert parsed.prompt.id == row["id"]
                assert parsed.prompt.meta["meta"] == row["meta"]
                grade(parsed.prompt.meta["meta"], "tom .", True)


def test_every_word_has_a_token_and_comes_back(world, tokenizer):
    unknown = tokenizer.convert_tokens_to_ids(UNKNOWN)
    texts = [
        text
        for rows in world.values()
        for row in rows
        for key, text in row.items()
        if key in ("text", "prompt", "response")
    ]
    assert len(texts) > 6000
    for text, ids in zip(texts, tokenizer(texts)["input_ids"], strict=True):
        assert unknown not in ids
        assert tokenizer.convert_ids_to_tokens(ids) == to_tokens(text)
        assert tokenizer.decode(ids) == text
        assert to_text(to_tokens(text)) == text


def test_the_tokenizer(tokenizer):
    assert (tokenizer.pad_token, tokenizer.eos_token, tokenizer.unk_token) == (
        "<pad>",
        "<eos>",
        "<unk>",
    )
    assert tokenizer.bos_token is None
    assert len(tokenizer) == 3 + len(vocabulary())
    rng = random.Random(0)
    for _ in range(500):  # any order, as a model may write
        tokens = rng.choices([*vocabulary()[:3], "\n", "\n", "^"], k=rng.randrange(1, 9))
        ids = tokenizer.convert_tokens_to_ids(tokens)
        assert to_tokens(tokenizer.decode(ids)) == tokens
    ids = [*tokenizer("the cat")["input_ids"], tokenizer.eos_token_id, tokenizer.pad_token_id]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "the cat"


def test_the_docstring_has_an_example_of_each(tokenizer):
    examples, name = {}, ""
    for line in re.findall(
        r"^    (?=\S|\s)(.*)$", instructgpt.miniature.world.__doc__, re.MULTILINE
    ):
        if not line.startswith(" "):
            name = line.split()[0]
            line = line.removeprefix(name)
        examples[name] = f"{examples.get(name, '')} {line}"
    wanted = [*DOCUMENTS, *CATEGORIES, *FORMS, *STYLES, "words", "capitals", "avoid", "one_word"]
    wanted += ["general", "closed", "truth", *(f"toxic_{kind}" for kind in TOXIC_KINDS)]
    wanted += [f"nlp_{task}" for task in NLP_TASKS]
    assert set(examples) == set(wanted) - {"plain"}
    for name, example in examples.items():
        if name not in ("general", "closed"):
            ids = tokenizer(example.replace("=>", "").replace("|", "\n"))["input_ids"]
            assert tokenizer.unk_token_id not in ids, example
    assert examples["truth"].strip() in {" ".join(question(fact)) for fact in HELD_OUT}


def test_the_vocabulary_does_not_depend_on_the_order_of_sets():
    """Sets of words are ordered differently in every process."""
    code = """if True:
        import random
        from instructgpt.miniature.world.fluency import _known_steps
        from instructgpt.miniature.world.tokenizer import vocabulary
        from instructgpt.miniature.world.web import web_document
        texts = [web_document(random.Random(i)) for i in range(300)]
        print(vocabulary(), sorted(_known_steps()), texts)"""
    prints = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(prints) == 1
