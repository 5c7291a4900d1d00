"""Decontamination: against the definition, in all formats, and what short texts do."""

import json
import random

import pytest
from hygiene_rows import comparison, demonstration, document, prompt

from instructgpt.hygiene.contamination import Decontamination
from instructgpt.types import UserError

QUESTION = "If a train leaves Rome at noon and goes 90 km an hour, when is it in Naples, 225 km on?"
SHORT = "What is the capital of France?"
MIDDLE = "Which planet of our system has the longest day?"  # 9 words


@pytest.fixture
def against(tmp_path):
    def write(*rows, name="eval.jsonl"):
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(path)

    return write


def dropped(rule, row):
    return rule.check(row).row is None


def test_thirteen_words_in_a_row_are_enough_and_twelve_are_not(against):
    rule = Decontamination(against=against({"prompt": QUESTION}))
    words = QUESTION.split()
    assert dropped(rule, prompt(f"Please tell me: {' '.join(words[2:15])}"))
    assert not dropped(rule, prompt(f"Please tell me: {' '.join(words[2:14])}"))
    assert dropped(rule, demonstration("Repeat it.", QUESTION.upper().replace(" ", " ** ")))
    assert not dropped(rule, demonstration(" ".join(words[:9]), " ".join(words[9:])))


def test_the_report_names_the_set_and_shows_the_words(against):
    first = against({"prompt": "Something else altogether."}, name="other.jsonl")
    rule = Decontamination(against=[first, against({"prompt": QUESTION}, name="trains.jsonl")])
    verdict = rule.check(prompt(f"Well: {QUESTION}"))
    assert verdict.reasons == ("in trains.jsonl",)
    assert verdict.example == "… if a train leaves rome at noon and goes 90 km an hour …"


def test_texts_of_fewer_words_are_looked_for_whole(against):
    rule = Decontamination(against=against({"prompt": SHORT}, {"prompt": MIDDLE}))
    assert dropped(rule, prompt(f"Tell me: {MIDDLE.lower()} Thanks!"))
    assert not dropped(rule, prompt("Which planet of our system has the longest year?"))
    # A shorter prompt only where it is all that is asked.
    assert dropped(rule, prompt("what is the capital of france"))
    assert not dropped(rule, prompt(f"{SHORT} And of Spain?"))
    assert not dropped(rule, demonstration("Ask me something.", SHORT))


def test_signs_tell_short_sums_apart(against):
    rule = Decontamination(against=against({"prompt": "What is 3 + 4?"}))
    assert dropped(rule, prompt("What is 3 + 4 ?"))
    assert not dropped(rule, prompt("What is 3 - 4?"))


@pytest.mark.parametrize(
    "row",
    [
        {"question": "Which?", "choices": [{"text": QUESTION}, "b"], "answer": 1},
        {
            "messages": [
                {"role": "user", "content": QUESTION},
                {"role": "assistant", "content": "a"},
            ]
        },
        {"prompt": "Which?", "chosen": QUESTION, "rejected": "No."},
        {"text": QUESTION},
    ],
)
def test_all_texts_of_any_format_count(against, row):
    rule = Decontamination(against=against(row))
    assert dropped(rule, comparison("Say it.", ["No.", f"So: {QUESTION}"], [1, 2]))
    assert dropped(rule, document(f"It is said: {QUESTION}"))
    assert not dropped(rule, prompt("Which one?"))


def test_it_is_what_comparing_all_runs_finds(against):
    rng = random.Random(2)

    def text(length):
        return [rng.choice("abcd") for _ in range(length)]

    sets = [text(rng.randrange(1, 40)) for _ in range(30)]
    rule = Decontamination(
        against=against(*({"text": " ".join(one)} for one in sets)), ngram=6, shortest=4
    )
    rows = [text(rng.randrange(1, 30)) for _ in range(200)]

    def has(longer, run):
        return any(longer[at : at + len(run)] == run for at in range(len(longer)))

    runs = [one[at : at + 6] for one in sets if len(one) >= 4 for at in range(max(1, len(one) - 5))]
    expected = [any(has(row, run) for run in runs) for row in rows]
    found = [one.row is None for one in rule.check_all([document(" ".join(row)) for row in rows])]
    assert found == expected
    assert 20 < sum(expected) < 180


def test_what_cannot_be(against, tmp_path):
    rule = Decontamination(against=against({"text": "a"}), shortest=14)
    with pytest.raises(UserError, match=r"decontaminate.shortest must be from 1 to .*, got 14"):
        rule.check_options("prompts")
    with pytest.raises(UserError, match="no-such"):
        Decontamination(against=str(tmp_path / "no-such.jsonl")).check_options("prompts")
    (tmp_path / "bad.jsonl").write_text("{\n")
    with pytest.raises(UserError, match=r"bad.jsonl:1"):
        Decontamination(against=str(tmp_path / "bad.jsonl")).check_options("prompts")
    assert not Decontamination().is_on("prompts")
