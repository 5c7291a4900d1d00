"""What rows of other projects' formats become, and what is refused in them."""

import json

import pytest
from refusals import item, parse_comparison, parse_demonstration, parse_prompt, refused

from instructgpt.data.files import read_file
from instructgpt.data.formats import parse_item
from instructgpt.data.known.helpsteer import HelpSteer2
from instructgpt.data.known.safe_rlhf import SafeRLHF
from instructgpt.data.known.ultrafeedback import UltraFeedback
from instructgpt.data.reading import Reading


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def aspects(*ratings):
    names = ("helpfulness", "honesty", "truthfulness")
    return {name: {"Rating": rating} for name, rating in zip(names, ratings, strict=False)}


ULTRA = {
    "instruction": "q",
    "completions": [
        {"response": "a", "annotations": aspects("2", "2"), "overall_score": 9},
        {"response": "b", "annotations": aspects("5", "1"), "overall_score": 8.5},
        {"response": "c", "annotations": aspects("4", "N/A"), "overall_score": 7},
    ],
}
POST = {"subreddit": "pigs", "title": "t", "post": "p"}
QUERY = "SUBREDDIT: r/pigs\n\nTITLE: t\n\nPOST: p\n\nTL;DR:"
ANSWERS = [{"answer": text, "rank": rank} for text, rank in (("a", 3.0), ("b", 1.0), ("c", 2.0))]
PAIR = {"responses": ["a", "b"], "prompt": "q"}
COMPARISONS = [
    # means 2, 3 and 4: c is the best
    (ULTRA, ["a", "b", "c"], [3, 2, 1]),
    ({"prompt": "q", "answers": ANSWERS}, ["a", "b", "c"], [3, 1, 2]),
    ({"history": "q", "human_ref_A": "a", "human_ref_B": "b", "labels": 1}, ["a", "b"], [1, 2]),
    ({"history": "q", "human_ref_A": "a", "human_ref_B": "b", "labels": "0"}, ["a", "b"], [2, 1]),
    (
        {"prompt": "q", "response_1": "a", "response_2": "b", "preference_strength": 2},
        ["a", "b"],
        [2, 1],
    ),
    (
        {"context": [user("q")], "response1": "a", "response2": "b", "overall_preference": -1},
        ["a", "b"],
        [1, 2],
    ),
    (
        {"context": [user("q")], "response1": "a", "response2": "b", "overall_preference": 0},
        ["a", "b"],
        [1, 1],
    ),
    (
        {"prompt": "q", "response_0": "a", "response_1": "b", "better_response_id": 1},
        ["a", "b"],
        [2, 1],
    ),
    ({"prompt": "q", "chosen": ["a", "b"], "rejected": ["c"]}, ["a", "b", "c"], [1, 1, 2]),
    ({"question": "q", "chosen": "a", "rejected": "b"}, ["a", "b"], [1, 2]),
    ({"question": "q", "response_j": "a", "response_k": "b"}, ["a", "b"], [1, 2]),
    (
        {"question": "q", "answers": [{"text": t, "pm_score": s} for t, s in (("a", 0), ("b", 4))]},
        ["a", "b"],
        [2, 1],
    ),
    (
        {
            "question": {"full_text": "q"},
            "answer_0": "a",
            "answer_1": "b",
            "score_0": -1,
            "score_1": 1,
        },
        ["a", "b"],
        [2, 1],
    ),
    (
        {
            "conversation_a": [user("q"), assistant("a")],
            "conversation_b": [user("q"), assistant("b")],
            "winner": "tie (bothbad)",
        },
        ["a", "b"],
        [1, 1],
    ),
    (
        {
            "conversations": [{"from": "human", "value": "q"}],
            "chosen": {"from": "gpt", "value": "a"},
            "rejected": {"from": "gpt", "value": "b"},
        },
        ["a", "b"],
        [1, 2],
    ),
]


@pytest.mark.parametrize(("value", "responses", "ranking"), COMPARISONS)
def test_comparisons_serve_every_stage(value, responses, ranking):
    row, name = parse_comparison(item(value))
    assert (row.prompt.messages, row.responses, row.ranking) == ([user("q")], responses, ranking)
    best = responses[ranking.index(1)]
    assert parse_demonstration(item(value)).row.responses == [best]
    prompt, same = parse_prompt(item(value))
    assert (prompt.prompt.messages, same, prompt.responses) == ([user("q")], name, [])
    told = prompt.told.columns
    assert set(told) >= set(value)
    assert not any(use.startswith(("used as resp", "used as rank")) for use in told.values())


@pytest.mark.parametrize(("value", "responses", "ranking"), COMPARISONS)
def test_what_changes_the_question_is_used_or_refused_in_each(value, responses, ranking):
    row = parse_comparison(item({**value, "system": "s", "topic": "pigs"})).row
    assert row.prompt.messages == [{"role": "system", "content": "s"}, user("q")]
    assert row.prompt.meta["topic"] == "pigs"
    assert '"tools" changes what is asked' in refused(parse_comparison, {**value, "tools": ["t"]})


DEMONSTRATIONS = [
    ({"question": "q", "answer": "a"}, [user("q")]),
    ({"question": "q", "answers": ["a", "A"], "context": "c"}, [user("q\n\nc")]),
    (
        {"question": "q", "context": "c", "answers": {"text": ["a"], "answer_start": [3]}},
        [user("q\n\nc")],
    ),
    (
        {"system_prompt": "s", "question": "q", "response": "a"},
        [{"role": "system", "content": "s"}, user("q")],
    ),
    (
        {"prompt": "q", "response": "a", "helpfulness": 4, "correctness": 4, "coherence": 4},
        [user("q")],
    ),
    (
        {
            "prompt": "q\n<extra_id_1>Assistant\nx\n<extra_id_1>User\nand?",
            "response": "a",
            **dict.fromkeys(["helpfulness", "correctness", "coherence"], 0),
        },
        [user("q"), assistant("x"), user("and?")],
    ),
    ({"prompt": QUERY, "label": "a"}, [user(QUERY)]),
]


@pytest.mark.parametrize(("value", "messages"), DEMONSTRATIONS)
def test_demonstrations_serve_ppo_too(value, messages):
    row, name = parse_demonstration(item(value))
    assert (row.prompt.messages, row.responses) == (messages, ["a"])
    assert parse_prompt(item(value)).row.prompt.messages == messages
    assert parse_prompt(item(value)).format == name


@pytest.mark.parametrize("value", [one for one, _ in DEMONSTRATIONS if "helpfulness" not in one])
def test_demonstrations_are_no_comparisons(value):
    assert f"is missing, got the keys {sorted(value)}" in refused(parse_comparison, value)


def rated(prompt, response, **ratings):
    rest = dict.fromkeys(["helpfulness", "correctness", "coherence"], 2)
    return {"prompt": prompt, "response": response, **rest, **ratings, "source": "pigs"}


@pytest.mark.parametrize("name", ["rated.jsonl", "rated.csv"])
def test_rated_responses_that_follow_one_another_are_a_comparison(name, tmp_path):
    """Of three to one prompt, two tie; one alone is left out, and no row is lost for SFT."""
    rows = [rated("q", "a", helpfulness=1), rated("q", "b", helpfulness=4, correctness=0)]
    rows += [rated("q", "c", helpfulness=4), rated("alone", "d"), rated("q", "late")]
    path = tmp_path / name
    lines = [json.dumps(row) for row in rows]
    if name.endswith("csv"):
        lines = [",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]
    path.write_text("\n".join(lines))
    told = []
    items = [*read_file(path, told.append)]
    assert told == [f"{path}: responses to one prompt that follow one another are one row"]
    found = [one.row for one in items for one in parse_item(one, "candidates")]
    assert [row.responses for row in found] == [["a", "b", "c"], [], []]
    assert (found[0].ranking, found[0].source) == ([3, 1, 1], "pigs")
    assert found[0].prompt.meta["coherence"] in ([2, 2, 2], ["2", "2", "2"])
    assert found[1].told.left_out == "alone with a prompt, so nothing to compare with"
    assert found[0].told.columns["helpfulness"] == "used as ranking"
    imitated = [parse_demonstration(item).row.responses for item in items]
    assert imitated == [["b"], ["d"], ["late"]]
    assert [parse_prompt(item).row.prompt.text for item in items] == ["q", "alone", "q"]
    correct = Reading(format=HelpSteer2(rating="correctness"))
    assert parse_item(items[0], "comparison", correct)[0].row.ranking == [1, 3, 1]


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        (
            {"prompt": "q", "response_1": "a", "response_2": "", "preference_strength": 1},
            '"response_2" must not be empty',
        ),
        (rated("q", ""), '"response" must not be empty'),
    ],
)
def test_an_empty_cell_does_not_make_a_row_one_of_another_format(value, rule):
    assert rule in refused(parse_prompt, value)


def test_summaries_of_posts_and_of_articles():
    texts = [{"text": " a", "policy": "x"}, {"text": " b", "policy": "y"}]
    value = {"info": POST, "summaries": texts, "choice": 1, "worker": "w"}
    row, name = parse_comparison(item(value))
    assert name == "summarize-from-feedback (info, summaries, choice)"
    assert (row.prompt.text, row.responses, row.ranking) == (QUERY, [" a", " b"], [2, 1])
    assert row.labeler == "w"
    columns = row.told.columns
    assert columns["summaries[].text"] == "used as response"
    assert columns["summaries[].policy"] == "not used"
    article = {**value, "info": {"article": "p", "post": None, "title": None}}
    assert parse_comparison(item(article)).row.prompt.text == "p\n\nTL;DR:"
    rated = {"info": POST, "summary": {"text": " a", "axes": {"overall": 1}}}
    assert parse_prompt(item(rated)).row.prompt.text == QUERY
    for parse in (parse_demonstration, parse_comparison):
        assert "is missing for a row" in refused(parse, rated) or "is missing" in refused(
            parse, rated
        )


def test_rewards_of_prompts_know_the_answer():
    row = parse_prompt(item({"question": "q", "answer": "3"})).row
    assert row.prompt.meta == {"answer": "3"}
    assert row.told.columns == {"question": "used as prompt", "answer": "kept as metadata"}


def test_questions_with_choices_are_refused():
    value = {"question": "q", "choices": ["a", "b"], "answer": "a"}
    for parse in (parse_prompt, parse_demonstration):
        assert '"choices" changes what is asked' in refused(parse, value)


@pytest.mark.parametrize(
    ("rating", "ranking"),
    [("helpfulness", [3, 1, 2]), ("overall_score", [1, 2, 3]), ("mean", [3, 2, 1])],
)
def test_which_rating_counts_is_said_and_can_be_chosen(rating, ranking):
    ((row, _),) = parse_item(item(ULTRA), "comparison", Reading(UltraFeedback(rating)))
    assert row.ranking == ranking
    assert f"ranked by {rating} (--data.format.rating chooses)" in row.told.notes


def test_completions_without_a_rating_are_left_out_and_counted():
    ((row, _),) = parse_item(item(ULTRA), "comparison", Reading(UltraFeedback("honesty")))
    assert (row.responses, row.ranking) == (["a", "b"], [1, 2])  # c has no rating for honesty
    assert "with responses that have no rating: these are left out" in row.told.notes
    wrong = Reading(UltraFeedback("kindness"))
    rule = '"completions" must have the rating "kindness" of --data.format.rating'
    assert rule in refused(lambda one: parse_item(one, "comparison", wrong), ULTRA)


def test_the_safer_response_on_request():
    value = {**PAIR, "response_0": "a", "response_1": "b", "better_response_id": 1}
    value = {key: value[key] for key in value if key != "responses"} | {"safer_response_id": 0}
    ((row, _),) = parse_item(item(value), "comparison", Reading(SafeRLHF("safer")))
    assert row.ranking == [1, 2]
    assert parse_comparison(item(value)).row.ranking == [2, 1]


def test_votes_that_contradict_the_label_are_said():
    value = {"history": "q", "human_ref_A": "a", "human_ref_B": "b", "labels": 1}
    row = parse_comparison(item({**value, "score_A": 1, "score_B": 5})).row
    assert row.ranking == [1, 2]
    assert [note.startswith("warning: whose scores contradict") for note in row.told.notes] == [
        True
    ]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            {"prompt": "q", "answers": [{"answer": "a", "rank": 1.5}] * 2},
            '"answers[].rank" must be a whole number >= 1, got 1.5',
        ),
        (
            {"prompt": "q", "answers": [{"answer": "a", "rank": 1}, 3]},
            '"answers" must be a list of objects',
        ),
        (
            {"prompt": "q", "answers": [{"answer": "a", "rank": 1}, {"rank": 2}]},
            '"answers[].answer" is missing',
        ),
        (
            {"history": "q", "human_ref_A": "a", "human_ref_B": "b", "labels": 2},
            '"labels" must be a whole number from 0 to 1, got 2',
        ),
        (
            {"history": "q", "human_ref_A": "a", "human_ref_B": 3, "labels": 1},
            '"human_ref_B" must be a string, got 3',
        ),
        ({"prompt": "q", "chosen": ["a"], "rejected": [["b"]]}, '"chosen[0]" must have'),
        (
            {"info": POST, "summaries": [{"text": "a"}, {"text": "b"}], "choice": 2},
            '"choice" must be a whole number from 0 to 1, got 2',
        ),
        (
            {"info": {}, "summaries": [{"text": "a"}], "choice": 0},
            '"info.post" is missing',
        ),
        ({"prompt": "q", "answers": ["a"]}, "it has the columns of Nectar, but"),
        (
            {"prompt": "q", "response_1": "a", "response_2": "b", "preference_strength": None},
            '"preference_strength" must be a finite number, got None',
        ),
        (
            {
                "conversation_a": [user("q"), assistant("a")],
                "conversation_b": [user("r"), assistant("b")],
                "winner": "tie",
            },
            '"conversation_b" must be conversation_a up to the last turn',
        ),
        (
            {
                "conversation_a": [user("q"), assistant("a")],
                "conversation_b": [user("q"), assistant("b")],
                "winner": 1,
            },
            '"winner" must be one of model_a',
        ),
    ],
)
def test_bad_rows_are_one_line(value, message):
    line = refused(parse_comparison, value)
    assert line.startswith("dir/a.jsonl:7: ")
    assert message in line
    assert "\n" not in line


def test_columns_of_a_table_may_hold_the_lists_as_json():
    value = {"prompt": "q", "answers": '[{"answer": "a", "rank": 2}, {"answer": "b", "rank": "1"}]'}
    row, name = parse_comparison(item(value))
    assert name.startswith("Nectar")
    assert row.ranking == [2, 1]


@pytest.mark.parametrize(
    ("value", "uses"),
    [
        (
            {"message_tree_id": "t", "prompt": {"text": "q", "role": "prompter", "replies": []}},
            {
                "message_tree_id": "used as user, so that a tree stays in one split",
                "prompt": "used as conversation",
            },
        ),
        (
            {
                "data": {"prompt": "q", "response_a": "a", "response_b": "b"},
                "annotations": [{"result": [{"value": {"choices": ["response_a"]}}]}],
            },
            {"data": "used as prompt", "annotations": "not used"},
        ),
        (
            {
                "conversation_a": [user("q"), assistant("a")],
                "conversation_b": [user("q"), assistant("b")],
                "winner": "tie",
            },
            {
                "conversation_a": "used as prompt",
                "conversation_b": "used as prompt",
                "winner": "not used",
            },
        ),
    ],
)
def test_the_columns_of_a_prompt_are_told_as_used(value, uses):
    assert parse_prompt(item(value)).row.told.columns == uses
