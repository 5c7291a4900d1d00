"""Flat rows against each row alone."""

import warnings
from functools import partial

import pytest
import torch
from flat_families import build
from tiny_models import policy_of, scalar_of
from torch.testing import assert_close
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from instructgpt.functional.layout import Layout
from instructgpt.functional.logprobs import entropy
from instructgpt.models.flat import hidden_states, predict
from instructgpt.models.flat_proof import PROOFS
from instructgpt.models.forward import run
from instructgpt.models.load import Network
from instructgpt.models.trained import LoRA, Prefix, attach
from instructgpt.types import FlatRows

# a prompt with three responses, a document, a prompt with one; and their rows
TREE = ([5, 6, 1], [[2, 4, 1], [], [3]])


@pytest.fixture
def rows():
    layout = Layout.shared(*TREE)
    generator = torch.Generator().manual_seed(1)
    return FlatRows(torch.randint(2, 280, (layout.tokens,), generator=generator), layout)


def alone(model, rows, **options):
    """Each row by itself: its places, and what ``run`` says."""
    for places in rows.layout.row_places.split(rows.layout.row_lengths.tolist()):
        tokens = rows.tokens[places][None]
        yield places, run(model, tokens, torch.ones_like(tokens).bool(), hidden=True, **options)


def asked(rows):
    return (rows.layout.previous >= 0).nonzero().squeeze(1)


def test_predictions_are_those_of_rows_alone(make_architecture, tiny_tokenizer, rows):
    model, places = policy_of(make_architecture("gpt2"), tiny_tokenizer), asked(rows)
    found = predict(model, rows, places, temperature=0.7, entropy=True)
    seen = {}
    for row, output in alone(model, rows):
        logprobs = (output.logits[0].float() / 0.7).log_softmax(-1)
        for column in range(1, len(row)):
            token = rows.tokens[row[column]]
            before = logprobs[column - 1]
            seen[int(row[column])] = (before[token], before.argmax() == token, entropy(before))
        assert_close(found.hidden[row], output.hidden[0])
    logprobs, correct, spread = map(torch.stack, zip(*(seen[int(p)] for p in places), strict=True))
    assert_close(found.logprobs, logprobs)
    assert torch.equal(found.correct, correct)
    assert_close(found.entropy, spread)
    assert found.logprobs.requires_grad
    assert not found.entropy.requires_grad


@pytest.mark.parametrize("documents", [[], [0], [0, 0]])
def test_without_a_token_nothing_is_read(make_architecture, tiny_tokenizer, documents):
    model, nothing = policy_of(make_architecture("gpt2"), tiny_tokenizer), torch.tensor([]).long()
    rows = FlatRows(nothing, Layout.of(documents))
    for read in (hidden_states, partial(predict, places=nothing)):
        with pytest.raises(ValueError, match="rows must hold a token, got none"):
            read(model, rows)


@pytest.mark.parametrize("adapter", [LoRA(rank=2), Prefix(tokens=3)])
def test_adapters_are_on_unless_switched_off(make_architecture, tiny_tokenizer, rows, adapter):
    plain = policy_of(make_architecture("llama"), tiny_tokenizer)
    before = hidden_states(plain, rows)
    model = attach(plain, adapter).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.5)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            hidden_states(model, rows)
    told = [str(one.message) for one in caught if "flat rows" in str(one.message)]
    padded = "llama does not read flat rows (its rows have a prefix): rows are padded"
    assert told == ([padded] if isinstance(adapter, Prefix) else [])
    assert_close(hidden_states(model, rows, adapter=False), before)
    for row, output in alone(model, rows):
        assert_close(hidden_states(model, rows)[row], output.hidden[0])
    assert (hidden_states(model, rows) - before).abs().max() > 1e-2


def test_scores_are_of_every_token_and_of_the_last_of_each_segment(
    tiny_architecture, tiny_tokenizer, rows
):
    model = scalar_of(tiny_architecture, tiny_tokenizer)
    scores = model(rows)
    assert scores.dtype == torch.float32
    for row in rows.layout.row_places.split(rows.layout.row_lengths.tolist()):
        one = FlatRows(rows.tokens[row], Layout.of([len(row)]))
        assert_close(scores[row], model(one))
        assert_close(model.score(one), scores[row[-1:]])
    assert_close(model.score(rows), scores[rows.layout.last])


def trained(model, rows):
    """A loss on everything there is, and its gradient."""
    found = predict(model, rows, asked(rows))
    model.zero_grad()
    (found.logprobs.sum() + found.hidden.square().sum()).backward()
    return found, {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("name", ["gpt2", "llama", "shift_gpt"])
def test_neither_order_nor_the_cut_into_pieces_changes_anything(tiny_tokenizer, rows, name):
    model = build(name, tiny_tokenizer)
    whole, expected = trained(model, rows)
    logprobs = torch.zeros(rows.layout.tokens)
    logprobs[asked(rows)] = whole.logprobs.detach()
    sums = {name: torch.zeros_like(gradient) for name, gradient in expected.items()}
    for segments in ([4], [5, 6], [0, 3, 1, 2]):  # families of a prompt, in another order
        part = rows.select(segments)
        _, places = rows.layout.select(segments)
        found, gradients = trained(model, part)
        assert_close(found.logprobs, logprobs[places[asked(part)]])
        assert_close(found.hidden, whole.hidden[places])
        for name in sums:
            sums[name] += gradients[name]
    for name, gradient in expected.items():
        assert_close(sums[name], gradient, rtol=1e-5, atol=1e-5 * gradient.abs().max().item())


@pytest.mark.parametrize("name", ["gpt2", "llama", "shift_gpt"])
def test_checkpointed_activations_are_recomputed_alike(tiny_tokenizer, rows, name):
    plain = build(name, tiny_tokenizer).train()
    model = build(name, tiny_tokenizer, Network(gradient_checkpointing=True)).train()
    set_dropout_off(model, plain)
    model.load_state_dict(plain.state_dict())
    assert any(getattr(module, "gradient_checkpointing", False) for module in model.modules())
    _, expected = trained(plain, rows)
    _, found = trained(model, rows)
    for key, gradient in expected.items():
        assert_close(found[key], gradient)


def set_dropout_off(*models):
    for model in models:
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0


def test_attention_drops_out_in_training(make_architecture, tiny_tokenizer, rows):
    model = policy_of(make_architecture("gpt2") | {"attn_pdrop": 0.5}, tiny_tokenizer)
    whole = hidden_states(model, rows)
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout) and module.p != 0.5:
            module.p = 0.0
    draws = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        draws.append(hidden_states(model, rows))
    assert torch.equal(draws[0], draws[1])
    assert (draws[0] - draws[2]).abs().max() > 1e-3
    first = rows.layout.positions == 0
    assert (draws[0] - whole)[~first].abs().max() > 1e-3
    assert model.training
    assert not torch.equal(hidden_states(model, rows), hidden_states(model, rows))


def test_bfloat16_is_as_near_to_float32_as_padded_rows(make_architecture, tiny_tokenizer, rows):
    model = policy_of(make_architecture("llama"), tiny_tokenizer)
    exact = hidden_states(model, rows)
    half = model.bfloat16()
    flat = hidden_states(half, rows)
    assert flat.dtype == torch.bfloat16
    assert attention_used(half) == "grouped"
    error = (flat.float() - exact).norm()
    padded = torch.zeros_like(exact)
    for row, output in alone(half, rows):
        padded[row] = output.hidden[0].float()
    assert error <= 1.5 * (padded - exact).norm()
    assert error <= 0.02 * exact.norm()


def attention_used(model):
    return getattr(model, PROOFS)["cpu", model.dtype, model.dtype != torch.float32, False]


@pytest.mark.parametrize(
    ("name", "reason"),
    [("lfm2", "it has convolutions or recurrence"), ("openai-gpt", "its attention is its own")],
)
def test_small_first_weights_hide_no_leak(tiny_tokenizer, rows, name, reason):
    """With them the hidden states of flat rows are nearly right."""
    model = build(name, tiny_tokenizer)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.002)
    with pytest.warns(UserWarning, match=f"^{name} does not read flat rows .{reason}.: rows are"):
        predict(model, rows, asked(rows))


def test_a_network_with_attention_of_its_own_is_padded_and_says_so(
    make_architecture, tiny_tokenizer, rows, monkeypatch
):
    """One that sees the whole micro-batch is found out, and is right nevertheless."""
    model = policy_of(make_architecture("llama"), tiny_tokenizer)
    expected = hidden_states(model, rows)
    setattr(model, PROOFS, {})

    def leaky(module, query, key, value, attention_mask, scaling=None, **_):
        mixed = torch.nn.functional.scaled_dot_product_attention(
            query, *(x.repeat_interleave(2, 1) for x in (key, value)), is_causal=True, scale=scaling
        )
        return mixed.transpose(1, 2), None

    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._global_mapping, "flat_sdpa", leaky)
    with pytest.warns(UserWarning, match=r"^llama does not read flat rows \(hidden states differ"):
        found = hidden_states(model, rows)
    assert_close(found, expected)
    assert model.config._attn_implementation == "sdpa"
