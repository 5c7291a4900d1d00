"""No option of a verb without an effect: each is flipped, and other files or lines come out."""

import inspect
import shutil
from collections import Counter

import pytest
import torch
from option_runs import Inputs
from toy_stage import fit

from instructgpt.__main__ import main as run
from instructgpt.commands.evaluate import evaluate
from instructgpt.commands.export import export
from instructgpt.commands.generate import generate
from instructgpt.commands.label import label
from instructgpt.commands.pipeline import pipeline
from instructgpt.commands.world import world

WORLD_SIZES = {
    "documents": 8,
    "validation_documents": 4,
    "demonstrations": 12,
    "validation_demonstrations": 4,
    "label_prompts": 12,
    "rl_prompts": 12,
    "validation_prompts": 4,
    "general": 4,
    "closed": 1,
    "truth": 2,
    "toxic": 2,
    "nlp": 2,
}
# what is flipped to what; a pair has options that both runs have, too
FLIPS = {
    world: {
        **{name: size + 1 for name, size in WORLD_SIZES.items()},
        "output": "elsewhere",
        "seed": 1,
        "mix": "flat",
        "toxic_share": 0.9,
        "good_share": 0.9,
        "short_share": 0.05,
    },
    generate: {
        "model": "{inputs}/sft_other",
        "prompts": "{inputs}/prompts_other.jsonl",
        "output": "elsewhere",
        "responses": 2,
        "max_response_tokens": 2,
        "stop": "e",
        "temperature": 0.2,
        "top_p": 0.1,
        "top_k": 1,
        "greedy": True,
        "seed": 1,
        "template": ("hh", {"model": "{inputs}/bare"}),
        "batch_size": 1,
        "device": "mps",
        "dtype": "bfloat16",
        "trust_remote_code": (True, {"model": "{inputs}/coded"}),
    },
    label: {
        "samples": "{inputs}/other.jsonl",
        "validation": "{inputs}/held.jsonl",
        "output": "elsewhere",
        "by": "people",
        "seed": 1,
        "labelers": 4,
        "agreement": 0.9,
        "held_out_labelers": 3,
        "held_out_agreement": 0.9,
        "spread": 2.0,
        "shift": 3.0,
        "tie": 2.0,
        "folds": 2,
        "opposing": True,
    },
    export: {
        "run": ("{inputs}/other_run", {"output": "out/x"}),
        "ckpt_path": ("last", {"output": "out/x"}),
        "adapter": ("{inputs}/sft", {"run": None}),
        "base": "{inputs}/sft",
        "output": ("elsewhere", {"output": "out/x"}),
    },
}
ELSEWHERE = {
    pipeline: "tests/pipeline/test_pipeline.py and test_pipeline_verb.py",
    evaluate: "test_evaluate_verb.py: each section there is made by the option that it needs",
}
CASES = [(verb, name) for verb, flips in FLIPS.items() for name in flips]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    made = Inputs(folder)
    for name, epochs in (("run", 2), ("other_run", 1)):
        fit(folder / name, f"--trainer.max_epochs={epochs}", "--trainer.enable_progress_bar=false")
    return made


@pytest.fixture
def look(inputs, make_answers, tmp_path, monkeypatch, capsys):
    """Run a verb, and return its exit code, what it wrote and said, and how often models ran."""
    for name, sets in {"samples": {"general": 12}, "other": {"general": 14}}.items():
        shutil.copy(make_answers(name, sets, responses=3), inputs.folder / f"{name}.jsonl")
    shutil.copy(make_answers("held", {"general": 6}, responses=3), inputs.folder / "held.jsonl")

    def once(verb, options):
        place = tmp_path / "place"
        place.mkdir()
        monkeypatch.chdir(place)
        args = [f"--{name}={value}" for name, value in options.items() if value is not None]
        work = Counter()
        hook = torch.nn.modules.module.register_module_forward_hook(
            lambda module, *_: work.update([type(module).__name__])
        )
        capsys.readouterr()
        code = run([verb.__name__, *(arg.format(inputs=inputs.folder) for arg in args)])
        hook.remove()
        said = capsys.readouterr()
        written = {
            str(f.relative_to(place)): f.read_bytes() for f in place.rglob("*") if f.is_file()
        }
        shutil.rmtree(place)
        return code, written, said.out, said.err if code else "", work

    return once


def base(verb):
    """Options of the smallest call that does something."""
    return {
        world: {"output": "out", **WORLD_SIZES},
        generate: {
            "model": "{inputs}/sft",
            "prompts": "{inputs}/prompts.jsonl",
            "output": "out/answers.jsonl",
            "max_response_tokens": 6,
        },
        label: {"samples": "{inputs}/samples.jsonl", "output": "out"},
        export: {"run": "{inputs}/run"},
    }[verb]


@pytest.mark.parametrize(
    ("verb", "name"), CASES, ids=[f"{verb.__name__}.{name}" for verb, name in CASES]
)
def test_an_option_has_an_effect(verb, name, look):
    value, both = FLIPS[verb][name], {}
    if isinstance(value, tuple):
        value, both = value
    options = {**base(verb), **both}
    without, having = look(verb, options), look(verb, {**options, name: value})
    assert without != having
    assert without == look(verb, options)  # so the difference is the option's


def test_every_option_of_a_verb_is_flipped():
    for verb, flips in FLIPS.items():
        assert set(flips) == set(inspect.signature(verb).parameters), verb.__name__
    from instructgpt.__main__ import PLAIN_VERBS

    assert {verb.__name__ for verb in (*FLIPS, *ELSEWHERE)} == set(PLAIN_VERBS)


def test_a_checkpoint_of_an_adapter_is_refused(capsys):
    assert run(["export", "--adapter=x", "--output=y", "--ckpt_path=last"]) == 2
    assert "--ckpt_path must be left out with --adapter, got last" in capsys.readouterr().err
