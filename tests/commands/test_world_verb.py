"""``world`` from the command line."""

import json

import pytest

from instructgpt.__main__ import main as run

SMALL = {
    "documents": 60,
    "validation_documents": 7,
    "demonstrations": 20,
    "validation_demonstrations": 5,
    "label_prompts": 21,
    "rl_prompts": 22,
    "validation_prompts": 6,
    "general": 8,
    "closed": 2,
    "truth": 4,
    "toxic": 3,
    "nlp": 9,
}


def world(output, *more):
    sizes = [f"--{name}={size}" for name, size in SMALL.items()]
    assert run(["world", "--output", str(output), *sizes, *more]) == 0
    return {str(p.relative_to(output)): p.read_bytes() for p in output.rglob("*") if p.is_file()}


def test_same_bytes_twice_and_others_with_another_seed(tmp_path, capsys):
    one = world(tmp_path / "one")
    assert world(tmp_path / "two") == one
    assert "wrote 60 documents and 9 other files" in capsys.readouterr().out
    other = world(tmp_path / "other", "--seed=1")
    assert set(other) == set(one)
    same = {name for name in one if other[name] == one[name]}
    assert same == {"tokenizer/tokenizer.json", "tokenizer/tokenizer_config.json"}


def test_a_file_in_the_place_of_the_folder(tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    for output in (tmp_path / "file", tmp_path / "file" / "world"):
        assert run(["world", "--output", str(output)]) == 2
        assert f"--output must be a folder, got {output}" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_that_is_not_ours_is_refused_before_anything_is_written(tmp_path, capsys):
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "mine.txt").write_text("mine")
    sizes = [f"--{name}={size}" for name, size in SMALL.items()]
    assert run(["world", "--output", str(tmp_path), *sizes]) == 2
    assert "must not replace" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["tokenizer"]


def test_what_is_written(tmp_path):
    found = world(tmp_path, "--mix=flat", "--toxic_share=0")
    about = json.loads(found["world.json"])
    assert about["sizes"] == SMALL
    assert (about["seed"], about["mix"], about["toxic_share"]) == (0, "flat", 0)
    assert about["rows"] == {
        name: len(content.splitlines()) for name, content in found.items() if name.endswith("l")
    }
    assert about["rows"]["evaluation.jsonl"] == 8 + 4 * 2 + 4 + 3 * 3
    rows = [json.loads(line) for line in found["evaluation_few_shot.jsonl"].splitlines()]
    assert sum(row["set"] == "toxic_rude" for row in rows) == 3
    assert len(found["prompts_label.jsonl"].splitlines()) == 21
    assert len(found["demonstrations_validation.jsonl"].splitlines()) == 5
    assert len(about["misconceptions"]) == 35
    assert b"toxic" not in found["prompts_rl.jsonl"]
    assert not [name for name in found if name.startswith(".")]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--documents=0"], "--documents must be >= 1, got 0"),
        (["--toxic_share=1.5"], "--toxic_share must be in [0, 1], got 1.5"),
        (["--good_share=0.7"], "--good_share and --short_share must add up to at most 1, got 1.05"),
        (["--mix=round"], "--mix must be one of 'paper', 'flat', got round"),
        (["--document=3"], "unknown option --document; did you mean documents?"),
    ],
)
def test_wrong_input(tmp_path, capsys, options, message):
    assert run(["world", "--output", str(tmp_path / "out"), *options]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "out").exists()
