"""Chat turns: roles and their other names, parts, odd orders, and what is there twice."""

import pytest
from refusals import item, parse_comparison, parse_demonstration, parse_prompt, refused

QUESTION = "What colour is the pig?"


def turns(*said):
    """Chat turns of "role: content"."""
    return [dict(zip(("role", "content"), one.split(": ", 1), strict=True)) for one in said]


def chat(*said):
    return {"messages": turns(*said)}


@pytest.mark.parametrize("asks", ["user", "human", "Human", "USER"])
@pytest.mark.parametrize("says", ["assistant", "gpt", "model", "bot", "Assistant", "chatbot"])
def test_roles_have_other_names(asks, says):
    row, _ = parse_demonstration(item(chat("developer: Be kind.", f"{asks}: hi", f"{says}: yo")))
    assert row.prompt.messages == turns("system: Be kind.", "user: hi")
    assert row.responses == ["yo"]


@pytest.mark.parametrize("role", ["tool", "function", "ipython"])
def test_tool_turns_stay_tool_turns(role):
    said = ["user: 1 + 2?", "assistant: I ask.", f"{role}: 3", "assistant: Three."]
    row, _ = parse_demonstration(item(chat(*said)))
    assert [turn["role"] for turn in row.prompt.messages] == ["user", "assistant", "tool"]


def test_unknown_roles_are_refused_by_name():
    message = refused(parse_demonstration, chat("user: hi", "narrator: he left", "assistant: bye"))
    assert message.startswith('dir/a.jsonl:7: "messages[1]" must have a known role (user, human,')
    assert message.endswith("got 'narrator'")
    value = {"prompt": turns("wizard: hi")}
    assert '"prompt[0]" must have a known role' in refused(parse_prompt, value)


ODD = [
    (["user: a", "system: b", "assistant: c"], '"messages[1]" must not be the system\'s unless'),
    (["system: a", "system: b", "user: c", "assistant: d"], '"messages[1]" must not be the system'),
    (["system: a", "assistant: b"], '"messages" must have a turn of the user'),
    (
        ["user: a", "assistant: b", "user:  ", "assistant: c"],
        '"messages" must not end with an empty',
    ),
    (["system:  "], '"messages" must hold more than an empty turn of the system'),
    (["user: a", "assistant:  "], '"messages" must not be empty'),
    (["user: a"], '"response" is missing, for "messages" does not end with a turn of the assist'),
]


@pytest.mark.parametrize(("said", "rule"), ODD)
def test_odd_conversations_are_refused_by_a_rule(said, rule):
    assert f"dir/a.jsonl:7: {rule}" in refused(parse_demonstration, chat(*said))


def test_two_turns_in_a_row_and_empty_ones_are_kept_and_counted():
    said = ["user: a", "assistant: b", "assistant:  ", "user: c", "user: d"]
    row, _ = parse_demonstration(item(chat(*said, "assistant: e")))
    assert row.prompt.messages == turns(*said)
    notes = " ".join(row.told.notes)
    assert "two turns in a row" in notes
    assert "empty turn" in notes
    row, _ = parse_demonstration(item(chat("system:  ", "user: a", "assistant: b")))
    assert (row.prompt.messages, row.told.notes) == (turns("user: a"), [])
    row, _ = parse_demonstration(item(chat("user: a", "assistant: b", "assistant: c")))
    assert (row.prompt.messages, row.responses) == (turns("user: a", "assistant: b"), ["c"])


def test_content_parts_are_text_on_lines_of_their_own():
    parts = [{"type": "text", "text": "What colour"}, {"type": "text", "text": "is it?"}]
    value = {"messages": [{"role": "user", "content": parts}, *turns("assistant: Pink.")]}
    assert parse_demonstration(item(value)).row.prompt.text == "What colour\nis it?"
    parts.append({"type": "image_url", "image_url": {"url": "x"}})
    rule = "\"messages[0].content[2]\" must be a text: other parts cannot be used, got 'image_url'"
    assert rule in refused(parse_demonstration, value)


@pytest.mark.parametrize("key", ["tools", "images", "reasoning_content"])
def test_keys_of_turns_that_say_more_are_refused_by_name(key):
    value = chat("user: hi", "assistant: yo")
    value["messages"][1][key] = [{"name": "search"}]
    assert f'"messages[1].{key}" must not be there' in refused(parse_demonstration, value)
    value["messages"][1][key] = None
    assert parse_demonstration(item(value)).row.responses == ["yo"]


CALL = {"name": "add", "arguments": {"a": 1, "to": "é"}}
WRITTEN = '<tool_call>\n{"name": "add", "arguments": {"a": 1, "to": "é"}}\n</tool_call>'


@pytest.mark.parametrize(
    "calls",
    [
        {"tool_calls": [{"id": "c1", "type": "function", "function": CALL}]},
        {"tool_calls": [{"function": {**CALL, "arguments": '{"a": 1, "to": "é"}'}}]},
        {"tool_calls": [CALL], "function_call": None},
        {"function_call": CALL},
        {"tool_calls": '[{"name": "add", "arguments": {"a": 1, "to": "é"}}]'},
    ],
)
@pytest.mark.parametrize(("content", "before"), [(None, ""), ("", ""), ("I ask.", "I ask.\n")])
def test_calls_of_tools_are_words_of_the_turn(calls, content, before):
    asks = {"role": "assistant", "content": content, **calls}
    result = {"role": "tool", "content": "2", "tool_call_id": "c1"}
    value = {"messages": [*turns("user: 1 + 1?"), asks, result, *turns("assistant: Two.")]}
    row, _ = parse_demonstration(item(value))
    assert row.prompt.messages == [
        *turns("user: 1 + 1?", f"assistant: {before}{WRITTEN}", "tool: 2"),
    ]
    name = "function_call" if calls.get("function_call") else "tool_calls"
    columns = row.told.columns
    assert columns[f"messages[].{name}"] == (
        "used as text: <tool_call>, a line of JSON, </tool_call>"
    )
    assert columns["messages[].tool_call_id"] == "not used"
    assert "messages[].content" not in columns
    last, _ = parse_demonstration(item({"messages": value["messages"][:2]}))
    assert last.responses == [before + WRITTEN]  # which is imitated


@pytest.mark.parametrize("calls", [[{"name": "add"}], [{"arguments": {}}], ["add"], "add", 3])
def test_calls_that_are_none_are_refused(calls):
    value = chat("user: hi", "assistant: yo")
    value["messages"][1]["tool_calls"] = calls
    rule = '"messages[1].tool_calls" must be calls with a "name" and "arguments", got '
    assert rule in refused(parse_demonstration, value)
    value["messages"][0]["tool_calls"] = [CALL]
    assert '"messages[0]" must be the assistant\'s' in refused(parse_demonstration, value)


def test_keys_of_turns_that_say_nothing_are_named():
    value = chat("user: hi", "assistant: yo")
    value["messages"][0]["name"] = "bob"
    columns = parse_demonstration(item(value)).row.told.columns
    assert columns == {"messages": "used as conversation", "messages[].name": "not used"}


def test_a_turn_that_must_not_be_imitated_is_refused():
    value = chat("user: hi", "assistant: yo")
    value["messages"][1]["weight"] = 0
    assert '"messages[1].weight" must not forbid to imitate' in refused(parse_demonstration, value)


def test_sharegpt():
    said = [("system", "You keep pigs."), ("human", "hi"), ("gpt", "yo"), ("human", "and?")]
    value = {"conversations": [{"from": role, "value": text} for role, text in said]}
    row, name = parse_prompt(item(value))
    expected = turns("system: You keep pigs.", "user: hi", "assistant: yo", "user: and?")
    assert (name, row.prompt.messages) == ("ShareGPT (conversations)", expected)
    value["conversations"].append({"from": "gpt", "value": "so"})
    assert parse_prompt(item(value)).row.prompt.messages == expected
    row, _ = parse_demonstration(item(value))
    assert (row.prompt.messages, row.responses) == (expected, ["so"])
    pair = {
        "conversations": value["conversations"][:4],
        "chosen": {"from": "gpt", "value": "good"},
        "rejected": {"from": "gpt", "value": "bad"},
    }
    row, _ = parse_comparison(item(pair))
    assert (row.prompt.messages, row.responses) == (expected, ["good", "bad"])


def test_ultrafeedback_is_a_pair_a_demonstration_and_a_prompt():
    value = {
        "prompt": QUESTION,
        "prompt_id": "a1",
        "chosen": turns(f"user: {QUESTION}", "assistant: Pink."),
        "rejected": turns(f"user: {QUESTION}", "assistant: Blue?"),
        "messages": turns(f"user: {QUESTION}", "assistant: Pink."),
        "score_chosen": 8.0,
        "score_rejected": 3.5,
    }
    row, _ = parse_comparison(item(value))
    assert (row.responses, row.ranking) == (["Pink.", "Blue?"], [1, 2])
    assert row.prompt.messages == turns(f"user: {QUESTION}")
    row, _ = parse_demonstration(item(value))
    assert (row.prompt.messages, row.responses) == (turns(f"user: {QUESTION}"), ["Pink."])
    assert any("of which the best is imitated" in note for note in row.told.notes)
    row, _ = parse_prompt(item(value))
    assert (row.prompt.messages, row.prompt.meta["prompt_id"]) == (turns(f"user: {QUESTION}"), "a1")
    value["messages"] = turns("user: Something else.", "assistant: Pink.")
    assert '"messages" changes what is asked' in refused(parse_comparison, value)


DIALOGUE = "\n\nHuman: hi\n\nAssistant: yo\n\nHuman: and?\n\nAssistant:"
TURNS = turns("user: hi", "assistant: yo", "user: and?")


@pytest.mark.parametrize("answers", [("good", "bad"), (f"{DIALOGUE} good", f"{DIALOGUE} bad")])
@pytest.mark.parametrize("prompt", [DIALOGUE, DIALOGUE.strip(), TURNS, None])
def test_transcripts_are_turns_and_are_there_once(prompt, answers):
    value = {"prompt": prompt, "chosen": answers[0], "rejected": answers[1]}
    if prompt is None and answers[0] == "good":
        assert '"chosen" must be a transcript' in refused(parse_comparison, value)
        return
    row, _ = parse_comparison(item(value))
    assert (row.prompt.messages, row.responses) == (TURNS, ["good", "bad"])
    assert row.prompt.text.strip() == DIALOGUE.strip()
    doubled = any("repeat the prompt" in note for note in row.told.notes)
    assert doubled == (prompt is not None and answers[0] != "good")
    if prompt is not None:
        assert parse_prompt(item(value)).row.prompt.messages == TURNS
        done = {"prompt": prompt, "completion": answers[0]}
        row, _ = parse_demonstration(item(done))
        assert (row.prompt.messages, row.responses) == (TURNS, ["good"])


def test_a_transcript_inside_a_turn_is_refused():
    for value in (
        {"messages": [{"role": "user", "content": DIALOGUE}], "response": "x"},
        {"prompt": [{"role": "user", "content": DIALOGUE}], "completion": "x"},
    ):
        assert "must be what one speaker says, not a transcript" in refused(
            parse_demonstration, value
        )
    row, _ = parse_prompt(item({"prompt": f"Be kind.{DIALOGUE}"}))
    assert row.prompt.messages == [*turns("system: Be kind."), *TURNS]
    value = {"prompt": f"{DIALOGUE} half an answer", "response": "x"}
    assert '"prompt" must end with an open' in refused(parse_demonstration, value)


def test_an_answer_that_speaks_for_both_is_counted():
    value = {"prompt": "Write a dialogue.", "response": "Human: hi\n\nAssistant: yo"}
    row, _ = parse_demonstration(item(value))
    assert row.responses == ["Human: hi\n\nAssistant: yo"]
    assert [note.startswith("warning: ") for note in row.told.notes] == [True]
    value = {"prompt": DIALOGUE, "completion": "yo\n\nHuman: more\n\nAssistant: less"}
    assert '"completion" must be one turn, not go on' in refused(parse_demonstration, value)
    pair = {"chosen": f"{DIALOGUE} x\n\nHuman: more", "rejected": f"{DIALOGUE} y"}
    assert '"chosen" must be a transcript' in refused(parse_comparison, pair)


def test_responses_that_all_repeat_the_prompt_lose_it_once():
    value = {"prompt": QUESTION, "response": f"{QUESTION} It is pink."}
    row, _ = parse_demonstration(item(value))
    assert row.responses == ["It is pink."]
    assert any("repeat the prompt" in note for note in row.told.notes)
    pair = {"prompt": QUESTION, "chosen": f"{QUESTION}\nPink.", "rejected": f"{QUESTION}\nBlue."}
    assert parse_comparison(item(pair)).row.responses == ["Pink.", "Blue."]
    # one echo among others is how good that response is, not how the set is written
    pair["chosen"] = "Pink."
    assert parse_comparison(item(pair)).row.responses == ["Pink.", f"{QUESTION}\nBlue."]


@pytest.mark.parametrize(
    ("prompt", "response"),
    [("Hi", "Hi there!"), ("What is a pig?", "What is a pig?!"), ("a b c", "a b c")],
)
def test_a_response_that_happens_to_begin_alike_is_left_alone(prompt, response):
    value = {"prompt": prompt, "response": response}
    assert parse_demonstration(item(value)).row.responses == [response]


def test_a_prompt_in_a_template_already_is_counted():
    chatml = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    for prompt in (chatml, "USER: hi ASSISTANT:", "Human: hi\nAssistant: "):
        notes = parse_demonstration(item({"prompt": prompt, "response": "yo"})).row.told.notes
        assert [note.startswith("warning: whose prompt holds the marks") for note in notes] == [
            True
        ]
