"""What makes a stage run again: everything that decides on what it does, and nothing else."""

from pathlib import Path

import pytest

from instructgpt.commands.functions import FUNCTIONS
from instructgpt.pipeline.fingerprint import fingerprints
from instructgpt.pipeline.spec import read_spec
from instructgpt.types import UserError

TEXT = """
seed: 0
stages:
  world: {verb: predict, options: {size: 1}}
  sft: {verb: fit, config: sft.yaml, options: {model.init_from: "{world}", data.train: own.jsonl}}
  other: {verb: fit, config: other.yaml}
  ppo: {verb: fit, options: {init: "{sft}"}}
"""
SFT = """
output: runs/sft
model: {class_path: M, init_args: {init_from: earlier, tokenizer: words}}
data: {init_args: {train: overruled.jsonl, validation: held_out.jsonl}}
"""


@pytest.fixture
def files(toy):
    """A pipeline with the files that it and its config file name."""
    toy.write(TEXT)
    toy.write(SFT, "sft.yaml")
    toy.write("{lr: 1e-3}", "other.yaml")
    for name in ("own.jsonl", "overruled.jsonl", "held_out.jsonl", "earlier/a", "words/b"):
        toy.write("rows", name)
    return toy


def hashes(output="out", seed=None):
    return fingerprints(read_spec(Path("toy.yaml"), FUNCTIONS, Path(output), seed))


def changed(before, after):
    assert list(before) == list(after)
    return [name for name in before if before[name] != after[name]]


@pytest.mark.parametrize(
    ("file", "text", "again"),
    [
        ("toy.yaml", TEXT.replace("size: 1", "size: 2"), ["world", "sft", "ppo"]),
        ("toy.yaml", TEXT.replace('"{sft}"', '"{other}"'), ["ppo"]),
        ("toy.yaml", TEXT.replace("predict", "validate"), ["world", "sft", "ppo"]),
        ("toy.yaml", TEXT.replace("seed: 0", "seed: 1"), ["world", "sft", "other", "ppo"]),
        ("toy.yaml", TEXT.replace("seed: 0", "seed: 0\njobs: 7  # a comment"), []),
        ("sft.yaml", SFT.replace("class_path: M", "class_path: N"), ["sft", "ppo"]),
        ("sft.yaml", "# a comment\n" + SFT, []),
        ("other.yaml", "{lr: 0.0010}", []),
        ("other.yaml", "{lr: 2e-3}", ["other"]),
        ("own.jsonl", "other rows", ["sft", "ppo"]),
        ("held_out.jsonl", "other rows", ["sft", "ppo"]),
        ("words/b", "other words", ["sft", "ppo"]),
        ("words/c", "a new file", ["sft", "ppo"]),
        ("overruled.jsonl", "other rows", []),
        ("earlier/a", "another run", []),
        ("runs/sft/metrics.json", "{}", []),
    ],
)
def test_what_runs_again(files, file, text, again):
    before = hashes()
    files.write(text, file)
    assert changed(before, hashes()) == again


def test_the_seed_of_the_command_line_counts_and_the_folder_does_not(files):
    assert changed(hashes(), hashes(seed=0)) == []
    assert changed(hashes(), hashes(seed=5)) == ["world", "sft", "other", "ppo"]
    assert changed(hashes(), hashes(output="elsewhere")) == []


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("own.jsonl", "out/world/rows", 'data.train: "{world}/rows" among the options of sft'),
        ("own.jsonl", "[a, out/world]", 'data.train: "{world}" among'),
        ("own.jsonl", "out/pipeline.json", 'data.train: "{pipeline}" among'),
        ("sft.yaml", "default.yaml", 'model.tokenizer: "{world}/words" among'),
        ("sft.yaml", "[default.yaml, other.yaml]", 'model.tokenizer: "{world}/words" among'),
    ],
)
def test_a_path_into_a_stage_must_name_the_stage(files, there, old, new, message):
    """Without, it would not wait for the stage, nor run again with it."""
    files.write("model: {init_args: {tokenizer: out/world/words}}", "default.yaml")
    files.write(TEXT.replace(old, new, 1))
    if there:
        files.write("x", "out/world/rows")
        files.write("x", "out/world/words/a")
    with pytest.raises(UserError) as error:
        hashes()
    assert str(error.value).startswith("stages.sft: ")
    assert f"must name a stage in braces, got out/{'pipe' if 'pipe' in message else 'world'}" in (
        str(error.value)
    )
    assert message in str(error.value)


def test_a_path_into_a_stage_that_does_not_count_is_none(files):
    """Overruled by an option or a later file."""
    overruled = "{model: {init_args: {init_from: out/world/x, tokenizer: out/world/y}}}"
    files.write(overruled, "default.yaml")
    files.write("{model: {init_args: {tokenizer: null}}}", "later.yaml")
    files.write(TEXT.replace("sft.yaml", "[default.yaml, later.yaml]"))
    hashes()


def test_files_of_a_pattern_are_read(files):
    files.write(TEXT.replace("own.jsonl", "rows-*.jsonl"))
    files.write("rows", "rows-1.jsonl")
    before = hashes()
    files.write("rows", "other.jsonl")
    assert changed(before, hashes()) == []
    files.write("rows", "rows-2.jsonl")
    assert changed(before, hashes()) == ["sft", "ppo"]


def test_a_word_that_a_stage_is_called_is_no_path(files):
    files.write(TEXT.replace("size: 1", "baseline: sft"))
    hashes(output=".")


def test_a_path_into_another_pipeline_is_a_file_of_the_user(files):
    files.write(TEXT.replace("own.jsonl", "runs/first/world/rows"))
    files.write("rows", "runs/first/world/rows")
    before = hashes(output="runs/second")
    files.write("other rows", "runs/first/world/rows")
    assert changed(before, hashes(output="runs/second")) == ["sft", "ppo"]


@pytest.mark.parametrize("output", ["data/runs", "data"])
def test_of_a_folder_around_the_output_the_rest_is_read(files, output):
    files.write(TEXT.replace("own.jsonl", "data"))
    files.write("rows", "data/rows.jsonl")
    before = hashes(output)
    for name in ("world/rows.jsonl", "world.log", "pipeline.json", ".lock"):
        files.write("written", f"{output}/{name}")
    assert changed(before, hashes(output)) == []
    files.write("other rows", "data/rows.jsonl")
    assert changed(before, hashes(output)) == ["sft", "ppo"]


@pytest.mark.parametrize("text", [".", "..", "/", "~", "./", "../.."])
def test_punctuation_is_no_path(files, text):
    files.write(TEXT.replace("size: 1", f'stop: "{text}"'))
    before = hashes()
    files.write("rows", "new.jsonl")
    assert changed(before, hashes()) == []


def test_a_folder_that_is_called_like_an_option_is_not_read(files):
    """``data`` and ``model`` are keys of every config file, and folders of many projects."""
    before = hashes()
    files.write("rows", "data/other.txt")
    files.write("weights", "model/weights.bin")
    assert changed(before, hashes()) == []


def test_files_of_a_mixture_are_read(files):
    files.write(TEXT.replace("own.jsonl", "{own.jsonl: 0.5}"))
    before = hashes()
    files.write("other rows", "own.jsonl")
    assert changed(before, hashes()) == ["sft", "ppo"]


def test_appending_to_a_list_does_not_overrule_it(files):
    files.write(TEXT.replace("data.train:", "data.train+:"))
    before = hashes()
    files.write("other rows", "overruled.jsonl")
    assert changed(before, hashes()) == ["sft", "ppo"]


def test_a_file_of_the_user_inside_the_output_is_read(files):
    files.write("rows", "out/mine.jsonl")
    files.write(TEXT.replace("own.jsonl", "out/mine.jsonl"))
    before = hashes()
    files.write("other rows", "out/mine.jsonl")
    assert changed(before, hashes()) == ["sft", "ppo"]


def test_the_order_of_options_counts(files):
    """The order of ``answers`` is that of the report."""
    files.write(TEXT.replace("{size: 1}", "{answers: {a: x, b: y}}"))
    before = hashes()
    files.write(TEXT.replace("{size: 1}", "{answers: {b: y, a: x}}"))
    assert changed(before, hashes()) == ["world", "sft", "ppo"]
