"""Packed weights: worked numbers, an oracle, what is packed, gradients, and the way back."""

import copy

import pytest
import torch
from tiny_models import flat
from torch import nn
from transformers.pytorch_utils import Conv1D

from instructgpt.models.digest import weights_digest
from instructgpt.models.flat import hidden_states
from instructgpt.models.forward import run
from instructgpt.models.load import Network, load_policy
from instructgpt.models.quantized import NF4, QuantizedLinear, is_quantized, quantize, unpack
from instructgpt.models.trained import LoRA, attach, merged
from instructgpt.modules.held import held

ROWS = torch.tensor([[3, 4, 5, 6], [7, 8, 9, 2]])
MASK = torch.ones(2, 4, dtype=torch.bool)


def linear(weight, conv=False):
    weight = torch.as_tensor(weight, dtype=torch.float32)
    layer = Conv1D(*weight.shape) if conv else nn.Linear(*reversed(weight.shape))
    layer.weight = nn.Parameter(weight.t().contiguous() if conv else weight, requires_grad=False)
    return layer


def test_worked_numbers():
    # scales of the rows: 127/127 and 0; 0.4 is rounded to 0
    small = QuantizedLinear(linear([[127.0, -3.0, 0.4], [0.0, 0.0, 0.0]]), "int8")
    assert small.packed.tolist() == [[127, -3, 0], [0, 0, 0]]
    assert small.weight.tolist() == [[127.0, -3.0, 0.0], [0.0, 0.0, 0.0]]
    # one block of the largest 2: 0, 1, -2 are codes of 0, 0.5 (nearest 0.4407), -1
    packed = QuantizedLinear(linear([[2.0, 0.0], [1.0, -2.0]]), "nf4")
    assert packed.packed[:2].tolist() == [15 << 4 | 7, 12 << 4 | 0]
    assert packed.weight.tolist() == [[2.0, 0.0], [2 * float(NF4[12]), -2.0]]


@pytest.mark.parametrize("shape", [(3, 5), (64, 64), (7, 33)])
def test_nf4_takes_the_nearest_of_its_numbers(shape):
    """The oracle tries all 16; bitsandbytes 0.50 has the same bytes."""
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    expected = []
    for block in weight.flatten().split(64):
        scale = block.abs().max()
        nearest = ((block / scale)[:, None] - NF4).abs().argmin(1)
        expected.append(NF4[nearest] * scale)
    packed = QuantizedLinear(linear(weight), "nf4")
    torch.testing.assert_close(packed.weight, torch.cat(expected).view(shape))


@pytest.mark.parametrize("conv", [False, True])
@pytest.mark.parametrize(("kind", "error"), [("int8", 0.01), ("nf4", 0.1)])
def test_a_layer_computes_with_what_it_unpacks(conv, kind, error):
    weight = torch.randn(48, 96, generator=torch.Generator().manual_seed(1))
    packed = QuantizedLinear(linear(weight, conv), kind)
    difference = (packed.weight - weight).norm() / weight.norm()
    assert 0 < difference < error, "of normal weights, as published"
    inputs = torch.randn(5, 96, requires_grad=True)
    expected = (inputs @ packed.weight.t()) + packed.bias
    torch.testing.assert_close(packed(inputs), expected)
    expected.square().sum().backward()
    slope, inputs.grad = inputs.grad, None
    packed(inputs).square().sum().backward()
    torch.testing.assert_close(inputs.grad, slope)
    torch.testing.assert_close(packed.plain()(inputs), expected)
    assert type(packed.plain()) is (Conv1D if conv else nn.Linear)


@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_no_conversion_rounds_the_scales(kind):
    packed = QuantizedLinear(linear(torch.randn(8, 64)), kind)
    before = packed.weight
    packed.to(torch.bfloat16).to(torch.float32)
    assert torch.equal(packed.weight, before)


def test_what_learns_embeddings_and_heads_stay(tiny_tokenizer, make_architecture):
    for name in ("gpt2", "llama"):
        model = load_policy(None, make_architecture(name), Network(), tiny_tokenizer)
        whole = held(model).weights
        assert not is_quantized(quantize(model, "int8")), "all of it learns"
        digest = weights_digest(model)
        quantize(model.requires_grad_(False), "int8")
        assert is_quantized(model)
        assert type(model.get_output_embeddings()) is nn.Linear
        assert held(model).weights < whole
        assert held(model).parameters == sum(
            p.numel() for p in unpack(copy.deepcopy(model)).parameters()
        )
        assert weights_digest(model) != digest


@pytest.mark.parametrize("kind", ["int8", "nf4"])
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_under_lora_and_the_way_back(tiny_tokenizer, make_architecture, name, kind):
    torch.manual_seed(0)
    model = load_policy(None, make_architecture(name), Network(), tiny_tokenizer).eval()
    model = attach(model, LoRA(rank=2), kind)
    for parameter in model.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.2)
    rows = flat(ROWS, MASK)
    with torch.no_grad():
        expected = run(model, ROWS, MASK).logits
        back = merged(model)
        assert not is_quantized(back)
        torch.testing.assert_close(run(back, ROWS, MASK).logits, expected, atol=1e-5, rtol=1e-4)
        assert is_quantized(model), "the given one stays as it is"
    hidden_states(model, rows).square().sum().backward()
    slopes = [p.grad for p in model.parameters() if p.requires_grad]
    assert all(float(slope.abs().sum()) > 0 for slope in slopes)
    plain = unpack(copy.deepcopy(model))
    plain.zero_grad()
    hidden_states(plain, rows).square().sum().backward()
    for ours, theirs in zip(
        slopes, (p.grad for p in plain.parameters() if p.requires_grad), strict=True
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_nothing_unpacked_is_kept_for_the_backward_pass(tiny_tokenizer, make_architecture):
    kept = {}
    for kind in (None, "int8"):
        model = load_policy(None, make_architecture("llama"), Network(), tiny_tokenizer)
        attach(model, LoRA(rank=2), kind)
        hidden_states(model, flat(ROWS, MASK))  # the proof that it reads flat rows
        owned = {p.untyped_storage().data_ptr() for p in model.parameters()}
        seen = {}

        def keep(tensor, seen=seen, owned=owned):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in owned:
                seen[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            output = hidden_states(model, flat(ROWS, MASK))
        kept[kind] = sum(seen.values())
        del output
    assert kept["int8"] <= kept[None]
