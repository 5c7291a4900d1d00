"""``generate --reference``: how far answers are from another policy, and what ``evaluate`` says."""

import json

import pytest
import torch
from rows import read_rows, write_rows
from transformers import AutoModelForCausalLM, AutoTokenizer

from instructgpt.__main__ import main as run
from instructgpt.models.artefact import save_policy
from instructgpt.models.load import Network, load_policy
from instructgpt.models.template import get_template
from instructgpt.models.tokenizer import BPE, train_bpe

PROMPTS = [{"prompt": "cat", "id": "a"}, {"prompt": "the dog says", "id": "b"}]
TEXT = "the cat says meow and the dog says woof"


def made(folder, seed, text=TEXT, context=64):
    tokenizer = train_bpe([text], BPE(vocab_size=270))
    architecture = {"model_type": "gpt2", "n_layer": 1, "n_embd": 16, "n_head": 2}
    torch.manual_seed(seed)
    model = load_policy(None, architecture | {"n_positions": context}, Network(), tokenizer)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(3)
    about = {"stage": "sft", "template": get_template("plain"), "parent": None}
    save_policy(model, tokenizer, folder, **about, config={}, metrics={})
    return str(folder)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    place = tmp_path_factory.mktemp("models")
    return {
        "policy": made(place / "policy", 1),
        "reference": made(place / "reference", 2),
        "other_words": made(place / "other", 2, "a b c a b c"),
        "short": made(place / "short", 2, context=32),
    }


def call(models, tmp_path, *more):
    write_rows(tmp_path / "prompts.jsonl", PROMPTS)
    out = tmp_path / "out.jsonl"
    place = ["--prompts", str(tmp_path / "prompts.jsonl"), "--output", str(out)]
    args = ["generate", "--model", models["policy"], *place, "--max_response_tokens=6", *more]
    return run(args), out


def test_it_is_the_difference_of_the_log_probabilities(models, tmp_path):
    """As transformers alone has them, token by token."""
    code, out = call(models, tmp_path, "--responses=3", "--reference", models["reference"])
    assert code == 0
    tokenizer = AutoTokenizer.from_pretrained(models["policy"])
    networks = [
        AutoModelForCausalLM.from_pretrained(models[name]) for name in ("policy", "reference")
    ]
    for row in read_rows(out):
        assert len(row["kl"]) == 3
        for text, ended, kl in zip(row["responses"], row["finished"], row["kl"], strict=True):
            prompt = tokenizer(row["prompt"])["input_ids"]
            said = tokenizer(text)["input_ids"] + [tokenizer.eos_token_id] * ended
            if tokenizer.decode(said[: len(said) - ended]) != text or (
                not ended and len(said) != 6
            ):
                continue  # drawn in other pieces than it is read
            total = []
            for network in networks:
                with torch.no_grad():
                    logits = network(torch.tensor([prompt + said])).logits[0].log_softmax(-1)
                total.append(
                    sum(logits[len(prompt) + i - 1, token] for i, token in enumerate(said))
                )
            assert kl == pytest.approx(float(total[0] - total[1]), abs=1e-4)


def test_from_itself_it_is_nothing_and_on_average_it_is_above(models, tmp_path):
    _, out = call(models, tmp_path, "--responses=40", "--reference", models["policy"])
    assert all(abs(kl) < 1e-4 for row in read_rows(out) for kl in row["kl"])
    (tmp_path / "out.jsonl").unlink()
    _, out = call(models, tmp_path, "--responses=40", "--reference", models["reference"])
    found = [kl for row in read_rows(out) for kl in row["kl"]]
    assert sum(found) / len(found) > 0.1


def test_the_answers_are_those_without_it(models, tmp_path):
    _, out = call(models, tmp_path, "--responses=3")
    plain = read_rows(out)
    out.unlink()
    _, out = call(models, tmp_path, "--responses=3", "--reference", models["reference"])
    assert [{k: v for k, v in row.items() if k != "kl"} for row in read_rows(out)] == plain


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--greedy=true"], "--greedy must be left out with --reference, got True"),
        (["--temperature=0.5"], "--temperature must be left out with --reference, got 0.5"),
        (["--top_k=3"], "--top_k must be left out with --reference, got 3"),
    ],
)
def test_only_of_plain_samples(models, tmp_path, capsys, options, message):
    code, out = call(models, tmp_path, "--reference", models["reference"], *options)
    assert code == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("other_words", "must have the tokenizer of --model"),
        ("short", "must read as much as --model (64 tokens), got 32 tokens"),
        ("nowhere", "--reference nowhere: "),
    ],
)
def test_one_that_cannot_be_asked(models, tmp_path, capsys, name, message):
    code, out = call(models, tmp_path, "--reference", models.get(name, name))
    assert code == 2
    error = capsys.readouterr().err
    assert message in error.splitlines()[-1]
    assert not out.exists()


def evaluated(tmp_path, rows):
    files = {}
    for name, some in rows.items():
        files[name] = str(tmp_path / f"{name}.jsonl")
        write_rows(tmp_path / f"{name}.jsonl", some)
    out = tmp_path / "evaluation"
    args = [f"--answers={json.dumps(files)}", "--judge=option_runs:the_shorter"]
    code = run(["evaluate", *args, "--output", str(out)])
    return code, out / "results.json"


def test_evaluate_says_the_mean_over_prompts(tmp_path):
    def rows(values):
        return [
            {"id": str(n), "prompt": f"p{n}", "responses": ["a b", "c"], "kl": kl}
            for n, kl in enumerate(values)
        ]

    plain = [{key: row[key] for key in row if key != "kl"} for row in rows([[0, 0]] * 3)]
    code, path = evaluated(tmp_path, {"sft": plain, "ppo": rows([[1, 2], [3, 4], [8, 9]])})
    assert code == 0
    found = json.loads(path.read_text())["texts"]["sampled"]
    assert found["ppo"]["kl"]["value"] == pytest.approx(4.5)  # (1.5 + 3.5 + 8.5) / 3
    assert found["ppo"]["kl"]["n"] == 3
    assert "kl" not in found["sft"]
    assert "KL from the reference" in (path.parent / "report.html").read_text()


@pytest.mark.parametrize("kl", [[1.0], ["x"], 3, [True]])
def test_a_distance_that_is_none_is_refused(tmp_path, capsys, kl):
    rows = [{"id": "1", "prompt": "p", "responses": ["a", "b"], "kl": kl}]
    code, _ = evaluated(tmp_path, {"sft": rows, "ppo": rows})
    assert code == 2
    assert 'sft.jsonl:1: "kl" must be a list of finite numbers' in capsys.readouterr().err
