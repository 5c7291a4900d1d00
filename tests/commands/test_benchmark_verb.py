"""``benchmark`` on tiny models: results, the tax, what it refuses, and going on after a kill."""

import gzip
import json
import os
import signal

import pytest
import torch
from harness import killed
from public_rows import GSM8K, ROWS
from rows import read_rows, write_rows

from instructgpt.__main__ import main as run
from instructgpt.evaluation import likelihood
from instructgpt.evaluation.public_sets import SETS
from instructgpt.models.artefact import save_policy
from instructgpt.models.load import Network, load_policy
from instructgpt.models.template import get_template


@pytest.fixture(scope="module")
def models(tmp_path_factory, tiny_tokenizer):
    """Two policies: name -> folder."""
    found = {}
    for seed, name in enumerate(("before", "after")):
        torch.manual_seed(seed)
        architecture = {"model_type": "gpt2", "n_embd": 16, "n_layer": 1, "n_head": 2}
        architecture |= {"n_positions": 1024, "initializer_range": 0.2}
        model = load_policy(None, architecture, Network(), tiny_tokenizer)
        folder = tmp_path_factory.mktemp(name) / "export"
        about = {"stage": "sft", "template": get_template("plain"), "parent": None}
        save_policy(model, tiny_tokenizer, folder, **about, config={}, metrics={})
        found[name] = str(folder)
    return found


@pytest.fixture
def sets(tmp_path):
    """Files of all sets, one of them packed: name -> path."""
    found = {name: write_rows(tmp_path / f"{name}.jsonl", rows) for name, rows in ROWS.items()}
    packed = tmp_path / "rte.jsonl.gz"
    packed.write_bytes(gzip.compress((tmp_path / "rte.jsonl").read_bytes()))
    return found | {"rte": str(packed), "gsm8k": write_rows(tmp_path / "gsm8k.jsonl", GSM8K)}


def command(models, sets, output, *more):
    args = [f"--models={json.dumps(models)}", f"--sets={json.dumps(sets)}", f"--output={output}"]
    return ["benchmark", *args, "--max_response_tokens=8", *more]


def test_all_sets_of_two_models_side_by_side(models, sets, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(command(models, sets, out)) == 0
    found = json.loads((out / "results.json").read_text())
    assert found["models"] == models
    assert list(found["sets"]) == list(sets) == list(SETS)
    rows = {name: read_rows(out / f"{name}.jsonl") for name in models}
    for name, part in found["sets"].items():
        assert part["problems"] == len(ROWS.get(name, GSM8K))
        for measure, by_model in part["measures"].items():
            means = {}
            for model, those in rows.items():
                values = [row[measure] for row in those if row["set"] == name]
                means[model] = sum(values) / len(values)
                assert by_model[model]["value"] == pytest.approx(means[model], rel=1e-5, abs=1e-6)
                assert by_model[model]["n"] == len(values)
            [row] = part["differences"][measure]
            assert (row["model"], row["against"]) == ("after", "before")
            assert row["value"] == pytest.approx(
                means["after"] - means["before"], rel=1e-4, abs=1e-6
            )
            assert row["low"] <= row["value"] <= row["high"]
    assert rows["before"][0]["id"].endswith("hellaswag.jsonl:1")
    assert len(rows["before"][0]["logprobs"]) == 4
    assert isinstance(rows["after"][-1]["response"], str)
    said = capsys.readouterr().out
    assert "RTE (3 problems)\n  acc                   before" in said
    assert sorted(path.name for path in out.iterdir()) == [
        "after.jsonl",
        "before.jsonl",
        "results.json",
    ]


def test_a_written_answer_is_the_greedy_one(models, sets, tmp_path, tiny_tokenizer):
    """Token by token with plain transformers, as long as nothing ends it."""
    from transformers import AutoModelForCausalLM

    one = {"before": models["before"]}
    assert run(command(one, {"gsm8k": sets["gsm8k"]}, tmp_path / "out")) == 0
    network = AutoModelForCausalLM.from_pretrained(models["before"])
    for row, problem in zip(read_rows(tmp_path / "out/before.jsonl"), GSM8K, strict=True):
        question = problem.get("question") or problem["prompt"]
        tokens = tiny_tokenizer.encode(f"Question: {question}\nAnswer:")
        begin = len(tokens)
        while len(tokens) < begin + 8 and tokens[-1] != tiny_tokenizer.eos_token_id:
            with torch.no_grad():
                tokens.append(int(network(torch.tensor([tokens])).logits[0, -1].argmax()))
        assert row["response"] == tiny_tokenizer.decode(tokens[begin:], skip_special_tokens=True)


def test_worked_examples_stand_before_each_problem(models, sets, tmp_path, monkeypatch):
    seen = []
    real = likelihood.Coder.asked

    def asked(self, where, context, choices):
        seen.append(context)
        return real(self, where, context, choices)

    monkeypatch.setattr(likelihood.Coder, "asked", asked)
    one, rte = {"before": models["before"]}, {"rte": sets["rte"]}
    shown = write_rows(tmp_path / "shown.jsonl", ROWS["rte"][:2])
    examples = f"--examples={json.dumps({'rte': shown})}"
    assert run(command(one, rte, tmp_path / "out", examples)) == 0
    before = (
        "The dog is lazy.\nQuestion: It runs. True or False?\nAnswer: False\n\n"
        "The fox is quick.\nQuestion: It runs. True or False?\nAnswer: True\n\n"
    )
    end = "One two three.\nQuestion: Four five. True or False?\nAnswer:"
    assert seen[2] == before + end
    found = json.loads((tmp_path / "out/results.json").read_text())
    assert found["sets"]["rte"]["examples"] == 2


def test_a_killed_one_goes_on(models, sets, tmp_path, monkeypatch):
    """The same bytes come out, and what was known is not computed again."""
    scored, real = [], likelihood.choice_logprobs

    def counted(model, asked):
        if len(scored) == most:
            os.kill(os.getpid(), signal.SIGKILL)
        scored.append(len(asked))
        return real(model, asked)

    monkeypatch.setattr(likelihood, "choice_logprobs", counted)
    some = {name: sets[name] for name in ("rte", "hellaswag")}
    small, most = "--max_tokens=120", 999
    assert run(command(models, some, tmp_path / "whole", small)) == 0
    calls = len(scored)
    scored.clear()
    out, most = tmp_path / "out", calls // 2 + 1
    killed(lambda: run(command(models, some, out, small)))
    most = 999
    assert not (out / "results.json").exists()
    assert run(command(models, some, out, small)) == 0
    assert len(scored) == calls - (calls // 2 + 1)
    for name in ("results.json", "before.jsonl", "after.jsonl"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not list(out.glob("*.partial*"))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"sets": {"mmlu": "x.jsonl"}}, "--sets must be one of hellaswag, rte, sst2"),
        ({"models": {}}, "--models must be at least one model"),
        ({"models": {"a/b": "x"}}, "--models must have names that files can have, got 'a/b'"),
        ({"examples": {"sst2": "x"}}, "--examples.sst2 must be left out: the set is not among"),
        (
            {"sets": {"crows_pairs": "x"}, "examples": {"crows_pairs": "x"}},
            "--examples.crows_pairs must be left out: the set has a prompt of its own",
        ),
        ({"max_tokens": 0}, "--max_tokens must be >= 1, got 0"),
        ({"max_response_tokens": 0}, "--max_response_tokens must be >= 1, got 0"),
    ],
)
def test_what_cannot_be_asked_is_refused(changes, says, models, sets, tmp_path, capsys):
    given = {"models": models, "sets": {"rte": sets["rte"]}, "output": "out", **changes}
    args = [
        f"--{name}={json.dumps(value) if isinstance(value, dict) else value}"
        for name, value in given.items()
    ]
    assert run(["benchmark", *args]) == 2
    assert says in capsys.readouterr().err
