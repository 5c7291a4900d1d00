"""No option of a verb without an effect: each is flipped, and other files or lines come out."""

import inspect
import io
import json
import shutil
from collections import Counter

import huggingface_hub
import pytest
import torch
from option_runs import Inputs
from public_rows import GSM8K, ROWS
from rows import write_rows
from stand_in_hub import Hub
from toy_stage import fit

from instructgpt.__main__ import main as run
from instructgpt.commands.benchmark import benchmark
from instructgpt.commands.cache import cache
from instructgpt.commands.evaluate import evaluate
from instructgpt.commands.export import export
from instructgpt.commands.generate import generate
from instructgpt.commands.label import label
from instructgpt.commands.pipeline import pipeline
from instructgpt.commands.prepare import prepare
from instructgpt.commands.world import world
from instructgpt.verbs import VERBS

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
TYPED = {"prompts": None, "output": None}  # a conversation of one line
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
        "against": ("{inputs}/sft_other", TYPED),
        "reward_model": ("{inputs}/reward", TYPED),
        "reference": "{inputs}/sft_other",
        "responses": 2,
        "max_response_tokens": 2,
        "stop": "e",
        "temperature": 0.2,
        "top_p": 0.1,
        "top_k": 1,
        "greedy": True,
        "min_response_tokens": 3,
        "repetition_penalty": 9.0,
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
        "reward_model": (
            "{inputs}/reward_other",
            {"by": "reward", "reward_model": "{inputs}/reward"},
        ),
        "choose": ('{"rows": 3}', {"by": "people"}),
        "heads": (
            '{"combine": "mean_minus_std", "std_coef": 2}',
            {"by": "reward", "reward_model": "{inputs}/reward_heads"},
        ),
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
    evaluate: {
        "answers": '{"sft": "{inputs}/sft.jsonl", "ppo": "{inputs}/sft.jsonl"}',
        "baseline": "ppo",
        "output": "elsewhere",
        "title": "another",
        "labels": '{"ppo": "P"}',
        "greedy": '{"sft": "{inputs}/ppo.jsonl", "ppo": "{inputs}/sft.jsonl"}',
        "nlp": '{"sft": "{inputs}/nlp.jsonl"}',
        "judge": "option_runs:the_shorter",
        "panels": "{inputs}/label/panels.json",
        "reward_model": "{inputs}/reward",
        "heads": ('{"combine": "min"}', {"reward_model": "{inputs}/reward_heads"}),
        "judge_model": "{inputs}/reward",
        "judge_endpoint": '{"url": "http://127.0.0.1:9", "model": "m", "key_from": "NO_SUCH_KEY"}',
        "comparisons": ("{inputs}/label/validation.jsonl", {"reward_model": "{inputs}/reward"}),
        "folds": (
            '{"0": "{inputs}/reward", "1": "{inputs}/reward_other"}',
            {
                "reward_model": "{inputs}/reward",
                "comparisons": "{inputs}/label/validation.jsonl",
                "panels": "{inputs}/label/panels.json",
            },
        ),
        "best_of_n": ("{inputs}/samples.jsonl", {"reward_model": "{inputs}/reward"}),
        "checkpoints": '{"ppo": "{inputs}/ppo_run"}',
        "checkpoint_prompts": (
            "{inputs}/ppo.jsonl",
            {"checkpoints": '{"ppo": "{inputs}/ppo_run"}'},
        ),
        "runs": '{"sft": "{inputs}/run"}',
        "claims": ("shown", {"roles": '{"sft": "sft"}'}),
        "roles": ('{"sft": "sft"}', {"claims": "shown"}),
        "run_info": "{inputs}/info.json",
        "seed": 1,
    },
    export: {
        "run": ("{inputs}/other_run", {"output": "out/x"}),
        "ckpt_path": ("last", {"output": "out/x"}),
        "adapter": ("{inputs}/sft", {"run": None}),
        "base": "{inputs}/sft",
        "output": ("elsewhere", {"output": "out/x"}),
        "license": ("mit", {"output": "out/x"}),
        "push": ("ann/pig", {"output": "out/x", "yes": None}),
        "public": (True, {"output": "out/x", "push": "ann/pig", "yes": True}),
        "yes": (True, {"output": "out/x", "push": "ann/pig"}),
    },
    cache: {"folder": "{inputs}", "clear": True},
    benchmark: {
        "models": '{"one": "{inputs}/sft_other"}',
        "sets": '{"rte": "{inputs}/rte.jsonl"}',
        "output": "elsewhere",
        "examples": '{"rte": "{inputs}/rte.jsonl"}',
        "max_response_tokens": 2,
        "max_tokens": 1,
        "seed": 1,
        "device": "mps",
        "dtype": "bfloat16",
        "trust_remote_code": (True, {"models": '{"one": "{inputs}/coded"}'}),
    },
}
ELSEWHERE = {
    pipeline: "tests/pipeline/test_pipeline.py and test_pipeline_verb.py",
    prepare: "tests/commands/test_prepare_options.py",
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
def look(inputs, make_answers, make_nlp, tmp_path, monkeypatch, capsys):
    """Run a verb, and return its exit code, what it wrote and said, and how often models ran."""
    if not (inputs.folder / "label").exists():
        write_answers(inputs.folder, make_answers, make_nlp)

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_x")

    def once(verb, options):
        place = tmp_path / "place"
        place.mkdir()
        monkeypatch.chdir(place)
        args = [f"--{name}={value}" for name, value in options.items() if value is not None]
        work = Counter()
        hook = torch.nn.modules.module.register_module_forward_hook(
            lambda module, *_: work.update([type(module).__name__])
        )
        monkeypatch.setattr("sys.stdin", io.StringIO("say hello\n"))
        capsys.readouterr()
        code = run([verb.__name__, *(arg.replace("{inputs}", str(inputs.folder)) for arg in args)])
        hook.remove()
        said = capsys.readouterr()
        files = [f for f in place.rglob("*") if f.is_file() and not f.name.startswith("events.")]
        written = {str(file.relative_to(place)): file.read_bytes() for file in files}
        shutil.rmtree(place)
        return code, written, said.out, said.err if code else "", work

    return once


def write_answers(folder, make_answers, make_nlp):
    """Answers, labels of them, and what else ``evaluate`` can read."""
    sets = {"samples": 12, "other": 14, "held": 6, "sft": 6, "ppo": 6}
    for name, count in sets.items():
        several = 1 if name in ("sft", "ppo") else 3
        shutil.copy(make_answers(name, {"general": count}, responses=several), folder)
    shutil.copy(make_nlp("sft", 7), folder / "nlp.jsonl")
    for name, public in {**ROWS, "gsm8k": GSM8K}.items():
        write_rows(folder / f"{name}.jsonl", public)
    (folder / "info.json").write_text('{"command": "pipeline", "stages": []}')
    row = json.loads((folder / "ppo.jsonl").read_text().splitlines()[0])
    sample = {"step": 1, "kind": "sampled", "prompt": row["prompt"], "kl": 1.0, "score": 1.0}
    sample |= {"response": row["responses"][0], "finished": True}
    (folder / "ppo_run").mkdir()
    (folder / "ppo_run/samples.jsonl").write_text(json.dumps(sample) + "\n")
    (folder / "ppo_run/metrics.json").write_text(json.dumps({"stage": "ppo", "validations": []}))
    paths = [f"--{name}={folder}/{file}" for name, file in LABEL.items()]
    assert run(["label", *paths]) == 0


LABEL = {"samples": "samples.jsonl", "validation": "held.jsonl", "output": "label"}


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
        cache: {},
        benchmark: {
            "models": '{"one": "{inputs}/sft"}',
            "sets": '{"rte": "{inputs}/rte.jsonl", "crows_pairs": "{inputs}/crows_pairs.jsonl", '
            '"gsm8k": "{inputs}/gsm8k.jsonl"}',
            "output": "out",
            "max_response_tokens": 6,
        },
        evaluate: {
            "answers": '{"sft": "{inputs}/sft.jsonl", "ppo": "{inputs}/ppo.jsonl"}',
            "output": "out",
        },
    }[verb]


@pytest.mark.parametrize(
    ("verb", "name"), CASES, ids=[f"{verb.__name__}.{name}" for verb, name in CASES]
)
def test_an_option_has_an_effect(verb, name, look, known):
    value, both = FLIPS[verb][name], {}
    if isinstance(value, tuple):
        value, both = value
    options = {**base(verb), **both}
    if (key := f"{verb.__name__} {options}") not in known:
        known[key] = look(verb, options)
    assert known[key] != look(verb, {**options, name: value})


@pytest.fixture(scope="module")
def known():
    """What was seen, by options: many are compared with the same call."""
    return {}


@pytest.mark.parametrize("verb", FLIPS, ids=lambda verb: verb.__name__)
def test_the_same_options_are_seen_the_same(verb, look, known):
    options = base(verb) | ({"output": "out/x"} if verb is export else {})
    assert look(verb, options) == look(verb, options)


def test_every_option_of_a_verb_is_flipped():
    for verb, flips in FLIPS.items():
        assert set(flips) == set(inspect.signature(verb).parameters), verb.__name__
    plain = {name for name, verb in VERBS.items() if not verb.trainer}
    assert {verb.__name__ for verb in (*FLIPS, *ELSEWHERE)} == plain


def test_a_checkpoint_of_an_adapter_is_refused(capsys):
    assert run(["export", "--adapter=x", "--output=y", "--ckpt_path=last"]) == 2
    assert "--ckpt_path must be left out with --adapter, got last" in capsys.readouterr().err
