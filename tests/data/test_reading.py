"""``--data.format`` and ``--data.columns``: what the user says of the rows."""

import pickle

import pytest
from refusals import item, refused

from instructgpt.data.checks import missing
from instructgpt.data.demonstrations import DemonstrationDataModule
from instructgpt.data.formats import Told, parse_item
from instructgpt.data.reading import Reading
from instructgpt.data.summary import Summary
from instructgpt.data.tallies import Limit
from instructgpt.types import UserError


def read(value, wanted="demonstration", **said):
    (parsed,) = parse_item(item(value), wanted, Reading(**said))
    return parsed


def complaint(value, wanted="demonstration", **said):
    return refused(lambda one: parse_item(one, wanted, Reading(**said)), value)


QUIZ = {"question": "q", "best_answer": "a", "correct_answers": ["a", "b"], "topic": "pigs"}
MAPPED = {"prompt": "question", "response": "best_answer"}


def test_columns_are_told_by_their_names_in_the_file():
    row, name = read(QUIZ, columns=MAPPED)
    assert name == "demonstration (prompt, response)"
    assert (row.prompt.text, row.responses) == ("q", ["a"])
    assert row.prompt.meta == {"correct_answers": ["a", "b"], "topic": "pigs"}
    assert row.told.columns == {
        "question": "used as prompt",
        "best_answer": "used as response",
        "correct_answers": "kept as metadata",
        "topic": "kept as metadata",
    }


def test_paths_lead_into_objects_and_lists_whose_other_parts_are_named():
    answers = {"text": ["a", "b"], "score": [1, 2], "x": 0}
    value = {"ask": {"text": "q", "id": 3}, "answers": answers}
    columns = {"prompt": "ask.text", "responses": "answers.text", "ratings": "answers.score"}
    row, _ = read(value, "comparison", columns=columns)
    assert (row.prompt.text, row.responses, row.ranking) == ("q", ["a", "b"], [2, 1])
    assert row.told.columns["ask.id"] == row.told.columns["answers.x"] == "not used"
    listed = {"q": "q", "answers": [{"text": "a", "votes": 1}, {"text": "b", "votes": 3}]}
    columns = {"prompt": "q", "responses": "answers.text", "ratings": "answers.votes"}
    assert read(listed, "comparison", columns=columns).row.ranking == [2, 1]
    columns = {"prompt": "q", "response": "answers.1.text"}
    assert read(listed, columns=columns).row.responses == ["b"]


def test_a_column_with_a_dot_in_its_name_comes_before_a_path():
    value = {"a.b": "q", "a": {"b": "no"}, "response": "r"}
    assert read(value, "prompt", columns={"prompt": "a.b"}).row.prompt.text == "q"


def test_turns_and_systems_can_be_mapped_and_cells_may_be_json():
    value = {"chat": '[{"role": "user", "content": "q"}]', "persona": "s", "said": "a"}
    columns = {"messages": "chat", "system": "persona", "response": "said"}
    row, _ = read(value, columns=columns)
    assert [turn["role"] for turn in row.prompt.messages] == ["system", "user"]
    assert row.told.columns["persona"] == "used as system turn"


@pytest.mark.parametrize(
    ("value", "columns", "message"),
    [
        (
            QUIZ,
            {"prompt": "questio"},
            '"questio" is missing, which is prompt by --data.columns, got the keys '
            "['best_answer', 'correct_answers', 'question', 'topic']",
        ),
        (
            {**QUIZ, "prompt": "another"},
            MAPPED,
            "\"prompt\" must not be there when --data.columns has prompt: question, got 'another'",
        ),
        (QUIZ, {"prompt": "question.text"}, '"question.text" is missing, which is prompt by'),
        (
            {"question": 3, "best_answer": "a"},
            MAPPED,
            '"prompt" must be a string, got 3 (--data.columns prompt: question, response: best',
        ),
        (
            {"question": "q"},
            {"prompt": "question"},
            "\"response\" is missing, got the keys ['question']",
        ),
        (
            {**QUIZ, "context": "c"},
            MAPPED,
            '"context" changes what is asked',
        ),
    ],
)
def test_what_does_not_fit_is_one_line_with_the_names_of_the_file(value, columns, message):
    assert complaint(value, columns=columns).startswith(f"dir/a.jsonl:7: {message}")


def test_unknown_targets_are_refused_with_a_guess():
    with pytest.raises(UserError, match=r"got respons: x; did you mean response\?"):
        Reading(columns={"respons": "x"})


def test_a_name_forces_a_format():
    value = {"instruction": "q", "output": "a"}
    assert read(value, format="alpaca").row.responses == ["a"]
    rule = "must be a row of the format dolly (--data.format), got one of alpaca, with the keys"
    assert rule in complaint(value, format="dolly")
    assert '"prompt" is missing, got the keys' in complaint(value, "prompt", format="nectar")
    # what looks like another format is read as the one that is named
    both = {"prompt": "", "question": "q", "answer": "a"}
    row, name = read(both, format="question_answer")
    assert (row.responses, name) == (["a"], "question and answer (--data.format)")


def test_wrong_names_list_the_right_ones_the_nearest_first():
    with pytest.raises(UserError, match=r"^--data.format must be one of nectar, .*, got nectr$"):
        Reading("nectr")


def test_refusals_name_the_nearest_format_and_the_keys_of_the_file():
    value = {"history": "q", "human_ref_A": "a", "human_ref_B": "b"}
    message = complaint(value, "comparison")
    assert "got the keys ['history', 'human_ref_A', 'human_ref_B']" in message
    assert message.endswith(
        "; the nearest format is SHP (history, human_ref_A, human_ref_B, labels), which needs "
        '"labels"'
    )


def test_data_modules_say_what_they_took_and_why(write, tokenizer_folder):
    path = str(write("quiz.jsonl", [{**QUIZ, "question": f"q{i}"} for i in range(4)]))
    data = DemonstrationDataModule(
        train=path, validation=None, columns=MAPPED, tokenizer=tokenizer_folder
    )
    data.setup("fit")
    assert f"read {path}: 4 demonstration (prompt, response)" in data.summary
    assert any("question used as prompt; best_answer used as response" in s for s in data.summary)


def test_single_responses_with_scores_are_refused_where_they_are_learned():
    value = {"prompt": "q", "response": "a"}
    for key in ("score_response", "margin", "is_safe"):
        assert f'"{key}" changes what is learned' in complaint({**value, key: 1})
        assert read({**value, key: 1}, "prompt").row.prompt.meta == {key: 1}


def test_errors_and_summaries_travel_between_processes():
    error = missing("a.jsonl:1", {"question": 1}, "prompt", " of a chat")
    found = pickle.loads(pickle.dumps(error))
    assert (str(found), found.key, found.why) == (str(error), "prompt", " of a chat")
    summary = Summary()
    summary.read("a.jsonl", "text", "a.jsonl:1", Told({"text": "used as text"}, ["odd"]))
    summary.measure("prompt tokens", 3, Limit("prompts", "are left out", "--most", 2))
    assert pickle.loads(pickle.dumps(summary)).lines() == summary.lines()
