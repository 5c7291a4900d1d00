"""What a YAML of stages means: order, names, options, extension."""

# ruff: noqa: E501  one case a line reads best

from pathlib import Path

import pytest

from instructgpt.commands.functions import FUNCTIONS
from instructgpt.pipeline.spec import read_spec
from instructgpt.types import UserError
from instructgpt.yaml_files import load_yaml

CHAIN = """
seed: 7
stages:
  world: {verb: predict}
  sft: {verb: fit, config: sft.yaml, options: {model.init_from: "{world}/x", data.train: {"{world}/t": 0.5}}}
  sample: {verb: generate, options: {model: "{sft}/export", prompts: p.jsonl, stop: null, responses: 4, greedy: true, seed: 3}}
"""


def spec_of(toy, text, **given):
    return read_spec(toy.write(text), FUNCTIONS, **given)


def arguments(spec):
    return {name: spec.arguments(stage) for name, stage in spec.stages.items()}


def test_the_commands_of_a_chain(toy):
    toy.write("{}", "sft.yaml")
    spec = spec_of(toy, CHAIN, output=Path("out"))
    assert arguments(spec) == {
        "world": ["predict", "--output", "out/world", "--seed_everything=7"],
        "sft": [
            *("fit", "--config", f"{toy.folder}/sft.yaml", "--output", "out/sft"),
            *("--seed_everything=7", "--model.init_from=out/world/x"),
            '--data.train={"out/world/t": 0.5}',
        ],
        "sample": [
            *("generate", "--output", "out/sample/responses.jsonl", "--seed=3"),
            *("--model=out/sft/export", "--prompts=p.jsonl", "--responses=4", "--greedy=true"),
        ],
    }
    assert [stage.inputs for stage in spec.stages.values()] == [[], ["world"], ["sft"]]


def test_what_the_command_line_gives_goes_before_the_file(toy):
    toy.write("{}", "sft.yaml")
    spec = spec_of(toy, CHAIN + "output: a\njobs: 5\n", output=Path("b"), seed=1, jobs=3)
    assert (spec.output, spec.seed, spec.jobs) == (Path("b"), 1, 3)
    assert arguments(spec)["world"][-1] == "--seed_everything=1"
    assert arguments(spec)["sample"][3] == "--seed=3", "a stage's own seed stays"


def test_a_verb_without_a_seed_gets_none(toy):
    spec = spec_of(toy, "stages: {e: {verb: export, options: {run: x}}}")
    assert arguments(spec)["e"] == ["export", "--output", "runs/toy/e/export", "--run=x"]


def test_the_file_that_says_what_ran_is_no_input(toy):
    spec = spec_of(toy, 'stages: {e: {verb: fit, options: {run: "{pipeline}"}}}')
    assert arguments(spec)["e"][-1] == "--run=runs/toy/pipeline.json"
    assert spec.stages["e"].inputs == []


def test_doubled_braces_and_other_braces_are_text(toy):
    text = """stages: {a: {verb: fit, options: {x: "{{a}}", y: '{"k": 1}', z: "{ a }"}}}"""
    assert arguments(spec_of(toy, text))["a"][-3:] == ["--x={a}", '--y={"k": 1}', "--z={ a }"]


def test_extension_merges_stages_and_options(toy):
    toy.write("{}", "base/sft.yaml")
    toy.write(
        """
output: runs/base
seed: 1
stages:
  world: {verb: predict, options: {size: 1, kind: plain}, cost: 5}
  sft: {verb: fit, config: sft.yaml, options: {from: "{world}"}}
  extra: {verb: fit}
  report: {verb: fit, options: {a: "{sft}"}}
""",
        "base/base.yaml",
    )
    spec = spec_of(
        toy,
        """
extends: base/base.yaml
seed: 2
stages:
  world: {options: {size: 2}}
  extra: null
  big: {verb: fit}
  report: {options: {b: "{big}"}}
  last: {verb: fit}
""",
    )
    assert list(spec.stages) == ["world", "sft", "big", "report", "last"], "big before report"
    assert (str(spec.output), spec.seed) == ("runs/base", 2)
    world = spec.stages["world"]
    assert world.options == {"seed_everything": 2, "size": 2, "kind": "plain"}
    assert (world.verb, world.cost) == ("predict", 5)
    assert spec.stages["sft"].configs == [f"{toy.folder}/base/sft.yaml"], "beside its own file"
    assert spec.stages["report"].inputs == ["sft", "big"]


def test_numbers_are_read_as_the_other_verbs_read_them(toy):
    spec = spec_of(toy, "stages: {a: {verb: fit, options: {x: [1e-3, 2.e-3, 5, no]}}}")
    assert arguments(spec)["a"][-1] == "--x=[0.001, 0.002, 5, false]"


def test_null_takes_back_an_option_of_a_plain_verb(toy):
    """As text it would be the word null; Lightning's verbs read null as it is meant."""
    toy.write(
        "stages: {a: {verb: generate, options: {model: m, prompts: p, stop: x, seed: 5}}, b: {verb: fit, options: {x: 1}}}",
        "base.yaml",
    )
    spec = spec_of(
        toy,
        "{extends: base.yaml, stages: {a: {options: {stop: null, seed: null}}, b: {options: {x: null}}}}",
    )
    assert arguments(spec)["a"][-3:] == ["--seed=0", "--model=m", "--prompts=p"]
    assert arguments(spec)["b"][-1] == "--x=null"


def test_a_config_file_may_give_what_a_verb_needs(toy):
    toy.write("{model: m, prompts: p}", "generate.yaml")
    spec = spec_of(toy, "stages: {a: {verb: generate, config: generate.yaml}}")
    assert arguments(spec)["a"][1:3] == ["--config", f"{toy.folder}/generate.yaml"]
    spec = spec_of(toy, "stages: {a: {verb: evaluate, options: {answers.sft: x}}}")
    assert arguments(spec)["a"][-1] == "--answers.sft=x"


def test_the_home_folder_of_the_output(toy, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    text = "stages: {a: {verb: fit}}\noutput: ~/runs"
    assert spec_of(toy, text).output == Path("/home/me/runs")
    assert spec_of(toy, text, output=Path("~/b")).output == Path("/home/me/b")


def test_merge_keys_may_be_merged_again(toy):
    """The merge into c comes first, and adds the keys of a to those that b has as written."""
    toy.write("{a: &a {lr: 1}, inner: {b: &b {<<: *a, lr: 3}}, c: {<<: *b, x: 4}}", "m.yaml")
    tree = load_yaml(Path("m.yaml"))
    assert tree == {"a": {"lr": 1}, "inner": {"b": {"lr": 3}}, "c": {"lr": 3, "x": 4}}


def test_a_config_above_a_linked_folder(toy):
    """``link/..`` is where the link leads to, not where it stands."""
    toy.write("{}", "far/sft.yaml")
    toy.write("{}", "far/inner/x")
    (toy.folder / "link").symlink_to(toy.folder / "far/inner")
    spec = spec_of(toy, "stages: {a: {verb: fit, config: link/../sft.yaml}}")
    assert spec.stages["a"].configs == [f"{toy.folder}/link/../sft.yaml"]


ONE = "stages: {a: {verb: fit}, b: {verb: fit, options: {x: %s}}}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stages: {a: {verb: fit}\nseed: 1", "toy.yaml:2:1: expected ',' or '}'"),
        ("stages:\n  a: {verb: fit}\n  a: {verb: fit}", "toy.yaml:3:3: a is given twice"),
        ("stages: {a: {verb: fit}}\nsed: 1", "toy.yaml: unknown key 'sed'; did you mean seed?"),
        ("output: ''\nstages: {a: {verb: fit}}", "toy.yaml: output must name a folder, got ''"),
        ("2020-01-01: x", "toy.yaml: keys must be str"),
        ("a: &x {b: *x}", "toy.yaml: aliases must not form a circle"),
        ("stages: {a: {verb: generate, options: {}}}", "toy.yaml: stages.a.options: generate needs model, got none"),
        ("stages: {a: {verb: generate, options: {model: x}}}", "toy.yaml: stages.a.options: generate needs prompts, got none"),
        ("stages: {a: {verb: generate, options: {model: x, prompts: null}}}", "toy.yaml: stages.a.options: generate needs prompts, got none"),
        ("- a", "toy.yaml: must be a mapping with extends, output, seed, jobs, inputs, matrix, stages, got ['a']"),
        ("seed: 1", "toy.yaml: stages must name at least one stage, got none"),
        ("seed: x\nstages: {a: {verb: fit}}", "toy.yaml: seed must be int, got 'x'"),
        ("seed: -1\nstages: {a: {verb: fit}}", "toy.yaml: seed must be >= 0, got -1"),
        ("jobs: 0\nstages: {a: {verb: fit}}", "toy.yaml: jobs must be >= 1, got 0"),
        ("stages: [a]", "toy.yaml: stages must be a mapping of names, got ['a']"),
        ("stages: {a/b: {verb: fit}}", "toy.yaml: stages: a name must be letters"),
        ("stages: {pipeline: {verb: fit}}", "toy.yaml: stages: a name must be letters"),
        ("stages: {a: fit}", "toy.yaml: stages.a: must be a mapping with verb, config, options, cost, threads, needs, launch, slurm, got 'fit'"),
        ("stages: {a: {verbs: fit}}", "toy.yaml: stages.a: unknown key 'verbs'; did you mean verb?"),
        ("stages: {a: {verb: fitt}}", "toy.yaml: stages.a.verb: unknown verb 'fitt'; did you mean fit?"),
        ("stages: {a: {cost: 1}}", "toy.yaml: stages.a.verb: unknown verb 'None' (there are fit, "),
        ("stages: {a: {verb: pipeline}}", "toy.yaml: stages.a.verb: unknown verb 'pipeline'"),
        ("stages: {a: {verb: fit, config: no.yaml}}", "toy.yaml: stages.a.config must be an existing file, got "),
        ("stages: {a: {verb: fit, config: {a: 1}}}", "toy.yaml: stages.a.config must be a file or a list of files"),
        ("stages: {a: {verb: fit, cost: 0}}", "toy.yaml: stages.a.cost must be a number > 0, got 0"),
        ("stages: {a: {verb: fit, threads: 0}}", "toy.yaml: stages.a.threads must be a whole number >= 1, got 0"),
        ("stages: {a: {verb: fit, threads: 1.5}}", "toy.yaml: stages.a.threads must be a whole number >= 1, got 1.5"),
        ("stages: {a: {verb: fit, options: [x]}}", "toy.yaml: stages.a.options must be a mapping of options, got ['x']"),
        ("stages: {a: {verb: generate, options: {modl: x}}}", "toy.yaml: stages.a.options: unknown option 'modl'; did you mean model?"),
        ("stages: {a: {verb: fit, options: {output: x}}}", "toy.yaml: stages.a.options: output is given by the pipeline"),
        ("stages: {a: {verb: fit, options: {ckpt_path: x}}}", "toy.yaml: stages.a.options: ckpt_path is given by the pipeline"),
        ("stages: {a: {verb: fit, options: {x: 2020-01-01}}}", "toy.yaml: stages.a.options.x must be text, a number,"),
        (ONE % '"{c}"', "toy.yaml: stages.b.options.x: {c} is no stage (there are a, b); braces are written {{ and }}"),
        (ONE % '"{b}/x"', "toy.yaml: stages.b.options.x: {b} must be a stage above this one"),
        (ONE % "{a}", 'toy.yaml: stages.b.options.x: {a} must be in quotes, "{a}"'),
        (ONE % '"{a.last}"', "toy.yaml: stages.b.options.x: {a must be closed by }, got '{a.last}'"),
        (ONE % '"{a/export"', "toy.yaml: stages.b.options.x: {a must be closed by }, got '{a/export'"),
        (ONE % '["{c}/x"]', "toy.yaml: stages.b.options.x: {c} is no stage"),
        ("stages: {a: {verb: fit}}\nrounds: {count: 2}", "toy.yaml: unknown key 'rounds' (there are extends, "),
        ("stages: {a: {verb: fit, options: {x: '{b}'}}, b: {verb: fit}}", "toy.yaml: stages.a.options.x: {b} must be a stage above"),
        ("extends: no.yaml", "toy.yaml: extends must be an existing file, got "),
        ("extends: toy.yaml", "toy.yaml: extends must not lead in a circle, got "),
        ("extends: 3", "toy.yaml: extends must name a file, got 3"),
        ("stages: {a: null}", "toy.yaml: stages.a must not be null"),
    ],
)  # fmt: skip
def test_what_is_wrong_ends_in_one_line(toy, text, message):
    with pytest.raises(UserError) as error:
        spec_of(toy, text)
    line = str(error.value).replace(f"{toy.folder}/", "", 1)
    assert line.startswith(message)
    assert "\n" not in line
