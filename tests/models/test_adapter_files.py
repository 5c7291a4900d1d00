"""Adapters from elsewhere: what they say is checked, and nothing in them is unpickled."""

import json
import pickle
import shutil

import pytest
import torch
from last_line import last_line
from planted import unlisted
from safetensors.torch import load_file, save_file

from instructgpt.__main__ import main
from instructgpt.models.artefact import save_policy
from instructgpt.models.load import Network, load_policy
from instructgpt.models.template import get_template
from instructgpt.models.trained import LoRA, Prefix, attach

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


@pytest.fixture(scope="module")
def saved(tmp_path_factory, tiny_tokenizer):
    root, about = tmp_path_factory.mktemp("adapters"), {"parent": None, "config": {}, "metrics": {}}
    small = {"model_type": "gpt2", "n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 64}
    for name, adapter in {"base": None, "lora": LoRA(rank=2), "prefix": Prefix(2)}.items():
        model = load_policy(None, small, Network(), tiny_tokenizer)
        model = attach(model, adapter) if adapter else model
        own = {"stage": "sft", "template": get_template("plain"), **about}
        save_policy(model, tiny_tokenizer, root / name, **own)
    return root


def evil():
    """Unpickling this would write a file."""

    class Evil:
        def __reduce__(self):
            return exec, ("open('was_unpickled', 'w')",)

    return pickle.dumps(Evil())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"peft_type": "IA3"}, "peft_type must be LORA, got 'IA3'"),
        ({"peft_type": None}, "peft_type must be LORA"),
        ({"task_type": "SEQ_CLS"}, "task_type must be CAUSAL_LM, got 'SEQ_CLS'"),
        ({"auto_mapping": {"parent_library": "os"}}, "auto_mapping is not known here"),
        ({"custom_code": "x"}, "custom_code is not known here, got 'x'"),
        ({"corda_config": {"cache_file": "/etc/x"}}, "corda_config is not known here"),
        ({"target_modules": "(a+)+$"}, "target_modules must be names of layers, got '(a+)+$'"),
        ({"target_modules": ["no_such_layer"]}, f"{CONFIG}: does not fit the model"),
        ({"rank_pattern": {"(a+)+": 2}}, "rank_pattern must have names of layers"),
        ({"r": 10**9}, "r must be the rank of the weights, 2, got [1000000000]"),
        ({"r": "2"}, "r must be the rank of the weights, 2, got ['2']"),
        ({"target_modules": ["c_fc"]}, f"{WEIGHTS}: must hold what {CONFIG} says, see "),
        ("[1, 2]", f"{CONFIG}: must be the facts about an adapter, got list"),
        ("{", f"{CONFIG}: must be JSON"),
        ("[" * 100_000, f"{CONFIG}: must be JSON"),
        ("pickle", f"{WEIGHTS}: must be there; weights in other formats are not read"),
        ("garbage", f"{WEIGHTS}: cannot be read"),
        ("nan", f"{WEIGHTS}: weights must be finite"),
    ],
)  # fmt: skip
def test_planted_lora(saved, tmp_path, monkeypatch, capsys, change, message):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(saved / "lora" / "adapter", tmp_path / "adapter")
    config, weights = tmp_path / "adapter" / CONFIG, tmp_path / "adapter" / WEIGHTS
    if isinstance(change, dict):
        config.write_text(json.dumps(json.loads(config.read_text()) | change))
    elif change == "pickle":
        weights.unlink()
        weights.with_name("adapter_model.bin").write_bytes(evil())
    elif change == "garbage":
        weights.write_bytes(evil())
    elif change == "nan":
        save_file({name: t * torch.nan for name, t in load_file(weights).items()}, weights)
    else:
        config.write_text(change)
    args = ["export", "--adapter=adapter", f"--base={saved / 'base'}", "--output=merged"]
    assert main(args) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert message in lines[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"peft_type": "LORA"}, "peft_type must be PREFIX_TUNING, got 'LORA'"),
        ({"num_virtual_tokens": 10**9}, "num_virtual_tokens must be 2, got 1000000000"),
        ({"prefix_projection": True}, "prefix_projection is not known here"),
        ({"auto_mapping": {"parent_library": "os"}}, "auto_mapping is not known here"),
        (None, f"{WEIGHTS}: must be there"),
    ],
)
def test_planted_prefix(saved, tmp_path, monkeypatch, capsys, change, message):
    monkeypatch.chdir(tmp_path)
    unlisted(shutil.copytree(saved / "prefix", tmp_path / "policy"))
    config = tmp_path / "policy" / CONFIG
    if change is None:
        (tmp_path / "policy" / WEIGHTS).unlink()
        (tmp_path / "policy" / "adapter_model.bin").write_bytes(evil())
    else:
        config.write_text(json.dumps(json.loads(config.read_text()) | change))
    (tmp_path / "p.jsonl").write_text('{"prompt": "say"}\n')
    assert main(["generate", "--model=policy", "--prompts=p.jsonl", "--device=cpu"]) == 2
    assert message in last_line(capsys)
    assert not (tmp_path / "was_unpickled").exists()


def test_what_peft_writes_is_read(saved, tmp_path, tiny_tokenizer):
    """Sizes that a configuration need not repeat may be there."""
    facts = json.loads((saved / "prefix" / CONFIG).read_text())
    assert facts["token_dim"] == 8
    assert load_policy(str(saved / "prefix"), None, Network(), tiny_tokenizer).training
