"""Weights that are no numbers are refused, wherever they come from."""

import json
import shutil

import pytest
import torch
from last_line import last_line
from planted import unlisted
from safetensors.torch import load_file, save_file

from instructgpt.__main__ import main
from instructgpt.models.artefact import save_policy, save_scalar
from instructgpt.models.finite import first_not_finite
from instructgpt.models.load import Network, load_policy, load_scalar
from instructgpt.models.template import get_template
from instructgpt.models.trained import LoRA, Prefix, attach
from instructgpt.types import RunFailedError, UserError

OWN = {"parent": None, "config": {}, "metrics": {}}


@pytest.fixture(scope="module")
def artefacts(tmp_path_factory, tiny_tokenizer):
    """A policy, the same with LoRA and with a prefix, and a reward model."""
    root, plain = tmp_path_factory.mktemp("models"), get_template("plain")
    small = {"model_type": "gpt2", "n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 64}
    for name, adapter in {"policy": None, "lora": LoRA(rank=2), "prefix": Prefix(2)}.items():
        model = load_policy(None, small, Network(), tiny_tokenizer)
        model = attach(model, adapter) if adapter else model
        save_policy(model, tiny_tokenizer, root / name, stage="sft", template=plain, **OWN)
    scalar = load_scalar(None, small, Network(), tiny_tokenizer, head="new")
    save_scalar(scalar, tiny_tokenizer, root / "reward", stage="reward", template=plain, **OWN)
    (root / "prompts.jsonl").write_text('{"prompt": "say hello"}\n')
    pair = {"prompt": "say", "responses": ["a", "b"], "ranking": [1, 2]}
    (root / "pairs.jsonl").write_text(json.dumps(pair) + "\n")
    return root


def poisoned(artefacts, tmp_path, name, file, tensor, value=torch.nan):
    folder = tmp_path / name
    unlisted(shutil.copytree(artefacts / name, folder))
    weights = load_file(folder / file)
    weights[tensor].view(-1)[-1] = value
    save_file(weights, folder / file, metadata={"format": "pt"})
    return str(folder)


def error_of(args, capsys):
    capsys.readouterr()
    assert main(args) == 2
    line = last_line(capsys)
    assert line.startswith("instructgpt: error: ")
    return line


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("verb", ["fit", "generate", "value"])
def test_a_policy(artefacts, tmp_path, capsys, verb, value):
    name = "transformer.h.0.mlp.c_fc.weight"
    source = poisoned(artefacts, tmp_path, "policy", "model.safetensors", name, value)
    (tmp_path / "policy" / "instructgpt.json").unlink()  # a plain Hugging Face folder
    prompts = str(artefacts / "prompts.jsonl")
    small = ["--data.max_prompt_tokens=8", "--data.max_response_tokens=8"]
    fit = ["fit", "--model=PPOModule", "--data=PromptDataModule", f"--data.train={prompts}"]
    fit += ["--model.reward=CountReward", "--model.reward.text=a", "--data.validation=null", *small]
    fit += [f"--output={tmp_path / 'run'}", "--trainer.max_epochs=1", "--trainer.accelerator=cpu"]
    fit += ["--model.batches.rollout_batch_size=2", "--model.batches.minibatch_size=2"]
    args = {
        "fit": [*fit, f"--model.init_from={source}"],
        "value": [
            *fit,
            f"--model.init_from={artefacts / 'policy'}",
            f"--model.value.init_from={source}",
        ],
        "generate": ["generate", f"--model={source}", f"--prompts={prompts}", "--device=cpu"],
    }[verb]
    line = error_of(args, capsys)
    assert f"init_from: '{source}': weights must be finite, '" in line
    assert "h.0.mlp.c_fc.weight' holds NaN or infinity" in line
    assert not (tmp_path / "run").exists()


def test_a_reward_model(artefacts, tmp_path, capsys):
    source = poisoned(artefacts, tmp_path, "reward", "model.safetensors", "score.weight")
    answers = tmp_path / "answers.jsonl"
    row = {"id": "a", "prompt": "say", "responses": ["x"], "finished": [True]}
    answers.write_text(json.dumps(row) + "\n")
    evaluate = ["evaluate", f"--answers={{a: {answers}, b: {answers}}}", "--baseline=a"]
    evaluate += [f"--reward_model={source}", f"--output={tmp_path / 'e'}"]
    predict = ["predict", "--model=RewardModule", "--data=ComparisonDataModule"]
    predict += [f"--model.init_from={source}", f"--data.train={artefacts / 'pairs.jsonl'}"]
    predict += ["--data.max_prompt_tokens=8", "--data.max_response_tokens=8"]
    predict += [f"--output={tmp_path / 'p'}", "--trainer.accelerator=cpu"]
    for args in (evaluate, predict):
        assert "weights must be finite, 'score.weight'" in error_of(args, capsys)


def test_an_offset(artefacts, tmp_path, tiny_tokenizer):
    folder = tmp_path / "reward"
    shutil.copytree(artefacts / "reward", folder)
    facts = json.loads((folder / "instructgpt.json").read_text())
    (folder / "instructgpt.json").write_text(json.dumps(facts | {"offset": float("nan")}))
    with pytest.raises(UserError, match=r"instructgpt\.json: key 'offset' must be finite, got nan"):
        load_scalar(str(folder), None, Network(), tiny_tokenizer, head="stored")


def test_a_prefix(artefacts, tmp_path):
    file = "adapter_model.safetensors"
    source = poisoned(artefacts, tmp_path, "prefix", file, "prompt_embeddings")
    with pytest.raises(UserError, match="weights must be finite, 'prompt_embeddings'"):
        load_policy(source, None, Network())


def test_nothing_is_written_of_such_weights(artefacts, tmp_path, tiny_tokenizer):
    plain = get_template("plain")
    policy = load_policy(str(artefacts / "policy"), None, Network())
    reward = load_scalar(str(artefacts / "reward"), None, Network(), tiny_tokenizer, head="stored")
    with torch.no_grad():
        policy.transformer.ln_f.weight[0] = torch.inf
        reward.offset.fill_(torch.nan)
    for save, model in ((save_policy, policy), (save_scalar, reward)):
        with pytest.raises(RunFailedError, match="is not written: weights must be finite"):
            save(model, tiny_tokenizer, tmp_path / "new", stage="sft", template=plain, **OWN)
    assert list(tmp_path.iterdir()) == []


def test_a_sum_that_overflows_is_no_infinity():
    large = torch.full((100,), 6e4, dtype=torch.float16)
    named = [("large", large), ("counts", torch.ones(3, dtype=torch.int64)), ("none", large[:0])]
    assert first_not_finite(named) is None
    assert first_not_finite([*named, ("inf", large * 2)]) == "inf"
