"""Responses that are empty, refuse, or are marked: what is taken out, and what stays."""

import pytest
from hygiene_rows import comparison, demonstration, document, prompt

from instructgpt.hygiene.unsafe import UnsafeResponses
from instructgpt.types import UserError

RULE = UnsafeResponses(refusals=True)


@pytest.mark.parametrize("text", ["...", "?!", " - ", "\n\t", "\u200b\u3000"])
def test_a_response_of_punctuation_is_empty(text):
    assert RULE.check(demonstration("Hi", text)).reasons == ("empty",)
    assert RULE.check(demonstration("Hi", text)).row is None
    assert UnsafeResponses(empty=False).check(demonstration("Hi", text)).row is not None


@pytest.mark.parametrize("text", ["4", "да", "はい", "x", "🙂", "+"])
def test_a_short_answer_is_one(text):
    row = demonstration("2 + 2?", text)
    assert RULE.check(row) == (row, (), "")


def test_a_comparison_loses_what_is_empty_while_two_are_left():
    row = comparison("Hi", ["Hello!", "...", "Go away."], [1, 2, 3])
    verdict = RULE.check(row)
    assert verdict.row.responses == ["Hello!", "Go away."]
    assert verdict.row.ranking == [1, 2]
    assert verdict.reasons == ("empty",)
    assert RULE.check(comparison("Hi", ["Hello!", "..."], [1, 2])).row is None


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't help with that.",
        "As an AI language model, I do not have opinions.",
        "I cannot assist with this request.",
        "Sorry, I am unable to answer.",
        "I\u2019m sorry, I must decline.",
    ],
)
def test_refusals(text):
    assert RULE.check(demonstration("How?", text)).reasons == ("refusal",)
    assert UnsafeResponses().check(demonstration("How?", text)).row is not None  # as in the paper
    longer = f"{text} {'But here is what you can do instead. ' * 10}"
    assert RULE.check(demonstration("How?", longer)).row is not None


@pytest.mark.parametrize(
    "text",
    [
        "I can help with that: open the lid.",
        "I'm sorry for your loss. She was a good dog.",
        "Sorry means that one regrets something.",
        "I cannot recommend this book enough.",
        "I won't lie: it was hard.",
    ],
)
def test_no_refusals(text):
    assert RULE.check(demonstration("How?", text)).row is not None


def test_a_comparison_may_have_a_bad_response_but_not_as_its_best():
    worse = comparison("How?", ["Like this.", "I cannot help with that."], [1, 2])
    better = worse._replace(ranking=[2, 1])
    assert RULE.check(worse).row == worse
    assert RULE.check(better).row is None
    alone = comparison("How?", ["I cannot help with that."], [2])  # judged alone, as bad
    assert RULE.check(alone).row == alone


@pytest.mark.parametrize(
    "meta",
    [{"is_safe": False}, {"flagged": True}, {"toxic": 1}, {"flags": {"unsafe": True}}],
)
def test_what_the_data_mark_as_unsafe(meta):
    assert RULE.check(demonstration("Hi", "Hello", meta=meta)).row is None
    turned = {key: not value for key, value in meta.items() if key != "flags"}
    assert RULE.check(demonstration("Hi", "Hello", meta=turned)).row is not None
    assert (
        UnsafeResponses(flags=None).check(demonstration("Hi", "Hello", meta=meta)).row is not None
    )
    assert RULE.check(prompt("Hi", meta=meta)).row is None


def test_marks_of_each_response_count_for_the_best():
    row = comparison("Hi", ["a", "b"], [1, 2], meta={"is_safe": [True, False]})
    assert RULE.check(row).row is not None
    assert RULE.check(row._replace(ranking=[2, 1])).reasons == ("marked by is_safe",)
    own = UnsafeResponses(flags={"nsfw": True})
    assert own.check(demonstration("Hi", "Hello", meta={"nsfw": True})).row is None
    assert own.check(demonstration("Hi", "Hello", meta={"toxic": 0.2})).row is not None


def test_words_of_a_list(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("damn\nbloody hell\n\n")
    rule = UnsafeResponses(words=str(path))
    assert rule.check(demonstration("Hi", "Well, DAMN it.")).reasons == ("word of the list",)
    assert rule.check(demonstration("Hi", "Bloody hell!")).row is None
    assert rule.check(document("Oh bloody hell.")).row is None
    assert rule.check(demonstration("Hi", "Condemned by damnation.")).row is not None
    assert rule.made_from() == [str(path)]
    path.write_text("\n")
    other = tmp_path / "other.txt"
    other.write_text("\n")
    with pytest.raises(UserError, match="must hold words, one a line, got none"):
        UnsafeResponses(words=str(other)).check_options("prompts")
