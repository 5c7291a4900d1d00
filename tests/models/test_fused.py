"""Activations in one kernel compute what transformers' own compute."""

import json

import pytest
import torch
from flat_families import GPT, LLAMA
from torch import nn
from transformers import AutoModelForCausalLM
from transformers.activations import (
    AccurateGELUActivation,
    FastGELUActivation,
    GELUActivation,
    GELUTanh,
    NewGELUActivation,
    QuickGELUActivation,
)
from transformers.models.bloom.modeling_bloom import BloomGelu

from instructgpt.models.fused import fuse_activations
from tests.tiny_models import policy_of, scalar_of

ARCHITECTURES = {
    "gpt2": GPT,
    "openai-gpt": GPT,
    "gptj": {**GPT, "rotary_dim": 4},
    "codegen": {**GPT, "rotary_dim": 4},
    "bloom": {"hidden_size": 16, "n_layer": 2, "n_head": 4},
    "phi": LLAMA,
    "gpt_neox": LLAMA,
    "gemma": {**LLAMA, "num_key_value_heads": 4, "head_dim": 4},
}
SPELT_OUT = [
    AccurateGELUActivation,
    BloomGelu,
    FastGELUActivation,
    GELUActivation,
    lambda: GELUActivation(use_gelu_python=True),
    GELUTanh,
    lambda: GELUTanh(use_gelu_tanh_python=True),
    NewGELUActivation,
]
pytestmark = pytest.mark.filterwarnings("ignore:.*eager is used")


@pytest.mark.parametrize("make", SPELT_OUT)
def test_values_and_gradients_differ_by_rounding_only(make):
    theirs = nn.Sequential(make()).train()
    ours = nn.Sequential(make())
    fuse_activations(ours)
    assert type(ours[0]) is nn.GELU
    inputs = torch.linspace(-9, 9, 4001).requires_grad_()
    values, gradients = [], []
    for network in (theirs, ours):
        values.append(network(inputs))
        gradients.append(torch.autograd.grad(values[-1].sum(), inputs)[0])
    for got in (values, gradients):
        assert (got[1] - got[0]).abs().max() <= 1e-6 * got[0].abs().max()


def test_what_is_no_gelu_stays():
    network = nn.Sequential(QuickGELUActivation(), nn.SiLU(), nn.Linear(2, 2))
    before = [type(part) for part in network]
    fuse_activations(network)
    assert [type(part) for part in network] == before


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("build", [policy_of, scalar_of])
def test_networks_are_fast_and_say_the_same_when_they_are_loaded(
    name, build, tiny_tokenizer, tmp_path
):
    architecture = {"model_type": name, **ARCHITECTURES[name]}
    if name == "codegen" and build is scalar_of:
        pytest.skip("AutoModel and its language model do the same")
    model = build(architecture, tiny_tokenizer)
    assert any(type(part) is nn.GELU for part in model.modules())
    if build is scalar_of:
        return
    tokens = torch.arange(2, 14)[None]
    model.save_pretrained(tmp_path)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert not any(type(part) is nn.GELU for part in theirs.modules())
    expected = theirs(tokens).logits
    difference = (model(tokens).logits - expected).abs().max()
    assert difference <= 2e-6 * expected.abs().max()
    saved = json.loads((tmp_path / "config.json").read_text())
    plain = type(model.config)(**ARCHITECTURES[name]).to_dict()
    kinds = [key for key in plain if "activation" in key or key in {"hidden_act", "afn"}]
    assert all(saved.get(key, plain[key]) == plain[key] for key in kinds)
