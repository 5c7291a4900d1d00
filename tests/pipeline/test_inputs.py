"""What a pipeline is given by flags: in its options, beside stages, missing, left out."""

# ruff: noqa: E501  one case a line reads best

from functools import partial

import pytest

from instructgpt.commands.functions import FUNCTIONS
from instructgpt.commands.pipeline import main
from instructgpt.errors import guarded
from instructgpt.pipeline.spec import read_spec

TEXT = """
output: out
inputs: {model: null, rows: rows.jsonl, first: "{a}/first.jsonl", sets: [], size: 3}
matrix: {arm: {plain: {}, more: {needs: sets, options: {sets: "{sets}"}}}}
stages:
  a: {verb: fit, options: {from: "{model}", at: "{model}/export", rows: "{rows}", size: "{size}"}}
  b_<arm>: {verb: fit, options: {data: ["{rows}", x.jsonl], first: "{first}"}}
  tax: {verb: fit, needs: sets, options: {sets: "{sets}"}}
  last: {verb: fit, options: {arms: {<arm>: "{b_<arm>}"}}}
"""


@pytest.fixture
def options(toy):
    toy.write("{}", "rows.jsonl")
    toy.write("{}", "other.jsonl")
    path = toy.write(TEXT)

    def found(**inputs):
        spec = read_spec(path, FUNCTIONS, inputs=inputs)
        return {name: (stage.options, stage.inputs) for name, stage in spec.stages.items()}

    return found


def test_a_name_in_braces_is_the_value(options):
    stages = options(model="m")
    assert set(stages) == {"a", "b_plain", "last"}
    given, inputs = stages["a"]
    assert given | {"seed_everything": 0} == {
        **{"seed_everything": 0, "from": "m", "at": "m/export"},
        **{"rows": "rows.jsonl", "size": 3},
    }
    assert inputs == []


def test_a_default_may_name_a_stage_and_a_flag_is_text(options):
    given, inputs = options(model="m")["b_plain"]
    assert (given["first"], inputs) == ("{a}/first.jsonl", ["a"])
    given, inputs = options(model="m", first="other.jsonl")["b_plain"]
    assert (given["first"], inputs) == ("other.jsonl", [])
    assert options(model="x{a}")["a"][0]["from"] == "x{{a}}"


def test_a_list_or_a_mapping_takes_the_place_of_its_name(options):
    stages = options(model="m", rows="[rows.jsonl, other.jsonl]", sets="{rte: other.jsonl}")
    assert stages["b_plain"][0]["data"] == ["rows.jsonl", "other.jsonl", "x.jsonl"]
    assert stages["tax"][0]["sets"] == {"rte": "other.jsonl"}


def test_what_needs_an_input_is_there_only_with_it(options):
    assert options(model="m")["last"][0]["arms"] == {"plain": "{b_plain}"}
    stages = options(model="m", sets="[other.jsonl]")
    assert stages["last"][0]["arms"] == {"plain": "{b_plain}", "more": "{b_more}"}
    assert stages["b_more"][0]["sets"] == ["other.jsonl"]


def test_another_file_changes_the_defaults(toy):
    toy.write("{}", "rows.jsonl")
    toy.write("{}", "other.jsonl")
    toy.write(TEXT, "base.yaml")
    path = toy.write("extends: base.yaml\ninputs: {model: m, rows: other.jsonl}")
    options = read_spec(path, FUNCTIONS).stages["a"].options
    assert (options["from"], options["rows"]) == ("m", "other.jsonl")


def run(toy, *args):
    return guarded(partial(main, entry="toy_verbs:main"), ["--config=toy.yaml", *args])


def test_flags_reach_the_stages_and_what_changed_runs_again(toy, capsys):
    toy.write("{}", "rows.jsonl")
    toy.write(
        'output: out\ninputs: {rows: null}\nstages: {a: {verb: fit, options: {x: "{rows}"}}, b: {verb: fit}}'
    )
    toy.output = toy.folder / "out"
    assert run(toy, "--rows", "rows.jsonl") == 0
    assert "input     rows: rows.jsonl" in capsys.readouterr().out
    assert sorted(toy.began()) == ["a", "b"]
    assert run(toy, "--rows=rows.jsonl") == 0
    assert toy.began() == []
    assert run(toy, "--rows=else") == 0
    assert toy.began() == ["a"]
    assert "--rows=else" in (toy.output / "pipeline.json").read_text()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "--model must be given: toy.yaml has no default for it"),
        (["--model="], "--model must not be empty, got ''"),
        (["--model=/no/where"], "--model must be there, got /no/where (in "),
        (["--model=m", "--rows=no.jsonl"], "--rows must be there, got no.jsonl (in "),
        (["--model=m", "--rows=[rows.jsonl, no.jsonl]"], "--rows must be there, got no.jsonl (in "),
        (["--model=m", "--rows={no.jsonl: 2}"], "--rows must be there, got no.jsonl (in "),
        (["--model=m", "--rows=[a"], "--rows: "),
        (["--model=[m, n]"], "toy.yaml: stages.a.options: {model} is within '{model}/export', so --model must be text"),
        (["--mode=m"], "unknown option --mode; did you mean model?"),
    ],
)  # fmt: skip
def test_what_a_user_gets_wrong(toy, capsys, args, message):
    toy.write("{}", "rows.jsonl")
    toy.write(TEXT)
    assert run(toy, *args) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].removeprefix("instructgpt: error: ").startswith(message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("inputs: [a]", "inputs must be a mapping of names, got ['a']"),
        ("inputs: {seed: 1}", "inputs: a name must be letters, digits and _, and none of config, "),
        ("inputs: {a-b: 1}", "inputs: a name must be letters, digits and _, and none of config, "),
        ("inputs: {a: 1}", "stages.a must not be called like an input"),
        ("inputs: {x: 1}\nmatrix: {arm: {one: {needs: y}}}", "matrix.arm.one.needs must be an input (there are: x), got 'y'"),
    ],
)  # fmt: skip
def test_what_a_file_gets_wrong(toy, capsys, text, message):
    toy.write(f"{text}\nstages: {{a: {{verb: fit}}}}")
    assert run(toy) == 2
    assert message in capsys.readouterr().err


def test_help_names_the_inputs(toy, capsys):
    toy.write(TEXT)
    assert run(toy, "--help") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "--model VALUE input of the file; must be given." in said
    assert "--rows VALUE input of the file; default: rows.jsonl." in said
