"""Answers of several models to the same prompts."""

import math

import pytest
from rows import write_rows

from instructgpt.evaluation.answers import load_answers
from instructgpt.miniature.grading import WORLD
from instructgpt.types import UserError


def rows(said, **more):
    return [
        {"id": f"{n}", "prompt": f"Question {n}?", "responses": [said], "finished": [True], **more}
        for n in range(2)
    ]


@pytest.mark.parametrize("meta", [{"turns": 3}, {"category": "chat"}, "a note", None, [1]])
def test_what_other_rows_say_in_meta_is_not_the_worlds(meta, tmp_path):
    paths = {name: str(tmp_path / f"{name}.jsonl") for name in ("a", "b")}
    for name, path in paths.items():
        write_rows(path, rows(f"said by {name}", meta=meta))
    found = load_answers(paths, "a", WORLD)
    assert [one.prompt.text for one in found.questions] == ["Question 0?", "Question 1?"]
    for name, answers in found.by_model.items():
        assert [[one.text for one in row] for row in answers] == [[f"said by {name}"]] * 2
        assert all(math.isnan(one.utility) for row in answers for one in row)
    others = rows("?", meta=meta)
    others[1]["prompt"] = "Another question?"
    write_rows(paths["b"], others)
    with pytest.raises(UserError, match=r'b\.jsonl:2: "prompt" must be the prompt of this id in'):
        load_answers(paths, "a", WORLD)
