"""Small sets that other tools read wrongly, as public reports of their users have them."""

import json
from typing import Any

import pytest

from instructgpt.data.comparisons import ComparisonDataModule
from instructgpt.data.demonstrations import DemonstrationDataModule
from instructgpt.data.prompts import PromptDataModule
from instructgpt.types import UserError

COW = {"role": "user", "content": "Where does the cow sleep?"}


def answer(text, role="assistant"):
    return {"role": role, "content": text}


@pytest.fixture
def read(write, tokenizer_folder):
    """Reads rows as the files of a stage, and gives its data module."""

    def read(kind, rows, name="rows.jsonl", **options: Any):
        if isinstance(rows, list) and name.endswith(".json"):
            rows = json.dumps(rows)
        path = str(write(name, rows))
        settings = {"validation": None, "tokenizer": tokenizer_folder, "template": "plain"}
        data = kind(train=path, **settings, **options)
        data.setup("fit")
        return data

    return read


def seen(data):
    """What the model reads of each row: prompt and response of SFT, or a prompt of PPO."""
    decode = data.tokenizer.decode
    return [decode(row.tokens).removesuffix("<|endoftext|>") for row in data.train_rows]


def pairs(data):
    (line,) = [line for line in data.summary if line.startswith("rankings: ")]
    return line.partition("; ")[2]


def test_dolly_has_its_passage(read):
    row = {"instruction": "Who?", "context": "It says moo.", "response": "A cow.", "category": "x"}
    (text,) = seen(read(DemonstrationDataModule, [row]))
    assert text == "Who?\n\nIt says moo.A cow."


def test_alpaca_has_system_and_history_in_order(read):
    row = {"instruction": "And now?", "input": "", "output": "Moo.", "system": "Be a cow."}
    row["history"] = [["Hungry?", "Yes."], ["Tired?", "No."]]
    (text,) = seen(read(DemonstrationDataModule, [row], "rows.json"))
    said = ("Be a cow", "Hungry", "Yes", "Tired", "No.", "And now", "Moo")
    places = [text.index(one) for one in said]
    assert places == sorted(places)
    (prompt,) = seen(read(PromptDataModule, [row], "rows.json"))
    assert text.startswith(prompt)


def test_undesired_answers_of_kto_are_left_out_and_counted(read):
    rows = [
        {"prompt": COW["content"], "completion": "In a barn.", "label": True},
        {"prompt": COW["content"], "completion": "Who cares.", "label": False},
    ]
    data = read(DemonstrationDataModule, rows)
    (text,) = seen(data)
    assert text.endswith("In a barn.")
    assert any(line.startswith("dropped 1: marked as undesired") for line in data.summary)


@pytest.mark.parametrize("names", ["human gpt", "User Chatbot", "prompter model", "user AI"])
def test_speakers_have_many_names(read, names):
    asks, says = names.split()
    turns = [{**COW, "role": asks}, answer("In a barn.", says)]
    (text,) = seen(read(DemonstrationDataModule, [{"messages": turns}]))
    assert text == f"{COW['content']}In a barn."


def test_a_speaker_that_nobody_knows_is_refused_by_name(read):
    turns = [COW, answer("He smiles.", "stage"), answer("In a barn.")]
    with pytest.raises(UserError, match=r'"messages\[1\]" must have a known role .* got \'stage'):
        read(DemonstrationDataModule, [{"messages": turns}])


def test_prompts_that_are_turns_are_read_by_ppo(read):
    trl = {"prompt": [COW]}
    verl = {**trl, "data_source": "farm", "reward_model": {"ground_truth": "barn"}}
    assert seen(read(PromptDataModule, [trl])) == [COW["content"]]
    data = read(PromptDataModule, [verl])
    (prompt,) = data.rollout_prompts(0, 1, 0, 1).prompts
    assert prompt.meta == {"data_source": "farm", "reward_model": {"ground_truth": "barn"}}
    done = {**trl, "completion": [answer("In a barn.")]}
    assert seen(read(DemonstrationDataModule, [done])) == [f"{COW['content']}In a barn."]


def test_equal_texts_and_equal_scores_are_ties(read):
    def pair(chosen, rejected, better, worse):
        scores = {"score_chosen": better, "score_rejected": worse}
        return {"prompt": "q", "chosen": chosen, "rejected": rejected, **scores}

    rows = [pair("a", "b", 2, 1), pair("a", "a", 2, 2), pair("a", "c", 3.5, 3.5)]
    rows.append(pair("d", "b", 9, 0))
    assert pairs(read(ComparisonDataModule, rows)) == "2 decided pairs, 2 ties"
    ranked = {"prompt": "q", "responses": ["a", "b", "a"], "ranking": [1, 3, 2]}
    assert pairs(read(ComparisonDataModule, [ranked] * 2)) == "4 decided pairs, 2 ties"


@pytest.mark.parametrize(
    ("kind", "row", "message"),
    [
        (
            ComparisonDataModule,
            '{"prompt": "q", "responses": ["a", "b"], "ranking": [1, 9223372036854775808]}',
            r'rows.jsonl:1: "ranking\[1\]" must be less than 2\^63',
        ),
        (
            DemonstrationDataModule,
            r'{"prompt": "q", "response": "r", "user": "\udc00"}',
            'rows.jsonl:1: "user" must be valid Unicode',
        ),
    ],
)
def test_numbers_and_names_that_nothing_can_hold_are_one_line(read, kind, row, message):
    good = {"prompt": "q", "response": "r", "responses": ["a", "b"], "ranking": [1, 2]}
    with pytest.raises(UserError, match=message):
        read(kind, f"{row}\n")
    data = read(kind, f"{row}\n{json.dumps(good)}\n", on_error="skip")
    assert len(data.train_rows) == 1
    assert any(line.startswith("skipped 1 bad") for line in data.summary)


def test_sharegpt_keeps_its_system_turn(read):
    turns = [("system", "Be a cow."), ("human", "Hungry?"), ("gpt", "Moo.")]
    row = {"conversations": [{"from": who, "value": what} for who, what in turns]}
    (text,) = seen(read(DemonstrationDataModule, [row]))
    assert text.index("Be a cow.") < text.index("Hungry?") < text.index("Moo.")


def test_a_binarised_set_serves_every_stage(read):
    row = {
        **{"prompt": COW["content"], "prompt_id": "x", "score_chosen": 7.5, "score_rejected": 2.0},
        **{"chosen": [COW, answer("In a barn.")], "rejected": [COW, answer("On Mars.")]},
        "messages": [COW, answer("In a barn.")],
    }
    assert pairs(read(ComparisonDataModule, [row])) == "1 decided pairs, 0 ties"
    assert seen(read(DemonstrationDataModule, [row])) == [f"{COW['content']}In a barn."]
    assert seen(read(PromptDataModule, [row])) == [COW["content"]]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.csv", '\ufeffprompt;response\n"Where, ""cow""?";Barn.\n', "separator ';'"),
        ("a.tsv", 'prompt\tresponse\n"Where, ""cow""?"\tBarn.\n', ""),
    ],
)
def test_tables_of_spreadsheets(read, name, content, told):
    data = read(DemonstrationDataModule, content, name)
    assert seen(data) == ['Where, "cow"?Barn.']
    assert any(told in line for line in data.summary)


def test_contents_in_parts(read):
    parts = [{"type": "text", "text": "Where?"}, {"type": "text", "text": "Now?"}]
    row = {"messages": [{**COW, "content": parts}, answer([{"type": "text", "text": "Barn."}])]}
    assert seen(read(DemonstrationDataModule, [row])) == ["Where?\nNow?Barn."]
