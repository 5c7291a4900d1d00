"""``benchmark`` on reward models: scores as in plain transformers, and going on after a kill."""

import json
import os
import signal

import pytest
import torch
from harness import killed
from rows import read_rows, write_rows
from small_chat_model import make_chat_model
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from instructgpt.__main__ import main as run
from instructgpt.evaluation import reward_bench
from instructgpt.rewards.learned import LearnedReward, reads_alone

ROWS = [
    {
        "id": str(number),
        "prompt": f"Write {number} words.",
        "chosen": ["Once there was a fox."],
        "rejected": ["It is the Tweed.", "hello", "A fox and a dog are friends."][: 1 + number % 3],
        "subset": ["Focus", "Math"][number % 2],
    }
    for number in range(20)
]
ROWS += [
    {
        "id": f"{kind}:{number}",
        "prompt": f"Name a river, {number}.",
        "chosen": ["The Tweed.", "The river of the country"][: 1 + (kind == "tied")],
        "rejected": ["a fox", "a dog of the north"],
        "subset": "Ties",
    }
    for number in range(3)
    for kind in ("ref", "tied")
]


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    """Reward models that were not made here: sequence classifiers with a chat template."""
    found = {}
    for seed, name in enumerate(("one", "two")):
        source = make_chat_model(tmp_path_factory.mktemp("base"), seed)
        folder = str(tmp_path_factory.mktemp(name))
        torch.manual_seed(seed)
        tokenizer = AutoTokenizer.from_pretrained(source)
        tokenizer.add_special_tokens({"pad_token": "<|pad|>"})
        model = AutoModelForSequenceClassification.from_pretrained(source, num_labels=1)
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        torch.nn.init.normal_(model.score.weight)
        model.config.pad_token_id = tokenizer.pad_token_id
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        found[name] = folder
    return found


def command(models, rows, output, *more):
    sets = {"rewardbench2": str(rows)}
    options = {"models": json.dumps(models), "sets": json.dumps(sets), "output": output}
    return ["benchmark", *(f"--{name}={value}" for name, value in options.items()), *more]


def plain_scores(tokenizer, model, row):
    """Each whole text on its own, by transformers alone."""
    found = []
    for said in row["chosen"] + row["rejected"]:
        turns = [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": said}]
        text = tokenizer.apply_chat_template(turns, tokenize=False).removesuffix("\n")
        with torch.no_grad():
            found.append(model(**tokenizer(text, return_tensors="pt")).logits.item())
    return found


def test_scores_are_those_of_plain_transformers(foreign, tmp_path, capsys):
    path = write_rows(tmp_path / "rows.jsonl", ROWS)
    out = tmp_path / "out"
    assert run(command(foreign, path, out)) == 0
    results = json.loads((out / "results.json").read_text())["sets"]["rewardbench2"]
    rows = {name: read_rows(out / f"{name}.jsonl") for name in foreign}
    best = {}
    for name, folder in foreign.items():
        tokenizer = AutoTokenizer.from_pretrained(folder)
        model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
        for given, row in zip(ROWS, rows[name], strict=True):
            expected = plain_scores(tokenizer, model, given)
            assert row["scores"] == pytest.approx(expected, abs=1e-4)
            if given["subset"] == "Math":
                best.setdefault(name, []).append(float(expected[0] == max(expected)))
    means = {name: sum(values) / len(values) for name, values in best.items()}
    for name, value in means.items():
        assert results["measures"]["Math"][name]["value"] == pytest.approx(value)
    [row] = results["differences"]["Math"]
    assert (row["model"], row["against"], row["n"]) == ("two", "one", 10)
    assert row["value"] == pytest.approx(means["two"] - means["one"], abs=1e-6)
    assert list(results["measures"]) == ["mean of subsets", "Focus", "Math", "Ties"]
    assert "RewardBench 2 (26 problems)\n  mean of subsets       one" in capsys.readouterr().out


def test_our_reward_models_are_asked_too(reward_model, tmp_path):
    path = write_rows(tmp_path / "rows.jsonl", ROWS)
    assert run(command({"ours": reward_model}, path, tmp_path / "out", "--max_tokens=40")) == 0
    reward = LearnedReward(reward_model)
    loaded = reads_alone(reward_model, "--models", torch.device("cpu"), reward.network)
    asked = reward_bench.read_reward_bench(path)
    rows = read_rows(tmp_path / "out/ours.jsonl")
    for one, row in list(zip(asked.problems, rows, strict=True))[::5]:
        alone = [loaded.score([s]).item() for s in reward_bench._samples(loaded, one)]
        assert row["scores"] == pytest.approx(alone, abs=1e-5)


def test_a_killed_one_goes_on(foreign, tmp_path, monkeypatch):
    path, out, calls = write_rows(tmp_path / "rows.jsonl", ROWS), tmp_path / "out", []
    assert run(command(foreign, path, tmp_path / "whole")) == 0
    real, most = LearnedReward.score, 1

    def counted(self, samples):
        if len(calls) == most:
            os.kill(os.getpid(), signal.SIGKILL)
        calls.append(len(samples))
        return real(self, samples)

    monkeypatch.setattr(LearnedReward, "score", counted)
    killed(lambda: run(command(foreign, path, out)))
    most = 99
    assert run(command(foreign, path, out)) == 0
    assert len(calls) == 3  # of four, two a model: one was done
    for name in ("results.json", "one.jsonl", "two.jsonl"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"sets": {"rewardbench2": "x", "rte": "x"}},
            "--sets must be rewardbench2 alone, or without it",
        ),
        ({"examples": {"rewardbench2": "x"}}, "--examples.rewardbench2 must be left out"),
        ({"device": "mps"}, "--device must be there, got mps"),
        ({"models": {"a": "nowhere/at-all"}}, "--models: "),
    ],
)
def test_what_cannot_be_asked_is_refused(changes, says, foreign, tmp_path, capsys):
    path = write_rows(tmp_path / "rows.jsonl", ROWS)
    given = {"models": foreign, "sets": {"rewardbench2": path}, "output": str(tmp_path), **changes}
    args = [
        f"--{name}={json.dumps(value) if isinstance(value, dict) else value}"
        for name, value in given.items()
    ]
    assert run(["benchmark", *args]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert len(error.strip().splitlines()) == 1
