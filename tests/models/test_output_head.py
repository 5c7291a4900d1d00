"""Heads of all kinds say in tiles what the network's own logits say."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from instructgpt.functional.layout import Layout
from instructgpt.functional.logprobs import read_logits
from instructgpt.functional.tiles import TILES
from instructgpt.models import output_head as module
from instructgpt.models.flat import predict
from instructgpt.models.forward import base_network, run
from instructgpt.models.output_head import Form, output_head, states_only
from instructgpt.types import FlatRows
from tests.largest import Largest
from tests.tiny_models import disturb, policy_of

LLAMA = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
GPT = {"n_embd": 16, "n_layer": 1, "n_head": 4, "n_positions": 64}
LATENT = {  # multi-head latent attention
    "q_lora_rank": 8,
    "kv_lora_rank": 8,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 4,
    "v_head_dim": 8,
    "num_key_value_heads": 4,
}
HEADS = {
    "gpt2": (GPT, Form(None, 1.0)),  # tied
    "gptj": ({**GPT, "rotary_dim": 4}, Form(None, 1.0)),  # with a bias
    "llama": (LLAMA, Form(None, 1.0)),  # not tied
    "gemma2": ({**LLAMA, "head_dim": 4, "final_logit_softcapping": 2.0}, Form(2.0, 1.0)),
    "nanochat": ({**LLAMA, "final_logit_softcapping": 3.0}, Form(3.0, 1.0)),
    "granite": ({**LLAMA, "logits_scaling": 3.0}, Form(None, 1 / 3)),  # divides
    "hyperclovax": ({**LLAMA, "logits_scaling": 3.0}, Form(None, 3.0)),  # multiplies
    "cohere": ({**LLAMA, "logit_scale": 0.25}, Form(None, 0.25)),
    "minicpm3": ({**LLAMA, **LATENT, "dim_model_base": 4}, Form(None, 1.0)),  # before the head
    "opt": ({**LLAMA, "ffn_dim": 32, "word_embed_proj_dim": 8}, Form(None, 1.0)),
}
del HEADS["opt"][0]["intermediate_size"], HEADS["opt"][0]["num_key_value_heads"]


def build(name, tokenizer, **more):
    model = policy_of({"model_type": name, **HEADS[name][0], **more}, tokenizer)
    with torch.no_grad():
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.4)
    return model


def rows():
    tokens = torch.randint(2, 280, (3, 9), generator=torch.Generator().manual_seed(1))
    return tokens, torch.ones_like(tokens).bool()


def both(model, every_id=False):
    """What tiles say and what logits say, about the same."""
    tokens, mask = rows()
    targets = tokens.roll(-1).flatten()
    network = base_network(model)
    with states_only(network) as seen:
        run(model, tokens, mask)
    head = output_head(model)
    assert head is not None
    options = {"temperature": 0.7, "entropy": True, "every_id": every_id}
    ours = head.read(seen[0].flatten(0, 1), targets, **options)
    logits = run(model, tokens, mask, every_id=every_id).logits.flatten(0, 1)
    return ours, read_logits(logits / 0.7, targets, with_entropy=True)


def assert_same(model, **options):
    ours, theirs = both(model, **options)
    torch.testing.assert_close(ours.logprobs, theirs.logprobs, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours.entropy, theirs.entropy, rtol=1e-5, atol=1e-5)
    assert ours.correct.tolist() == theirs.correct.tolist()
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    gradients = []
    for found in (ours, theirs):
        model.zero_grad()
        found.logprobs.sum().backward()
        gradients.append({name: p.grad for name, p in trained.items()})
    for name, expected in gradients[1].items():
        assert expected is not None, name
        assert gradients[0][name] is not None, name
        bound = 1e-5 * expected.abs().max().item() + 1e-7
        torch.testing.assert_close(gradients[0][name], expected, rtol=1e-4, atol=10 * bound)


@pytest.mark.parametrize("name", HEADS)
def test_a_head_says_what_the_logits_of_its_network_say(name, tiny_tokenizer):
    model = build(name, tiny_tokenizer, vocab_size=300)  # ten ids more than tokens
    head = output_head(model)
    assert head is not None
    assert head.form == HEADS[name][1]
    for every_id in (True, False):
        assert_same(model, every_id=every_id)


def test_ids_without_a_token_within_the_vocabulary_are_impossible(tiny_tokenizer):
    model = build("llama", tiny_tokenizer)
    model.known_ids = (285, [7, 200])
    assert_same(model)


def test_a_resized_vocabulary(tiny_tokenizer):
    model = build("llama", tiny_tokenizer)
    assert output_head(model) is not None
    model.resize_token_embeddings(320)
    assert_same(model, every_id=True)


@pytest.mark.parametrize("kind", ["lora", "saved"])
@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_a_head_with_an_adapter_is_asked_for_few_positions_at_a_time(
    name, kind, tiny_tokenizer, monkeypatch
):
    monkeypatch.setattr(module, "MOST_LOGITS", 4 * 290)  # four positions
    model = build(name, tiny_tokenizer)
    where = {"target_modules": ["q_proj", "lm_head"]}
    if kind == "saved":
        where = {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}
    model = disturb(get_peft_model(model, LoraConfig(r=2, **where)))
    assert type(base_network(model).get_output_embeddings()) is not nn.Linear
    assert_same(model)


def test_an_adapter_on_the_head_can_be_left_out(tiny_tokenizer):
    model = build("llama", tiny_tokenizer)
    hidden, targets = torch.randn(5, 16), torch.arange(5)
    head = output_head(model)
    assert head is not None
    before = head.read(hidden, targets).logprobs
    adapted = disturb(get_peft_model(model, LoraConfig(r=2, target_modules=["lm_head"])))
    head = output_head(adapted)
    assert head is not None
    without = head.read(hidden, targets, adapter=False).logprobs
    torch.testing.assert_close(without, before)
    assert (head.read(hidden, targets).logprobs - before).abs().max() > 0.01


def test_logits_that_are_no_function_of_the_head_are_not_proved(tiny_tokenizer):
    model = build("llama", tiny_tokenizer)
    forward = model.forward

    def shifted(*args, **kwargs):
        output = forward(*args, **kwargs)
        output.logits = output.logits + torch.arange(output.logits.shape[1])[:, None]
        return output

    model.forward = shifted
    assert output_head(model) is None


def test_the_proof_leaves_modes_and_random_numbers_alone(tiny_tokenizer):
    model = build("gpt2", tiny_tokenizer).train()
    model.transformer.h[0].eval()
    modes = [part.training for part in model.modules()]
    state = torch.get_rng_state()
    assert output_head(model) is not None
    assert [part.training for part in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", ["gpt2", "gemma2", "minicpm3"])
@pytest.mark.parametrize("padded", [False, True])
def test_no_step_holds_logits_of_all_its_places(name, padded, tiny_tokenizer, monkeypatch):
    if padded:
        monkeypatch.setattr("instructgpt.models.flat.proved_kernel", lambda *_: None)
    model = build(name, tiny_tokenizer, vocab_size=5000)
    layout = Layout.of([40, 60, 50, 60])
    rows = FlatRows(torch.randint(2, 280, (210,)), layout)
    places = (layout.positions > 0).nonzero().squeeze(1)
    predict(model, rows, places)  # proofs look at a few logits
    monkeypatch.setitem(TILES, "cpu", (64, 512))
    with Largest() as seen:
        found = predict(model, rows, places, temperature=0.7, entropy=True, every_id=True)
        found.logprobs.sum().backward()
    weights = max(parameter.numel() for parameter in model.parameters())
    assert seen.size <= max(weights, 64 * 512) < len(places) * 5000
