"""Trees of messages: which comparisons, demonstrations and prompts they give."""

import json

import pytest
from refusals import item

from instructgpt.data.files import read_file
from instructgpt.data.formats import parse_item
from instructgpt.types import UserError


def message(name, text, *replies, rank=None, **more):
    """A message whose name begins with the first letter of its role."""
    role = "prompter" if name[0] == "p" else "assistant"
    return {"message_id": name, "text": text, "role": role, "rank": rank, **more} | {
        "replies": list(replies)
    }


def tree():
    """Two turns: the best of three ranked replies, and a worse one, are asked something."""
    further = message("p2", "and?", message("a5", "x", rank=1), message("a6", "y", rank=0))
    other = message("p3", "why?", message("a7", "z"), message("a8", "w"))
    return {
        "message_tree_id": "t",
        "tree_state": "ready_for_export",
        "prompt": message(
            *("p1", "hi"),
            message("a1", "worse", message("p4", "no?", message("a9", "v")), rank=1),
            message("a2", "best", further, other, rank=0),
            message("a3", "worst", rank=2),
            message("a4", "unranked"),
            lang="en",
        ),
    }


def parse(value, wanted):
    """Prompts (their texts, with the reply before the last), responses and ranking."""
    parsed = parse_item(item(value), wanted)
    made = [
        (tuple(t["content"] for t in one.row.prompt.messages), one.row.responses, one.row.ranking)
        for one in parsed
        if not one.row.told.left_out
    ]
    return made, parsed


COMPARISONS = [
    # ranks 1, 0, 2 are the second, first and third place; a4 has none
    (("hi",), ["worse", "best", "worst"], [2, 1, 3]),
    (("hi", "best", "and?"), ["x", "y"], [2, 1]),
]


def test_messages_with_two_ranked_replies_are_comparisons():
    made, parsed = parse(tree(), "comparison")
    assert made == COMPARISONS
    assert {one.row.user for one in parsed} == {"t"}
    assert [one.row.prompt.id for one in parsed] == ["p1", "p2"]
    assert parsed[0].row.prompt.meta["lang"] == "en"
    assert parsed[0].format == "OpenAssistant tree (prompt.replies)"
    notes = [note for one in parsed for note in one.row.told.notes]
    assert set(notes) == {"with replies that have no rank: these are left out"}


def test_demonstrations_are_best_replies_after_best_replies():
    """Not p4, which follows a worse reply; not p3, whose replies nobody has ranked."""
    made, _ = parse(tree(), "demonstration")
    assert made == [(("hi",), ["best"], []), (("hi", "best", "and?"), ["y"], [])]
    made, _ = parse(tree(), "prompt")
    asked = [prompt[-1] for prompt, _, _ in made]
    assert asked == ["hi", "no?", "and?", "why?"]


@pytest.mark.parametrize(
    "mark", [{"deleted": True}, {"review_result": False}, {"review_result": None}]
)
def test_what_is_deleted_or_not_accepted_is_left_out_with_what_follows(mark):
    value = tree()
    value["prompt"]["replies"][1] |= mark
    made, parsed = parse(value, "comparison")
    assert made == [(("hi",), ["worse", "worst"], [2, 3])]
    assert any("deleted, or not accepted" in note for note in parsed[0].row.told.notes)
    assert parse(value, "demonstration")[0] == [
        *((("hi",), ["worse"], []), (("hi", "worse", "no?"), ["v"], [])),
    ]
    value["prompt"] |= mark
    made, parsed = parse(value, "prompt")
    assert made == []
    assert [one.row.told.left_out for one in parsed] == [
        "of a tree without a message of a prompter"
    ]


def test_trees_that_give_nothing_are_counted():
    value = tree() | {"tree_state": "aborted_low_grade"}
    for wanted in ("comparison", "demonstration", "prompt"):
        made, (parsed,) = parse(value, wanted)
        assert made == []
        assert parsed.row.told.left_out == "of a tree in the state aborted_low_grade"
    value = {"message_tree_id": "t", "prompt": message("p1", "hi", message("a1", "yo", rank=0))}
    _, (parsed,) = parse(value, "comparison")
    assert parsed.row.told.left_out == "of a tree without a message with two ranked replies"


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"role": "wizard"}, '"prompt.replies[0]" must be a message with a "text", a "role"'),
        ({"rank": "first"}, '"prompt.replies[0]" must be a message'),
        ({"text": None}, '"prompt.replies[0]" must be a message'),
        ({"role": "prompter"}, '"prompt.replies[0].role" must not be that of the message before'),
        ({"replies": "none"}, '"prompt.replies[0].replies" must be a list of messages'),
    ],
)
def test_messages_that_are_none(change, rule):
    value = tree()
    value["prompt"]["replies"][0] |= change
    with pytest.raises(UserError) as error:
        parse(value, "comparison")
    assert str(error.value).startswith(f"dir/a.jsonl:7: {rule}")


def test_a_tree_without_its_name_in_a_table():
    made, parsed = parse(
        {"message_tree_id": "", "prompt": json.dumps(tree()["prompt"])}, "comparison"
    )
    assert made == COMPARISONS
    assert parsed[0].row.user == ""


def test_a_tree_without_its_head():
    value = tree()["prompt"]
    made, parsed = parse(value, "comparison")
    assert made == COMPARISONS
    assert parsed[0].format == "OpenAssistant replies (message_id, text, role, replies)"


# -- messages that stand alone


def flat(message, tree, parent=None):
    """The rows of a table of messages, as the hub has them."""
    about = {key: value for key, value in message.items() if key != "replies"}
    yield {**about, "parent_id": parent, "message_tree_id": tree}
    for reply in message["replies"]:
        yield from flat(reply, tree, message["message_id"])


def read(path):
    told = []
    items = list(read_file(path, told.append))
    return items, told


def test_messages_of_a_table_are_trees(write):
    rows = [*flat(tree()["prompt"], "t"), *flat(tree()["prompt"], "u")]
    (first, second), told = read(write("a.jsonl", rows))
    assert told == [f"{first.origin}: messages that follow one another are put together as trees"]
    assert parse(first.value, "comparison")[0] == COMPARISONS
    assert (first.value["message_tree_id"], second.value["message_tree_id"]) == ("t", "u")
    assert [one.where.rpartition(":")[2] for one in (first, second)] == ["1", "14"]  # a tree has 13
    rows = [{**row, "labels": None, "emojis": {}} for row in rows]
    (again, _), (line,) = read(write("a.json", json.dumps(rows)))
    assert line.endswith("together as trees (columns that are not used: emojis, labels)")
    assert parse(again.value, "comparison")[0] == COMPARISONS


def test_what_is_wrong_with_messages_of_a_table(write):
    rows = list(flat(tree()["prompt"], "t"))
    (first, second), _ = read(write("a.jsonl", [*rows[:3], {**rows[3], "message_tree_id": "u"}]))
    assert first.value["message_tree_id"] == "t"
    rule = '"parent_id" must be the message_id of a message of the same tree, got '
    assert f"a.jsonl:4: {rule}'p4'" in str(second.value)
    away = {**rows[0], "message_tree_id": "u"}
    (*trees, late), _ = read(write("a.jsonl", [rows[0], away, rows[1]]))
    assert [one.value["message_tree_id"] for one in trees] == ["t", "u"]
    assert "a.jsonl:3" in str(late.value)
    assert "(sort the file by it), got 't'" in str(late.value)
    (twice,), _ = read(write("a.jsonl", [rows[0], rows[1], rows[1]]))
    assert "must begin with one message, got one message_id twice" in str(twice.value)
    (two,), _ = read(write("a.jsonl", [rows[0], {**rows[1], "parent_id": None}]))
    assert "must begin with one message, got 2 without a parent" in str(two.value)
    (bad, cut), _ = read(
        write("a.jsonl", "\n".join([json.dumps(rows[0]), "{", json.dumps(rows[1])]))
    )
    assert "a.jsonl:2: malformed JSON" in str(bad.value)
    assert [reply["text"] for reply in cut.value["prompt"]["replies"]] == ["worse"]
