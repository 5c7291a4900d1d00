"""``label --by people --choose``: what people are asked about, and why."""

import numpy as np
import pytest
from refusals import parse_comparison
from rows import read_rows, write_rows

from instructgpt.__main__ import main as run
from instructgpt.data.files import Item
from instructgpt.evaluation.answers import answers_of, read_answers
from instructgpt.evaluation.scoring import Scorer
from instructgpt.feedback.acquisition import worth

ROWS = [
    {"id": f"{i}", "prompt": f"Q{i}", "responses": [f"a {i}", f"b b {i}", f"c {i % 3} c"]}
    for i in range(8)
]


@pytest.fixture
def label(tmp_path, monkeypatch):
    """Call the verb on eight rows and two that nobody can rank; its exit code."""
    monkeypatch.chdir(tmp_path)
    same = [{"prompt": "S", "responses": ["x", "x"]}, {"prompt": "T", "responses": ["x", " "]}]
    write_rows(tmp_path / "samples.jsonl", [*ROWS, *same])
    return lambda *more: run(
        ["label", "--samples=samples.jsonl", "--by=people", "--output=out", *more]
    )


def told(number, said, by):
    """What ``worth`` says of a row by the scores of a model."""
    row = read_answers("samples.jsonl")[number]
    found = said.each(answers_of(row, row.prompt, None))
    return worth(np.array([one.heads or (one.score,) for one in found]), by)


@pytest.mark.parametrize("by", ["disagreement", "closeness"])
def test_the_rows_that_are_worth_most_are_asked_about(label, make_reward_model, tmp_path, by):
    model = make_reward_model(3, heads=3)
    args = ["--choose.rows=3", f"--choose.by={by}", f"--reward_model={model}"]
    assert label(*args) == 3
    asked, scorer = read_rows(tmp_path / "out/to_label.jsonl"), Scorer(model)
    values = {ROWS[i]["id"]: told(i, scorer, by) for i in range(8)}
    best = sorted(values, key=values.__getitem__, reverse=True)[:3]
    assert [row["id"] for row in asked] == best
    for row in asked:
        why = row["acquisition"]
        assert (why["by"], why["among"]) == (by, 8)
        assert why["value"] == pytest.approx(values[row["id"]], abs=1e-5)
        parse_comparison(Item("x", "x", {**row, "ranking": [1, 2, 3]}))  # it can be trained on


def test_people_are_asked_once_and_nothing_is_scored_twice(
    label, make_reward_model, tmp_path, monkeypatch
):
    args = ["--choose.rows=2", "--choose.by=disagreement", f"--reward_model={make_reward_model(3)}"]
    args += [f"--choose.against={make_reward_model(4)}"]
    assert label(*args) == 3
    asked = read_rows(tmp_path / "out/to_label.jsonl")
    monkeypatch.setattr(Scorer, "_computed", None)
    assert label(*args) == 3
    assert read_rows(tmp_path / "out/to_label.jsonl") == asked
    write_rows(tmp_path / "out/comparisons.jsonl", [{**r, "ranking": [1, 2, 3]} for r in asked])
    assert label(*args) == 0
    left = {path.name for path in (tmp_path / "out").iterdir()}
    assert left == {"to_label.jsonl", "comparisons.jsonl", ".people"}


def test_at_random_no_model_is_asked(label, tmp_path, capsys):
    assert label("--choose.rows=4", "--seed=5") == 3
    asked = read_rows(tmp_path / "out/to_label.jsonl")
    assert len(asked) == 4
    assert all(row["acquisition"] == {"by": "random", "among": 8} for row in asked)
    assert "4 of 8 prompts are chosen at random" in capsys.readouterr().out
    assert label("--choose.rows=4", "--seed=6") == 3
    other = read_rows(tmp_path / "out/to_label.jsonl")
    assert {row["id"] for row in other} != {row["id"] for row in asked}
    assert label() == 3
    every = read_rows(tmp_path / "out/to_label.jsonl")
    assert [row["id"] for row in every] == [row["id"] for row in ROWS]
    assert not any("acquisition" in row for row in every)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--choose.rows=0"], "--choose.rows must be >= 1, got 0"),
        (["--choose.by=closeness"], "--choose.by must be left out without --choose.rows"),
        (["--choose.rows=1", "--choose.by=closeness"], "--reward_model must be given with"),
        (["--choose.rows=1", "--choose.against=x"], "--choose.against must be left out unless"),
        (["--reward_model=x"], "--reward_model must be left out at random, got x"),
    ],
)
def test_a_wrong_option_is_one_line(label, capsys, options, message):
    assert label(*options) == 2
    assert message in capsys.readouterr().err


def test_one_head_has_nobody_to_disagree_with(label, make_reward_model, capsys, tmp_path):
    args = ["--choose.rows=1", "--choose.by=disagreement", f"--reward_model={make_reward_model(3)}"]
    assert label(*args) == 2
    assert "--choose.by disagreement needs --choose.against" in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("*.partial*"))
