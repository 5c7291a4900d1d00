"""Formats of rows: ours and those of other projects, and what is refused."""

import pytest
from refusals import item, parse_comparison, parse_demonstration, parse_prompt, parse_text, refused

USER = {"role": "user", "content": "hi"}
BOT = {"role": "assistant", "content": "hello"}


def test_own_demonstration():
    row, name = parse_demonstration(
        item({"prompt": "hi", "response": "hello", "user": 3, "category": "qa", "labeler": None})
    )
    assert name == "demonstration (prompt, response)"
    assert row.prompt.text == "hi"
    assert row.prompt.messages == [USER]
    assert row.prompt.id == "a.jsonl:7"  # made from the place where none is given
    assert row.prompt.meta == {"user": 3, "category": "qa", "labeler": None}
    assert (row.responses, row.user, row.labeler, row.source) == (["hello"], "3", "", "a")


def test_own_comparison_with_optional_keys():
    row, name = parse_comparison(
        item(
            {
                "id": 12,
                "prompt": "hi",
                "messages": [USER],
                "responses": ["a", "b", "c"],
                "ranking": [2, 1, 2],
                "ratings": [0, 0, 0],  # the ranking counts
                "labeler": "x",
                "source": "set",
            }
        )
    )
    assert name == "comparison (messages, responses, ranking, ratings)"
    assert (row.ranking, row.labeler, row.source, row.prompt.id) == ([2, 1, 2], "x", "set", "12")


def test_ratings_become_a_ranking():
    # 7 is the best; the two 3s tie behind it on rank 2; 1 has three better ones
    value = {"prompt": "p", "responses": ["a", "b", "c", "d"], "ratings": [3, 7.0, 1, 3]}
    assert parse_comparison(item({**value, "ranking": None})).row.ranking == [2, 1, 4, 2]


def test_hh_transcripts():
    start = "\n\nHuman: hi\n\nAssistant: hello\n\nHuman: and?\n\nAssistant:"
    row, name = parse_comparison(item({"chosen": start + " good", "rejected": start + " bad"}))
    assert name.startswith("HH")
    assert row.prompt.text == start
    assert row.prompt.messages == [USER, BOT, {"role": "user", "content": "and?"}]
    assert (row.responses, row.ranking) == (["good", "bad"], [1, 2])


def test_alpaca():
    row, name = parse_demonstration(item({"instruction": "add", "input": "1 2", "output": "3"}))
    assert name.startswith("Alpaca")
    assert (row.prompt.text, row.responses) == ("add\n\n1 2", ["3"])
    row, _ = parse_demonstration(item({"instruction": "add", "input": "", "output": "3"}))
    assert row.prompt.text == "add"


def test_messages_last_assistant_turn_is_the_response():
    turns = [USER, BOT, {"role": "user", "content": "and?"}, {"role": "assistant", "content": "so"}]
    row, name = parse_demonstration(item({"messages": turns}))
    assert name == "messages"
    assert row.prompt.messages == turns[:3]
    assert row.prompt.text == "\n\nHuman: hi\n\nAssistant: hello\n\nHuman: and?\n\nAssistant:"
    assert row.responses == ["so"]
    assert parse_demonstration(item({"messages": [USER, BOT]})).row.prompt.text == "hi"


@pytest.mark.parametrize("prompt", ["hi", [USER]])
@pytest.mark.parametrize("completion", ["hello", [BOT]])
def test_trl_completion(prompt, completion):
    row, name = parse_demonstration(item({"prompt": prompt, "completion": completion}))
    assert name.startswith("TRL")
    assert (row.prompt.text, row.prompt.messages, row.responses) == ("hi", [USER], ["hello"])


@pytest.mark.parametrize(
    "value",
    [
        {"prompt": "hi", "chosen": "hello", "rejected": "no"},
        {"prompt": [USER], "chosen": [BOT], "rejected": [{"role": "assistant", "content": "no"}]},
        {"chosen": [USER, BOT], "rejected": [USER, {"role": "assistant", "content": "no"}]},
        {
            "prompt": "hi",
            "chosen": [USER, BOT],
            "rejected": [USER, {"role": "assistant", "content": "no"}],
        },
    ],
)
def test_trl_preference(value):
    row, name = parse_comparison(item(value))
    assert name.startswith("TRL")
    assert (row.prompt.text, row.prompt.messages) == ("hi", [USER])
    assert (row.responses, row.ranking) == (["hello", "no"], [1, 2])


@pytest.mark.parametrize(
    "value",
    [
        {"prompt": "hi"},
        {"prompt": "hi", "response": "x"},
        {"prompt": "hi", "responses": ["x"], "ranking": "not looked at"},
        {"instruction": "hi"},
        {"messages": [USER]},
        {"messages": [USER, BOT]},
    ],
)
def test_prompts_of_all_formats(value):
    row, _ = parse_prompt(item(value))
    assert (row.prompt.text, row.prompt.messages, row.responses) == ("hi", [USER], [])


def test_text():
    parsed = parse_text(item({"text": "x", "id": 1}))
    assert parsed.row.text == "x"


def test_the_best_response_of_a_comparison_is_a_demonstration_and_said_to_be():
    start = "\n\nHuman: hi\n\nAssistant:"
    best = "with several responses, of which the best is imitated"
    for value in (
        {"chosen": start + " good", "rejected": start + " bad"},
        {"prompt": "hi", "responses": ["bad", "good", "fair"], "ranking": [3, 1, 2]},
    ):
        row, _ = parse_demonstration(item(value))
        assert (row.prompt.messages, row.responses, row.ranking) == ([USER], ["good"], [])
        assert best in row.told.notes
    value = {"prompt": "hi", "responses": ["a", "b"]}
    assert '"ranking" is missing' in refused(parse_demonstration, value)


DEMONSTRATIONS = [
    ([1], "a row must be an object, got [1]"),
    ({}, '"response" is missing, got the keys []'),
    ({"zap": "x"}, "\"response\" is missing, got the keys ['zap']; --data.columns says which of"),
    ({"response": "x"}, "\"prompt\" is missing, got the keys ['response']"),
    (
        {"prompt": "p", "response": None},
        "\"response\" is missing, got the keys ['prompt', 'response']",
    ),
    ({"prompt": "p", "response": True}, '"response" must be a string, got True'),
    ({"prompt": "p", "response": 3}, '"response" must be a string, got 3'),
    ({"prompt": "p", "response": ["x"]}, "\"response\" must be a string, got ['x']"),
    ({"prompt": "p", "response": ""}, "\"response\" must not be empty, got ''"),
    ({"prompt": "p", "response": " \n"}, "\"response\" must not be empty, got ' \\n'"),
    ({"prompt": "", "response": "x"}, "\"prompt\" must not be empty, got ''"),
    ({"prompt": 1, "response": "x"}, '"prompt" must be a string, got 1'),
    (
        {"prompt": "p", "response": "\ud800"},
        '"response" must be valid Unicode (half a surrogate pair)',
    ),
    ({"messages": [], "response": "x"}, '"messages" must be a list of chat turns, got []'),
    ({"messages": [{"role": "user"}], "response": "x"}, '"messages[0]" must have a "role" and'),
    ({"messages": [USER, BOT], "response": "x"}, '"messages" must end before the response'),
    ({"messages": [BOT]}, '"messages" must be chat turns that end with the assistant'),
    ({"messages": [USER]}, '"response" is missing'),
    ({"instruction": "i", "output": ""}, "\"output\" must not be empty, got ''"),
    ({"instruction": "i", "input": 3, "output": "o"}, '"input" must be a string, got 3'),
    ({"prompt": "p", "completion": False}, '"completion" must be a string, got False'),
]


@pytest.mark.parametrize(("value", "message"), DEMONSTRATIONS)
def test_bad_demonstrations(value, message):
    assert refused(parse_demonstration, value).startswith(f"dir/a.jsonl:7: {message}")


def comparison(**changes):
    return {"prompt": "p", "responses": ["a", "b"], "ranking": [1, 2], **changes}


COMPARISONS = [
    (comparison(responses=None), '"responses" is missing'),
    (comparison(responses="ab"), "\"responses\" must be a list of strings, got 'ab'"),
    (
        comparison(responses=["a"], ranking=[1]),
        "\"responses\" must hold at least 2 responses, got ['a']",
    ),
    (comparison(responses=["a", ""]), "\"responses[1]\" must not be empty, got ''"),
    (comparison(responses=[False, "b"]), '"responses[0]" must be a string, got False'),
    (comparison(ranking=None), '"ranking" is missing'),
    (comparison(ranking=[1]), '"ranking" must be a list of 2 ranks, one a response, got [1]'),
    (comparison(ranking=[1, 2, 3]), '"ranking" must be a list of 2 ranks'),
    (comparison(ranking="12"), "\"ranking\" must be a list of 2 ranks, one a response, got '12'"),
    (comparison(ranking=[0, 1]), '"ranking[0]" must be an integer >= 1 (1 = best), got 0'),
    (comparison(ranking=[1, 2.0]), '"ranking[1]" must be an integer >= 1 (1 = best), got 2.0'),
    (comparison(ranking=[True, 2]), '"ranking[0]" must be an integer >= 1 (1 = best), got True'),
    (comparison(ranking=[1, "2"]), "\"ranking[1]\" must be an integer >= 1 (1 = best), got '2'"),
    (comparison(ranking=None, ratings=[1]), '"ratings" must be a list of 2 numbers'),
    (
        comparison(ranking=None, ratings=[1, float("nan")]),
        '"ratings[1]" must be a finite number, got nan',
    ),
    (comparison(ranking=None, ratings=[True, 1]), '"ratings[0]" must be a finite number, got True'),
    ({"chosen": "no transcript", "rejected": "x"}, '"chosen" must be a transcript'),
    (
        {"chosen": "\n\nHuman: a\n\nAssistant: x", "rejected": "\n\nHuman: b\n\nAssistant: y"},
        '"rejected" must agree with chosen up to the last assistant turn, got',
    ),
    (
        {"chosen": "\n\nHuman: a\n\nAssistant: x", "rejected": "\n\nHuman: a\n\nAssistant:"},
        "\"rejected\" must not be empty, got ''",
    ),
    ({"prompt": "p", "chosen": "x", "rejected": None}, '"responses" is missing'),
    ({"prompt": "p", "chosen": "x", "rejected": 0}, '"rejected" must be a string, got 0'),
    (
        {"chosen": [USER, BOT], "rejected": [BOT]},
        '"rejected" must agree with chosen up to the last turn',
    ),
]


@pytest.mark.parametrize(("value", "message"), COMPARISONS)
def test_bad_comparisons(value, message):
    assert refused(parse_comparison, value).startswith(f"dir/a.jsonl:7: {message}")


def test_bad_text():
    assert refused(parse_text, {"text": ""}) == "dir/a.jsonl:7: \"text\" must not be empty, got ''"
    assert "\"text\" is missing, got the keys ['txt']" in refused(parse_text, {"txt": "x"})


def turn(role, content):
    return {"role": {"S": "system", "U": "user", "A": "assistant"}[role], "content": content}


def turns(text):
    """Chat turns of "U q, A x"."""
    return [turn(*part.split(" ")) for part in text.split(", ")]


@pytest.mark.parametrize(
    ("prompt", "given", "context"),
    [
        ("U q", "A x, U m, A z", "U q, A x, U m"),
        ("q", "A x, U m, A z", "U q, A x, U m"),
        ("U q", "U q, A x, U m, A z", "U q, A x, U m"),
        ("q", "S s, U q, A z", "S s, U q"),
        ("S s, U q", "U q, A z", "S s, U q"),
        ("S s, U q", "A z", "S s, U q"),
        ("S s, U q", "S s, U q, A z", "S s, U q"),
        ("U q", "A x, U q, A z", "U q, A x, U q"),
        ("U q", "U m, A z", "U q, U m"),
    ],
)
def test_trl_turns_lose_nothing(prompt, given, context):
    prompt = turns(prompt) if " " in prompt else prompt
    row, _ = parse_demonstration(item({"prompt": prompt, "completion": turns(given)}))
    assert (row.prompt.messages, row.responses) == (turns(context), ["z"])
    assert all(part["content"] in row.prompt.text for part in turns(context))
    pair = {"prompt": prompt, "chosen": turns(given), "rejected": [*turns(given)[:-1], BOT]}
    row, _ = parse_comparison(item(pair))
    assert (row.prompt.messages, row.responses) == (turns(context), ["z", "hello"])
    assert all(part["content"] in row.prompt.text for part in turns(context))


def test_trl_responses_are_the_assistants():
    rule = "must end with a turn of the assistant, got"
    value = {"prompt": "q", "completion": turns("A z, U x")}
    assert f'"completion" {rule}' in refused(parse_demonstration, value)
    value = {"prompt": "q", "chosen": [USER], "rejected": [BOT]}
    assert f'"chosen" {rule}' in refused(parse_comparison, value)
    value = {"prompt": "q", "chosen": [BOT], "rejected": [USER]}
    assert f'"rejected" {rule}' in refused(parse_comparison, value)


def test_ultrachat_repeats_the_first_turn():
    value = {"prompt": "q", "prompt_id": "7", "messages": turns("U q, A x, U m, A z")}
    row, name = parse_demonstration(item(value))
    assert (name, row.prompt.messages, row.responses) == ("messages", turns("U q, A x, U m"), ["z"])
    assert parse_prompt(item(value)).row.prompt == row.prompt


@pytest.mark.parametrize("output", [None, "", "x"])
def test_alpaca_prompts_need_no_output(output):
    row, name = parse_prompt(item({"instruction": "hi", "input": "", "output": output}))
    assert name.startswith("Alpaca")
    assert (row.prompt.text, row.responses) == ("hi", [])
