"""Axes: what a key with one in it stands for, in stages, options and other axes."""

# ruff: noqa: E501  one case a line reads best

import pytest

from instructgpt.commands.functions import FUNCTIONS
from instructgpt.pipeline.spec import read_spec
from instructgpt.types import UserError

TEXT = """
matrix:
  algorithm:
    ppo: {label: PPO}
    rloo: {label: "RLOO, 2402.14740", config: rloo.yaml, cost: 7, options: {k: 4, size: 1}}
  model:
    base: {label: GPT, options: {model: "{pretrain}/export", stop: "\\n"}}
    <algorithm>: {label: <algorithm.label>}
  way:
    sampled: {}
    greedy: {options: {greedy: true}}
  fold: [0, 1]
stages:
  pretrain: {verb: fit}
  <algorithm>: {verb: fit, config: ppo.yaml, cost: 5, options: {init: "{pretrain}/export", size: 2}}
  <model>_<way>: {verb: generate, options: {model: "{<model>}/export", prompts: <way>.jsonl, stop: <eos>}}
  fold_<fold>: {verb: fit, options: {data: [<fold>.jsonl, "{pretrain}/<fold>"]}}
  report:
    verb: evaluate
    options:
      answers: {<model>: "{<model>_sampled}/r", own: x}
      labels: {<model>: <model.label>}
      folds.<fold>: "{fold_<fold>}"
      runs: {<algorithm>_<way>: "{<algorithm>_<way>}"}
      title: [<algorithm>, own, "<model>: <model.label>", <eos>]
"""


def spec_of(toy, text):
    for name in ("ppo.yaml", "rloo.yaml"):
        toy.write("{}", name)
    return read_spec(toy.write(text), FUNCTIONS)


def test_the_same_as_written_out(toy):
    long = """
stages:
  pretrain: {verb: fit}
  ppo: {verb: fit, config: ppo.yaml, cost: 5, options: {init: "{pretrain}/export", size: 2}}
  rloo: {verb: fit, config: rloo.yaml, cost: 7, options: {init: "{pretrain}/export", size: 1, k: 4}}
  base_sampled: {verb: generate, options: {model: "{pretrain}/export", prompts: sampled.jsonl, stop: "\\n"}}
  base_greedy: {verb: generate, options: {model: "{pretrain}/export", prompts: greedy.jsonl, stop: "\\n", greedy: true}}
  ppo_sampled: {verb: generate, options: {model: "{ppo}/export", prompts: sampled.jsonl, stop: <eos>}}
  ppo_greedy: {verb: generate, options: {model: "{ppo}/export", prompts: greedy.jsonl, stop: <eos>, greedy: true}}
  rloo_sampled: {verb: generate, options: {model: "{rloo}/export", prompts: sampled.jsonl, stop: <eos>}}
  rloo_greedy: {verb: generate, options: {model: "{rloo}/export", prompts: greedy.jsonl, stop: <eos>, greedy: true}}
  fold_0: {verb: fit, options: {data: [0.jsonl, "{pretrain}/0"]}}
  fold_1: {verb: fit, options: {data: [1.jsonl, "{pretrain}/1"]}}
  report:
    verb: evaluate
    options:
      answers: {base: "{base_sampled}/r", ppo: "{ppo_sampled}/r", rloo: "{rloo_sampled}/r", own: x}
      labels: {base: GPT, ppo: PPO, rloo: "RLOO, 2402.14740"}
      folds.0: "{fold_0}"
      folds.1: "{fold_1}"
      runs: {ppo_sampled: "{ppo_sampled}", ppo_greedy: "{ppo_greedy}", rloo_sampled: "{rloo_sampled}", rloo_greedy: "{rloo_greedy}"}
      title: [ppo, rloo, own, "base: GPT", "ppo: PPO", "rloo: RLOO, 2402.14740", <eos>]
"""
    short, written = spec_of(toy, TEXT), spec_of(toy, long)
    assert list(short.stages.items()) == list(written.stages.items())
    for name, stage in written.stages.items():
        assert short.arguments(short.stages[name]) == written.arguments(stage), "in this order"


def test_an_extension_adds_a_value_by_a_line(toy):
    toy.write(TEXT, "base.yaml")
    spec = spec_of(
        toy,
        """
extends: base.yaml
matrix:
  algorithm: {dpo: {label: DPO}, rloo: {options: {k: 8}}}
  way: {greedy: null}
  fold: [2]
stages:
  <algorithm>: {options: {size: 9}}
  report: {options: {runs: null}}
""",
    )
    added = {"dpo", "dpo_sampled", "fold_2"}
    gone = {"base_greedy", "ppo_greedy", "rloo_greedy"}
    toy.write(TEXT, "other.yaml")
    before = set(read_spec(toy.folder / "other.yaml", FUNCTIONS).stages)
    assert set(spec.stages) == before - gone | added
    assert spec.stages["dpo"].options == {
        "seed_everything": 0,
        "init": "{pretrain}/export",
        "size": 9,
    }
    rloo = spec.stages["rloo"]
    assert (rloo.options["k"], rloo.options["size"]) == (8, 1), "what a value carries goes first"
    assert rloo.configs == [f"{toy.folder}/rloo.yaml"]
    labels = spec.stages["report"].options["labels"]
    assert labels == {"base": "GPT", "ppo": "PPO", "rloo": "RLOO, 2402.14740", "dpo": "DPO"}
    assert set(spec.stages["report"].inputs) >= {"dpo_sampled", "fold_2"}


def test_what_a_value_carries_may_name_the_axes_of_the_stages_it_goes_to(toy):
    text = """
matrix:
  fold: [0, 1]
  size: {big: {options: {train: ["{data_<fold>}", <size>], map: {<fold>: x}}}}
stages:
  data_<fold>: {verb: predict}
  <size>_<fold>: {verb: fit}
"""
    stages = spec_of(toy, text).stages
    assert stages["big_1"].options["train"] == ["{data_1}", "big"]
    assert stages["big_1"].options["map"] == {"1": "x"}
    assert stages["big_1"].inputs == ["data_1"]


def test_a_new_axis_comes_before_the_one_that_names_it(toy):
    toy.write(TEXT, "base.yaml")
    text = """
extends: base.yaml
matrix:
  preference: {dpo: {}}
  model: {<preference>: {label: other}}
stages:
  <preference>: {verb: fit}
  <model>_<way>: {}
"""
    assert {"dpo", "dpo_greedy"} <= set(spec_of(toy, text).stages)


STAGES = "stages: {a: {verb: fit}, <x>_s: {verb: fit, options: {o: %s}}}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stages: {<x>: {verb: fit}}", "stages.<x>: <x> is no axis above: there is no matrix"),
        ("matrix: {policy: [p]}\nstages: {<polcy>: {verb: fit}}", "stages.<polcy>: <polcy> is no axis above; did you mean policy?"),
        ("matrix: {x: [p]}\nstages: {a: {verb: fit, options: {o: {<y>: 1}}}, <x>: {verb: fit}}", "stages.a.options.o: <y> is no axis above (there are x)"),
        ("matrix: {x: []}\nstages: {a: {verb: fit}}", "matrix.x must have at least one value, got none"),
        ("matrix: {x: [p]}\nstages: {a: {verb: fit}}", "matrix.x: no key has <x> in it"),
        ("matrix: {x: [a]}\nstages: {a: {verb: fit}, <x>: {verb: fit}}", "stages.<x> must not give a second stage a beside that of a; what a stage has by a value of an axis is written with the value, in matrix"),
        ("matrix: {x: [a, a]}\nstages: {<x>: {verb: fit}}", "matrix.x: a is given twice"),
        ("matrix: {x: [{a: 1}]}\nstages: {<x>: {verb: fit}}", "matrix.x: a value must be text, got {'a': 1}"),
        ("matrix: {x: [1]}\nstages: {<x>: {verb: fit}}", "stages: a name must be letters"),
        ("matrix: {x: [pipeline]}\nstages: {<x>: {verb: fit}}", "stages: a name must be letters"),
        ("matrix: {x: [a/b]}\nstages: {s_<x>: {verb: fit}}", "matrix.x: a value must be letters, digits, _ and -, got 'a/b'"),
        ("matrix: {x: [1.5]}\nstages: {s_<x>: {verb: fit}}", "matrix.x: a value must be text, got 1.5"),
        ("matrix: {x: [p], y: {<x>: {}, p: {}}}\nstages: {<y>: {verb: fit}}", "matrix.y: p is given twice, also by p"),
        ("matrix: {y: {<x>: {}}, x: [p]}\nstages: {<y>: {verb: fit}}", "matrix.y: <x> is no axis above: there is no matrix"),
        ("matrix: {x: {p: {option: {}}}}\nstages: {<x>: {verb: fit}}", "matrix.x.p: unknown key 'option'; did you mean options?"),
        ("matrix: {x: {p: {label: [a]}}}\nstages: {<x>: {verb: fit}}", "matrix.x.p: unknown key 'label'; a text must be in quotes"),
        ("matrix: {x: {p: a}}\nstages: {<x>: {verb: fit}}", "matrix.x.p must be a mapping with config, options, cost or texts, got 'a'"),
        ("matrix: {x: {p: {options: 1}}}\nstages: {<x>: {verb: fit}}", "matrix.x.p.options must be a mapping of options, got 1"),
        ("matrix: {x: {p: {cost: 0}}}\nstages: {<x>: {verb: fit}}", "matrix.x.p.cost must be a number > 0, got 0"),
        ("matrix: {x: {p: {config: no.yaml}}}\nstages: {<x>: {verb: fit}}", "stages.p.config must be an existing file, got "),
        ("matrix: {x: {p: null}}\nstages: {<x>: {verb: fit}}", "matrix.x.p must not be null, which removes it from what the file extends, where it is not; {} is an empty one"),
        ("matrix: {x: null}\nstages: {a: {verb: fit}}", "matrix.x must not be null, which removes it from what the file extends, where it is not; {} is an empty one"),
        ("matrix: {x: 1}\nstages: {<x>: {verb: fit}}", "matrix.x must be a list or a mapping of values, got 1"),
        ("matrix: [x]\nstages: {<x>: {verb: fit}}", "matrix must be a mapping of axes, got ['x']"),
        ("matrix: {x/y: [p]}\nstages: {<x>: {verb: fit}}", "matrix: a name must be letters"),
        ("matrix: {x: [p], y: [q]}\n" + STAGES % "<y>", "stages.p_s.options.o: <y> has no value here: <y> must be in the name of the stage or option, or in a key before it"),
        ("matrix: {x: [p]}\n" + STAGES % "'{<y>}/z'", "stages.p_s.options.o: <y> is no axis above (there are x)"),
        ("matrix: {x: [p]}\n" + STAGES % "'{<x>_t}'", "stages.p_s.options.o: {p_t} is no stage"),
        ("matrix: {x: [p]}\n" + STAGES % "<x.label>", "stages.p_s.options.o: <x.label>: p of x has no text label"),
        ("matrix: {x: {p: {options: {k: 1}}}}\n" + STAGES % "<x.options>", "stages.p_s.options.o: <x.options>: p of x has no text options"),
    ],
)  # fmt: skip
def test_what_is_wrong_ends_in_one_line(toy, text, message):
    with pytest.raises(UserError) as error:
        spec_of(toy, text)
    assert str(error.value).startswith(f"{toy.folder}/toy.yaml: {message}")
    assert "\n" not in str(error.value)
