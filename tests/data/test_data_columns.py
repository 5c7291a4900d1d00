"""Every column of a row is used, kept as metadata or named; none that changes it is dropped."""

import json

import pytest
from refusals import (
    item,
    parse_candidates,
    parse_comparison,
    parse_demonstration,
    parse_prompt,
    parse_text,
    parse_to_score,
    refused,
)

from instructgpt.data.columns import METADATA
from instructgpt.data.demonstrations import DemonstrationDataModule
from instructgpt.data.prompts import PromptDataModule
from instructgpt.data.sources import load
from instructgpt.data.summary import Summary
from instructgpt.types import UserError


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def system(text):
    return {"role": "system", "content": text}


@pytest.mark.parametrize("parse", [parse_demonstration, parse_prompt])
def test_the_passage_of_dolly_is_in_the_prompt_as_the_input_of_alpaca(parse):
    value = {"instruction": "Which animal?", "context": "It says oink.", "response": "A pig."}
    row, name = parse(item({**value, "category": "closed_qa"}))
    assert name == "Dolly (instruction, context, response)"
    assert row.prompt.text == "Which animal?\n\nIt says oink."
    assert row.prompt.meta == {"category": "closed_qa"}
    assert row.responses in (["A pig."], [])
    assert row.told.columns["context"] == "used as prompt"


def test_a_passage_beside_an_input_is_refused_by_name():
    value = {"instruction": "i", "input": "one", "context": "another", "output": "o"}
    assert refused(parse_demonstration, value).startswith(
        'dir/a.jsonl:7: "context" changes what is asked, which rows of this format (Alpaca'
    )


@pytest.mark.parametrize("parse", [parse_demonstration, parse_prompt])
def test_system_and_history_of_alpaca_are_turns_in_order(parse):
    value = {"instruction": "And 2?", "input": "now", "output": "Pink.", "system": "Be a pirate."}
    history = [["Pig 1?", "White."], ["Sure?", "Arr."]]
    row, _ = parse(item({**value, "history": history}))
    assert row.prompt.messages == [
        system("Be a pirate."),
        user("Pig 1?"),
        assistant("White."),
        user("Sure?"),
        assistant("Arr."),
        user("And 2?\n\nnow"),
    ]
    assert all(turn["content"] in row.prompt.text for turn in row.prompt.messages)
    row, _ = parse(item({**value, "system": "", "history": []}))
    assert (row.prompt.text, row.prompt.messages) == ("And 2?\n\nnow", [user("And 2?\n\nnow")])


@pytest.mark.parametrize(
    "value",
    [
        {"prompt": "q", "response": "r"},
        {"prompt": [user("q")], "completion": "r"},
        {"messages": [user("q"), assistant("r")]},
        {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "r"}]},
        {"prompt": "q", "chosen": "r", "rejected": "s"},
        {"chosen": [user("q"), assistant("r")], "rejected": [user("q"), assistant("s")]},
        {"chosen": "\n\nHuman: q\n\nAssistant: r", "rejected": "\n\nHuman: q\n\nAssistant: s"},
    ],
)
def test_a_system_column_is_a_turn_in_every_format(value):
    row, _ = parse_demonstration(item({**value, "system": "Be kind."}))
    assert parse_prompt(item({**value, "system": "Be kind."})).row.prompt == row.prompt
    assert (row.prompt.messages, row.responses) == ([system("Be kind."), user("q")], ["r"])
    assert "Be kind." in row.prompt.text


def test_history_that_is_not_pairs_or_has_no_place_is_refused():
    value = {"instruction": "i", "output": "o"}
    rule = '"history[0]" must be a pair of strings'
    assert rule in refused(parse_demonstration, {**value, "history": [["alone"]]})
    value = {"messages": [user("q"), assistant("r")], "history": [["a", "b"]]}
    assert '"history" changes what is asked' in refused(parse_demonstration, value)
    value = {"messages": [system("a"), user("q"), assistant("r")], "system": "b"}
    assert '"system" must be the system turn of messages' in refused(parse_demonstration, value)


CHANGES = ["context", "input", "instruction", "tools", "functions", "images", "documents"]


@pytest.mark.parametrize("key", CHANGES)
@pytest.mark.parametrize("parse", [parse_prompt, parse_demonstration, parse_comparison])
def test_columns_that_change_what_is_asked_are_refused_by_name(key, parse):
    rows = [
        {"prompt": "q", "response": "r", "responses": ["a", "b"], "ranking": [1, 2]},
        {"prompt": [user("q")], "chosen": "a", "rejected": "b"},
    ]
    for row in rows:
        assert refused(parse, {**row, key: ["something"]}).startswith(
            f'dir/a.jsonl:7: "{key}" changes what is asked, which rows of this format'
        )
        for empty in (None, "", "[]", [], {}):
            assert parse(item({**row, key: empty})).row.prompt.text == "q"
        repeated = "not used (other columns hold the same)" if key == "instruction" else METADATA
        assert parse(item({**row, key: "q"})).row.told.columns[key] == repeated


@pytest.mark.parametrize("key", ["Context", "SYSTEM", " input", "Label", "Completion"])
def test_columns_are_refused_however_they_are_spelt(key):
    value = {"prompt": "q", "response": "r", key: "another"}
    assert f'"{key}" changes what is' in refused(parse_demonstration, value)


def test_a_part_of_a_word_of_the_prompt_is_no_repetition():
    value = {"prompt": "do you know", "response": "r", "input": "no"}
    assert '"input" changes what is asked' in refused(parse_demonstration, value)
    assert parse_demonstration(item({**value, "input": "know"})).row.prompt.text == "do you know"


def test_prompts_are_read_beside_turns_that_end_with_the_response():
    turns = [user("q"), assistant("r")]
    for answers in ({"response": "r"}, {"chosen": "r", "rejected": "s"}, {"responses": ["r", "s"]}):
        prompt = parse_prompt(item({"instruction": "q", **answers, "messages": turns})).row.prompt
        assert (prompt.text, prompt.meta) == ("q", {})
    other = [user("q"), assistant("t")]
    for value in ({"instruction": "q", "response": "r"}, {"prompt": "q", "response": "r"}):
        for parse in (parse_prompt, parse_demonstration):
            row = parse(item({**value, "messages": turns})).row
            assert (row.prompt.text, row.prompt.meta) == ("q", {})
            assert '"messages" changes what is asked' in refused(
                parse, {**value, "messages": other}
            )


@pytest.mark.parametrize("empty", [None, "", []])
def test_columns_of_another_format_may_be_empty(empty):
    """As in a table that was put together from several."""
    rows = [
        (
            {"prompt": "q", "response": "r"},
            ["messages", "conversation", "instruction", "completion"],
        ),
        ({"prompt": "q", "completion": "r"}, ["response", "messages", "chosen", "responses"]),
        ({"instruction": "q", "output": "r"}, ["prompt", "messages", "response"]),
        ({"messages": [user("q"), assistant("r")]}, ["prompt", "instruction", "response"]),
    ]
    for value, others in rows:
        row = parse_demonstration(item({**dict.fromkeys(others, empty), **value})).row
        assert (row.prompt.text, row.responses, row.prompt.meta) == ("q", ["r"], {})
        assert parse_prompt(item({**dict.fromkeys(others, empty), **value})).row.prompt.text == "q"


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (
            {"instruction": "q", "context": None, "response": "r"},
            "Dolly (instruction, context, res",
        ),
        ({"instruction": "q", "response": "r"}, "Dolly (instruction, response)"),
        ({"instruction": "q", "input": "", "output": "r"}, "Alpaca (instruction, input, output)"),
        ({"instruction": "q", "output": "r"}, "Alpaca (instruction, output)"),
        ({"instruction": "q", "completions": ["r"]}, "Alpaca (instruction)"),
        ({"prompt": "q", "completion": "r", "label": "False"}, "KTO (prompt, completion, label)"),
    ],
)
def test_formats_are_called_by_columns_that_are_there(value, name):
    assert parse_prompt(item(value)).format.startswith(name)


def test_columns_that_judge_the_response_are_refused_where_it_is_learned():
    value = {"prompt": "q", "response": "r", "preferred": False}
    assert '"preferred" changes what is learned' in refused(parse_demonstration, value)
    assert parse_prompt(item(value)).row.prompt.meta == {"preferred": False}
    value = {"prompt": "q", "response": "r", "completion": "another"}
    assert '"completion" changes what is learned' in refused(parse_demonstration, value)


@pytest.mark.parametrize("label", [False, "false", "False"])
@pytest.mark.parametrize(
    "value",
    [
        {"prompt": "q", "completion": "go away"},
        {"prompt": [user("q")], "completion": [assistant("go away")]},
        {"prompt": "q", "response": "go away"},
        {"messages": [user("q"), assistant("go away")]},
    ],
)
def test_undesired_answers_are_not_imitated(value, label):
    assert parse_demonstration(item({**value, "label": label})).row.told.left_out
    assert not parse_demonstration(item({**value, "label": True})).row.told.left_out
    assert parse_prompt(item({**value, "label": label})).row.prompt.text == "q"
    for parse in (parse_comparison, parse_to_score):
        assert '"label" judges one response alone, as in KTO' in refused(
            parse, {**value, "label": label}
        )


@pytest.mark.parametrize(("label", "ranking"), [(True, [1]), ("false", [2])])
@pytest.mark.parametrize(
    "value",
    [{"prompt": "q", "completion": "r"}, {"messages": [user("q"), assistant("r")]}],
)
def test_candidates_are_rankings_or_responses_judged_alone(value, label, ranking):
    row = parse_candidates(item({**value, "label": label})).row
    assert (row.responses, row.ranking, row.told.left_out) == (["r"], ranking, "")
    pair = {"prompt": "q", "chosen": "r", "rejected": "s"}
    assert parse_candidates(item(pair)).row.ranking == [1, 2]
    assert '"responses"' in refused(parse_candidates, value)  # nobody has judged it


def test_a_set_of_undesired_answers_stops_the_run(tmp_path, tokenizer_folder):
    path = tmp_path / "kto.jsonl"
    path.write_text('{"prompt": "q", "completion": "go away", "label": false}\n' * 4)
    data = DemonstrationDataModule(train=str(path), validation=None, tokenizer=tokenizer_folder)
    with pytest.raises(UserError, match="no rows left: 4 marked as undesired, so nothing"):
        data.setup("fit")


def test_labels_that_are_no_judgement_are_refused():
    value = {"prompt": "q", "completion": "r", "label": 3}
    assert '"label" must be true or false (undesired), got 3' in refused(parse_demonstration, value)


def test_what_prompts_carry_goes_through_labels_to_the_reward_model():
    prompt = parse_prompt(item({"prompt": "q", "label": "pigs", "question": "q"})).row.prompt
    assert prompt.meta == {"label": "pigs", "question": "q"}
    ranked = {**prompt.meta, "prompt": prompt.text, "responses": ["a", "b"], "ranking": [2, 1]}
    assert parse_comparison(item(ranked)).row.prompt.meta == prompt.meta


def test_a_prompt_that_is_not_its_turns_is_refused():
    value = {"prompt": "Summarise the chat.", "messages": [user("q")], "response": "r"}
    assert '"messages" must be the turns of "prompt"' in refused(parse_demonstration, value)
    value["prompt"] = "\n\nHuman:  q\n\nAssistant:"
    assert parse_demonstration(item(value)).row.prompt.text == value["prompt"]


def test_what_verl_and_trl_carry_reaches_reward_functions():
    value = {
        "data_source": "x",
        "prompt": [system("Think."), user("1 + 2?")],
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": "3"},
        "extra_info": {"index": 0},
    }
    row, name = parse_prompt(item(value))
    assert name.startswith("verl")
    assert row.prompt.messages == value["prompt"]
    assert row.prompt.meta == {key: value[key] for key in value if key != "prompt"}
    row, _ = parse_prompt(item({"prompt": [user("q")], "solution": "3"}))
    assert (row.prompt.text, row.prompt.meta) == ("q", {"solution": "3"})


def test_metadata_is_in_the_batches_that_ppo_scores(tmp_path, tokenizer_folder):
    path = tmp_path / "verl.jsonl"
    row = {"prompt": [user("1 + 2?")], "reward_model": {"ground_truth": "3"}}
    path.write_text(json.dumps(row) + "\n")
    data = PromptDataModule(train=str(path), validation=None, tokenizer=tokenizer_folder)
    data.setup("fit")
    (prompt,) = data.rollout_prompts(0, 1, 0, 1).prompts
    assert prompt.meta == {"reward_model": {"ground_truth": "3"}}
    assert "  columns: prompt used as prompt; reward_model kept as metadata" in data.summary


def test_the_summary_names_every_column_and_counts_what_is_left_out(tmp_path):
    path = tmp_path / "kto.jsonl"
    path.write_text(
        '{"id": 1, "prompt": "q", "completion": "r", "label": true, "topic": "pigs", "x": null}\n'
        '{"id": 2, "prompt": "q", "completion": "no", "label": false, "topic": "cows", "x": null}\n'
    )
    summary = Summary()
    rows = load([str(path)], "demonstration", "stop", summary)
    assert [row.responses for row in rows] == [["r"]]
    lines = summary.lines()
    assert lines[0] == f"read {path}: 2 KTO (prompt, completion, label)"
    assert lines[1] == (
        "  columns: prompt used as prompt; completion used as response; label used as mark of "
        "undesired rows; id used as names; topic kept as metadata; x empty"
    )
    assert f"dropped 1: marked as undesired, so nothing to imitate (first: {path}:2)" in lines
    summary = Summary()
    load([str(path)], "prompt", "stop", summary)
    assert "completion not used" in summary.lines()[1]


def test_columns_of_text_are_named():
    row = parse_text(item({"text": "x", "lang": "en"})).row
    assert row.told.columns == {"text": "used as text", "lang": "not used"}


@pytest.mark.parametrize("keys", [["query", "answer"], ["query", "response"], ["text", "label"]])
def test_what_only_looks_like_a_format_is_refused_with_its_keys(keys):
    value = dict.fromkeys(keys, "x")
    for parse in (parse_prompt, parse_demonstration, parse_comparison):
        assert f"is missing, got the keys {sorted(keys)}" in refused(parse, value)
    value = {**value, "chosen": "x", "rejected": "y"}
    listed = ", ".join(sorted(value))
    assert f"there is no prompt (the keys are {listed})" in refused(parse_comparison, value)
