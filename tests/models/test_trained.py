"""What is trained: it and the heads alone learn; folding an adapter in changes nothing."""

import pytest
import torch
from peft import PeftModel
from tiny_models import disturb, flat, policy_of, scalar_of

from instructgpt.models.forward import base_network, run
from instructgpt.models.load import Network, load_policy
from instructgpt.models.peft_private import without_adapters
from instructgpt.models.trained import LastLayers, LoRA, Prefix, attach, merged
from instructgpt.types import UserError

TOKENS = torch.tensor([[2, 3, 4, 5, 6], [7, 8, 9, 10, 11]])
MASK = torch.ones_like(TOKENS).bool()


@pytest.fixture
def policy(tiny_architecture, tiny_tokenizer):
    return policy_of(tiny_architecture, tiny_tokenizer)


@pytest.fixture
def scalar(tiny_architecture, tiny_tokenizer):
    return scalar_of(tiny_architecture, tiny_tokenizer)


def logits(model):
    return run(model, TOKENS, MASK).logits


def trained(model):
    return {name for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("adapter", [LoRA(rank=2), Prefix(tokens=3)])
def test_only_the_adapter_learns(policy, adapter):
    model = attach(policy, adapter)
    assert isinstance(model, PeftModel)
    assert trained(model)
    assert all("lora" in name or "prompt_encoder" in name for name in trained(model))
    disturb(model)
    logits(model).square().mean().backward()
    with_gradient = {n for n, p in model.named_parameters() if p.grad is not None}
    assert with_gradient == trained(model)
    assert all(p.grad.abs().sum() > 0 for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("adapter", [LoRA(rank=2), Prefix(tokens=3)])
def test_head_always_learns(scalar, adapter):
    scalar.offset.requires_grad_(True)
    model = attach(scalar, adapter)
    assert model is scalar
    assert isinstance(model.trunk, PeftModel)
    others = {n for n in trained(model) if "lora" not in n and "prompt_encoder" not in n}
    assert others == {"head.weight", "offset"}
    disturb(model)
    model.score(flat(TOKENS, MASK)).sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in model.parameters() if p.requires_grad)


def test_lora_starts_as_the_network_and_covers_it(policy):
    expected = logits(policy)
    model = attach(policy, LoRA(rank=2))
    torch.testing.assert_close(logits(model), expected)
    layers = {n.split(".lora_A")[0].split(".")[-1] for n in trained(model) if "lora_A" in n}
    assert len(layers) >= 3  # attention and feed-forward
    assert not layers & {"lm_head", "embed_out"}


def test_lora_targets(make_architecture, tiny_tokenizer):
    model = load_policy(None, make_architecture("llama"), Network(), tiny_tokenizer)
    model = attach(model, LoRA(rank=2, target_modules=["q_proj"]))
    assert all(".q_proj." in name for name in trained(model))


@pytest.mark.parametrize("adapter", [LoRA(rank=2), Prefix(tokens=3)])
def test_adapters_off(policy, scalar, adapter):
    expected, scores = logits(policy), scalar.score(flat(TOKENS, MASK))
    model, scored = disturb(attach(policy, adapter)), disturb(attach(scalar, adapter))
    assert (logits(model) - expected).abs().max() > 1e-2
    before = trained(model)
    with without_adapters(model), without_adapters(scored.trunk):
        torch.testing.assert_close(logits(model), expected)
        torch.testing.assert_close(scored.score(flat(TOKENS, MASK)), scores)
        assert trained(model) == before
    assert (logits(model) - expected).abs().max() > 1e-2
    assert (scored.score(flat(TOKENS, MASK)) - scores).abs().max() > 1e-3


def test_adapters_come_on_again_after_an_error(policy):
    model = disturb(attach(policy, LoRA(rank=2)))
    expected = logits(model)
    with pytest.raises(RuntimeError, match="stop"), without_adapters(model):
        raise RuntimeError("stop")
    torch.testing.assert_close(logits(model), expected)


def test_merging_changes_no_logits_and_not_the_model(policy):
    model = disturb(attach(policy, LoRA(rank=2, alpha=4)))
    expected = logits(model)
    whole = merged(model)
    assert not isinstance(whole, PeftModel)
    torch.testing.assert_close(logits(whole), expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(logits(model), expected)
    assert isinstance(model, PeftModel)
    tied = whole.config.tie_word_embeddings
    same = whole.get_input_embeddings().weight is whole.get_output_embeddings().weight
    assert same is tied


def test_merging_a_scalar(scalar):
    model = disturb(attach(scalar, LoRA(rank=2)))
    whole = merged(model)
    assert not isinstance(whole.trunk, PeftModel)
    torch.testing.assert_close(
        whole.score(flat(TOKENS, MASK)), model.score(flat(TOKENS, MASK)), rtol=0, atol=1e-4
    )


LAST = {
    "gpt2": {"transformer.h.1.": 12, "transformer.ln_f.": 2},
    "llama": {"model.layers.1.": 9, "model.norm.": 1, "lm_head.": 1},
    "qwen2": {"model.layers.1.": 12, "model.norm.": 1},  # whose head is the embedding
    "gpt_neox": {"gpt_neox.layers.1.": 12, "gpt_neox.final_layer_norm.": 2, "lm_head.": 1},
    "lfm2": {"model.layers.1.": 11, "model.embedding_norm.": 1},
}


def test_the_last_layer_learns_with_all_that_comes_after_it(policy):
    model = attach(policy, LastLayers(1))
    assert model is policy
    found = {
        start: sum(name.startswith(start) for name in trained(model))
        for start in LAST[policy.config.model_type]
    }
    assert found == LAST[policy.config.model_type]
    assert sum(found.values()) == len(trained(model))
    logits(model).square().mean().backward()
    assert {n for n, p in model.named_parameters() if p.grad is not None} == trained(model)


def test_the_last_layer_learns_below_a_score(scalar):
    whole = trained(attach(scalar, LastLayers(2)))
    model = attach(scalar, LastLayers(1))
    assert model is scalar
    assert "head.weight" in trained(model) < whole
    assert not any("embed_tokens" in name or ".wte" in name for name in whole)
    model.score(flat(TOKENS, MASK)).sum().backward()
    assert {n for n, p in model.named_parameters() if p.grad is not None} == trained(model)


def test_training_mode_is_kept(make_architecture, tiny_tokenizer):
    model = load_policy(None, make_architecture("gpt2"), Network(), tiny_tokenizer)
    assert attach(model, LoRA(rank=2)).training
    model = load_policy(None, make_architecture("gpt2"), Network(), tiny_tokenizer).eval()
    assert not attach(model, LoRA(rank=2)).training


@pytest.mark.parametrize("adapter", [LoRA(rank=2), Prefix(tokens=3)])
def test_half_precision(tiny_architecture, tiny_tokenizer, adapter):
    """Adapters stay float32 on bfloat16 weights, and run also under autocast on float32 weights."""
    torch.manual_seed(0)
    half = load_policy(None, tiny_architecture, Network(dtype="bfloat16"), tiny_tokenizer)
    half = disturb(attach(half, adapter))
    assert logits(half).dtype == torch.bfloat16
    logits(half).float().square().mean().backward()
    assert all(p.grad.isfinite().all() for p in half.parameters() if p.requires_grad)
    full = load_policy(None, tiny_architecture, Network(), tiny_tokenizer).eval()
    full = disturb(attach(full, adapter))
    with torch.autocast("cpu", torch.bfloat16):
        mixed = logits(full)
    assert (mixed.float() - logits(full)).abs().mean() < 0.1


def test_prefix_starts_small(make_architecture, tiny_tokenizer):
    model = load_policy(None, make_architecture("gpt2"), Network(), tiny_tokenizer)
    model = attach(model, Prefix(tokens=16))
    weight = model.prompt_encoder["default"].embedding.weight
    assert weight.shape == (16, 2 * 2 * 16)  # key and value of 2 layers of width 16
    assert weight.std().item() == pytest.approx(0.02, rel=0.2)


def test_lora_with_gradient_checkpointing(make_architecture, tiny_tokenizer):
    network = Network(gradient_checkpointing=True)
    model = load_policy(None, make_architecture("llama"), network, tiny_tokenizer)
    model = disturb(attach(model, LoRA(rank=2)))
    logits(model).square().mean().backward()
    assert all(p.grad.abs().sum() > 0 for p in model.parameters() if p.requires_grad)


def test_refusals(make_architecture, tiny_tokenizer):
    def load(name="gpt2", **options):
        return load_policy(None, make_architecture(name), Network(**options), tiny_tokenizer)

    model = attach(load(), LoRA(rank=2))
    with pytest.raises(UserError, match="must be null for a model that has an adapter, got Prefix"):
        attach(model, Prefix())
    with pytest.raises(UserError, match="prefix cannot be merged"):
        merged(attach(load(), Prefix(tokens=2)))
    with pytest.raises(UserError, match="must not be Prefix with gradient_checkpointing"):
        attach(load(gradient_checkpointing=True), Prefix())
    windowed = load_policy(
        None,
        make_architecture("llama") | {"model_type": "mistral", "sliding_window": 8},
        Network(),
        tiny_tokenizer,
    )
    with pytest.raises(UserError, match="must not be Prefix for attention within a window"):
        attach(windowed, Prefix())
    shifting = {"model_type": "shift_gpt", "hidden_size": 32}
    with pytest.raises(UserError, match="cache holds more than keys and values, got shift_gpt"):
        attach(load_policy(None, shifting, Network(), tiny_tokenizer), Prefix())
    with pytest.raises(UserError, match=r"LoRA does not fit 'gpt2': .*q_proj") as error:
        attach(load(), LoRA(target_modules=["q_proj"]))
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="must not name embeddings that share their weights"):
        attach(load("qwen2"), LoRA(target_modules=["q_proj", "lm_head"]))
    with pytest.raises(UserError, match=r"trained\.layers must be at most the 2 of .gpt2., got 3"):
        attach(load(), LastLayers(3))
    assert base_network(model).config.model_type == "gpt2"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LoRA(rank=0), "trained.rank must be >= 1, got 0"),
        (lambda: LoRA(alpha=0), "trained.alpha must be > 0, got 0"),
        (lambda: LoRA(dropout=1.0), r"trained.dropout must be in \[0, 1\), got 1.0"),
        (lambda: Prefix(tokens=0), "trained.tokens must be >= 1, got 0"),
        (lambda: LastLayers(layers=0), "trained.layers must be >= 1, got 0"),
    ],
)
def test_wrong_values(make, message):
    with pytest.raises(UserError, match=message):
        make()
