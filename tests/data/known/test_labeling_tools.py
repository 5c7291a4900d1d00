"""Exports of Label Studio and Argilla: a row for each labeler who answered."""

import pytest
from refusals import item

from instructgpt.data.formats import parse_item
from instructgpt.data.known.label_studio import ORDERED
from instructgpt.types import UserError

PAIR = {"prompt": "q", "response_a": "x", "response_b": "y", "category": "qa"}


def parse(value, wanted="comparison"):
    """Responses, ranking and labeler of each row; why there are none; what is noted."""
    parsed = parse_item(item(value), wanted)
    made = [
        (one.row.responses, one.row.ranking, one.row.labeler)
        for one in parsed
        if not one.row.told.left_out
    ]
    reasons = {one.row.told.left_out for one in parsed} - {""}
    return made, reasons, {note for one in parsed for note in one.row.told.notes}


def task(data, *results, **more):
    """A task of Label Studio with an annotation for each result, by labelers 1, 2, …"""
    annotations = [
        {
            "id": 10 + i,
            "completed_by": i,
            "result": result if isinstance(result, list) else [result],
        }
        for i, result in enumerate(results, 1)
    ]
    return {"id": 5, "data": data, "annotations": annotations, **more}


def result(kind, value, name="control", to="response_a"):
    return {"from_name": name, "to_name": to, "type": kind, "value": {kind: value}}


def side(selected):
    return {"from_name": "p", "to_name": "a,b", "type": "pairwise", "value": {"selected": selected}}


def test_pairwise_by_two_annotators_and_one_who_cancelled():
    value = task(PAIR, side("left"), side("right"), side("left"), predictions=[{"result": []}])
    value["annotations"][2]["was_cancelled"] = True
    value["annotations"][1]["completed_by"] = {"id": 2, "email": "b@x.org"}
    made, _, notes = parse(value)
    assert made == [(["x", "y"], [1, 2], "1"), (["x", "y"], [2, 1], "b@x.org")]
    assert notes == {
        "of tasks with cancelled annotations: left out",
        "of tasks with predictions of a model: not read",
        ORDERED,
    }
    assert [row for row, _, _ in parse(value, "demonstration")[0]] == [["x"], ["y"]]
    assert len(parse(value, "prompt")[0]) == 1


def test_left_is_what_the_task_shows_there_and_no_text():
    pair = {"prompt": "q", "answer2": "two", "answer1": "one"}  # as a database may sort them
    shown = {**side("left"), "to_name": "answer1,answer2"}
    made, _, notes = parse(task(pair, shown))
    assert (made, notes) == ([(["two", "one"], [2, 1], "1")], set())
    about = {"id": 1, "annotator": 1, "annotation_id": 9, "lead_time": 1.5}
    made, _, notes = parse({**pair, **about, "better": "left"})  # which does not say it
    assert (made, notes) == ([(["two", "one"], [1, 2], "1")], {ORDERED})
    named = {"prompt": "q", "right": "one", "left": "two"}
    assert parse(task(named, side("left")))[0] == [(["one", "two"], [2, 1], "1")]
    unknown = {"prompt": "q", "a1": "x", "a2": "y"}
    assert parse(task(unknown, side("left")), "demonstration")[:2] == ([], {"without an answer"})


ITEMS = [{"id": f"i{n}", "title": "", "body": text} for n, text in enumerate("xyz")]
LISTED = {"prompt": "q", "items": ITEMS}


@pytest.mark.parametrize(
    ("data", "results", "responses", "ranking"),
    [
        # the ranker names the best first
        (
            {"prompt": "q", "items": ITEMS},
            result("ranker", {"_": ["i2", "i0", "i1"]}),
            "zxy",
            [1, 2, 3],
        ),
        ({"prompt": "q", "items": ITEMS}, result("ranker", ["i1", "i2", "i0"]), "yzx", [1, 2, 3]),
        (PAIR, result("choices", ["Response B"]), "xy", [2, 1]),
        (PAIR, result("choices", ["tie"]), "xy", [1, 1]),
        (PAIR, [result("rating", 2), result("rating", 4, to="response_b")], "xy", [2, 1]),
    ],
)
def test_what_ranks_responses(data, results, responses, ranking):
    assert parse(task(data, results))[0] == [(list(responses), ranking, "1")]


def test_a_text_is_a_demonstration():
    value = task({"prompt": "q", "category": "qa"}, result("textarea", ["x"]))
    value["annotations"][0]["result"][0]["value"] = {"text": ["x"]}
    assert parse(value, "demonstration")[0] == [(["x"], [], "1")]
    assert parse(value)[1] == {"without a comparison"}


def test_tasks_without_answers_are_counted():
    judged = task({"prompt": "q"}, result("choices", ["Positive"]))  # of the prompt: no response
    assert parse(judged, "demonstration")[:2] == ([], {"without an answer"})
    for value in (task(PAIR), task(PAIR, result("choices", ["interesting"]))):
        assert parse(value)[:2] == ([], {"without an answer"})
    with pytest.raises(UserError, match=r"dir/a.jsonl:7: \"data\" must have a field of the prompt"):
        parse(task({"picture": "x"}, side("left")))


def test_label_studio_in_its_short_form():
    about = {"id": 1, "annotator": 3, "annotation_id": 9, "lead_time": 1.5, "created_at": "now"}
    assert parse({**PAIR, **about, "better": "right"})[0] == [(["x", "y"], [2, 1], "3")]
    assert parse({"prompt": "q", "response": "x", **about}, "demonstration")[0] == [
        (["x"], [], "3")
    ]


FIELDS = {"prompt": "q", "response-1": "x", "response-2": "y"}


@pytest.mark.parametrize(
    ("answer", "ranking"),
    [
        ("response-2", [2, 1]),
        ("response_1", [1, 2]),
        ("tie", [1, 1]),
        (["response-1", "response-2"], [1, 2]),
        ([{"value": "response-1", "rank": 1}, {"value": "response-2", "rank": 1}], [1, 1]),
    ],
)
def test_argilla_records_new_old_and_as_a_table(answer, ranking):
    new = {"preference": [{"value": answer, "user_id": "u", "status": "submitted"}]}
    old = [{"user_id": "u", "values": {"preference": {"value": answer}}, "status": "submitted"}]
    for responses in (new, old):
        value = {"id": "1", "fields": FIELDS, "responses": responses, "metadata": {}}
        assert parse(value)[0] == [(["x", "y"], ranking, "u")]
    table = {
        "id": "1",
        "status": "completed",
        "_server_id": "s",
        **FIELDS,
        "preference.responses": [answer],
        "preference.responses.users": ["u"],
        "preference.responses.status": ["submitted"],
        "preference.suggestion": "response-1",
    }
    assert parse(table)[0] == [(["x", "y"], ranking, "u")]


def test_argilla_ratings_texts_drafts_and_suggestions():
    rated = {
        "rating response-1": [{"value": 2, "user_id": "u"}, {"value": 5, "user_id": "v"}],
        "rating response-2": [{"value": 4, "user_id": "u"}, {"value": 1, "user_id": "v"}],
    }
    value = {
        "fields": FIELDS,
        "responses": rated,
        "suggestions": {"rating response-1": {"value": 1}},
    }
    made, _, notes = parse(value)
    assert made == [(["x", "y"], [2, 1], "u"), (["x", "y"], [1, 2], "v")]
    assert notes == {"of records with suggestions of a model: not read"}
    written = [{"value": "x", "user_id": "u"}, {"value": "z", "user_id": "v", "status": "draft"}]
    value = {"fields": {"prompt": "q"}, "responses": {"answer": written}}
    made, _, notes = parse(value, "demonstration")
    assert made == [(["x"], [], "u")]
    assert notes == {"of records with answers that were not submitted: left out"}
    assert parse({"fields": FIELDS, "responses": {}})[1] == {"without an answer"}


RANKED = [{"rank": 1, "value": "response-2"}, {"rank": 2, "value": "response-1"}]


@pytest.mark.parametrize(
    "answers",
    [
        [
            {"user_id": "u", "value": RANKED, "status": "submitted"},
            {"user_id": "v", "value": None, "status": "discarded"},
        ],
        {  # the same where a table holds lists of objects as objects of lists
            "user_id": ["u", "v"],
            "value": [{"rank": [1, 2], "value": ["response-2", "response-1"]}, None],
            "status": ["submitted", "discarded"],
        },
    ],
)
def test_argilla_as_version_1_puts_it_on_the_hub(answers):
    value = {**FIELDS, "best": answers, "best-suggestion": "x", "best-suggestion-metadata": {}}
    made, _, notes = parse({**value, "external_id": None, "metadata": "{}"})
    assert made == [(["y", "x"], [1, 2], "u")]
    assert notes == {
        "of records with answers that were not submitted: left out",
        "of records with suggestions of a model: not read",
    }
