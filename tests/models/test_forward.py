"""Calling a language model: padding, caches and adapters change nothing."""

import pytest
import torch
from tiny_models import policy_of
from torch.nn.functional import pad
from transformers import DynamicCache, StaticCache

from instructgpt.models.architecture import is_recurrent
from instructgpt.models.forward import position_ids, run, virtual_tokens
from instructgpt.models.trained import LoRA, Prefix, attach

LENGTHS = (7, 3, 5)
EXACT = {"rtol": 0, "atol": 1e-5}


@pytest.fixture
def model(tiny_architecture, tiny_tokenizer):
    return policy_of(tiny_architecture, tiny_tokenizer)


def rows(*lengths):
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(2, 280, (length,), generator=generator) for length in lengths]


def padded(sequences, left, filler=0):
    """Tokens and mask; the filler is EOS, which must not matter."""
    width = max(map(len, sequences)) + 2
    sides = [(width - len(s), 0) if left else (0, width - len(s)) for s in sequences]
    tokens = [pad(s, side, value=filler) for s, side in zip(sequences, sides, strict=True)]
    mask = [pad(torch.ones_like(s), side) for s, side in zip(sequences, sides, strict=True)]
    return torch.stack(tokens), torch.stack(mask).bool()


def alone(model, sequence, **options):
    tokens = sequence[None]
    return run(model, tokens, torch.ones_like(tokens).bool(), **options)


def test_positions_count_real_tokens():
    mask = torch.tensor([[False, False, True, True], [True, True, False, False]])
    assert position_ids(mask).tolist() == [[0, 0, 0, 1], [0, 1, 1, 1]]


@pytest.mark.parametrize("left", [True, False])
def test_padding_changes_nothing(model, left):
    sequences = rows(*LENGTHS)
    tokens, mask = padded(sequences, left)
    logits = run(model, tokens, mask).logits
    for row, sequence in enumerate(sequences):
        torch.testing.assert_close(
            logits[row][mask[row]], alone(model, sequence).logits[0], **EXACT
        )


@pytest.mark.parametrize("left", [True, False])
def test_gradient_does_not_depend_on_padding(model, left):
    sequence = rows(5)[0]
    tokens, mask = padded([sequence], left)

    def gradients(logits):
        model.zero_grad()
        logits.square().mean().backward()
        return [p.grad.clone() for p in model.parameters()]

    expected = gradients(alone(model, sequence).logits)
    for got, want in zip(gradients(run(model, tokens, mask).logits[mask]), expected, strict=True):
        torch.testing.assert_close(got, want, **EXACT)


@pytest.mark.parametrize("static", [False, True])
def test_cached_decoding_equals_full_forward(model, static):
    prompts, steps = rows(*LENGTHS), 4
    tokens, mask = padded(prompts, left=True)
    new = torch.stack(rows(*[steps] * len(prompts)))
    width = tokens.shape[1] + steps
    cache = StaticCache(config=model.config, max_cache_len=width) if static else None
    output = run(model, tokens, mask, cache=cache, use_cache=True, keep=1)
    stepwise = [output.logits]
    for step in range(steps):
        mask = torch.cat([mask, torch.ones(len(prompts), 1, dtype=torch.bool)], 1)
        output = run(model, new[:, step, None], mask, cache=output.cache, use_cache=True)
        stepwise.append(output.logits)
    full = run(model, torch.cat([tokens, new], 1), mask, keep=steps + 1)
    torch.testing.assert_close(torch.cat(stepwise, 1), full.logits, **EXACT)
    assert full.cache is None


def test_several_tokens_after_a_cache(model):
    tokens, mask = padded(rows(*LENGTHS), left=True)
    full = run(model, tokens, mask)
    first = run(model, tokens[:, :6], mask[:, :6], use_cache=True)
    rest = run(model, tokens[:, 6:], mask, cache=first.cache, use_cache=True)
    real = mask[:, 6:]
    torch.testing.assert_close(rest.logits[real], full.logits[:, 6:][real], **EXACT)


def test_keep_and_hidden(model):
    tokens, mask = padded(rows(*LENGTHS), left=True)
    full = run(model, tokens, mask, hidden=True)
    kept = run(model, tokens, mask, keep=3, hidden=True)
    assert kept.logits.shape[:2] == (3, 3)
    torch.testing.assert_close(kept.logits, full.logits[:, -3:], **EXACT)
    torch.testing.assert_close(kept.hidden, full.hidden[:, -3:], **EXACT)
    torch.testing.assert_close(model.get_output_embeddings()(kept.hidden), kept.logits, **EXACT)
    assert run(model, tokens, mask).hidden is None


def test_recurrence_is_recognised(model):
    assert is_recurrent(model.config) == (model.config.model_type == "lfm2")


@pytest.mark.parametrize("name", ["mamba", "rwkv"])
def test_recurrence_without_layer_types(name):
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    assert is_recurrent(CONFIG_MAPPING[name]())


def test_prefix_equals_peft_on_unpadded_rows(model):
    """Peft cannot put a prefix on the convolutions of LFM2; there, only padding is tested."""
    prefixed = attach(model, Prefix(tokens=3))
    torch.nn.init.normal_(prefixed.prompt_encoder["default"].embedding.weight)
    assert virtual_tokens(prefixed) == 3
    sequences, steps = rows(*LENGTHS), 3
    tokens, mask = padded(sequences, left=True)
    new = torch.stack(rows(*[steps] * len(sequences)))
    output = run(prefixed, tokens, mask, use_cache=True)
    columns, width = [output.logits], tokens.shape[1]
    for step in range(steps):
        mask = torch.cat([mask, torch.ones(len(sequences), 1, dtype=torch.bool)], 1)
        output = run(prefixed, new[:, step, None], mask, cache=output.cache, use_cache=True)
        columns.append(output.logits)
    logits = torch.cat(columns, 1)
    for row, sequence in enumerate(sequences):
        whole = torch.cat([sequence, new[row]])[None]
        if model.config.model_type == "lfm2":
            expected = run(prefixed, whole, torch.ones_like(whole).bool()).logits[0]
        else:
            expected = prefixed(whole, attention_mask=torch.ones_like(whole)).logits[0]
        torch.testing.assert_close(
            logits[row, width - len(sequence) :], expected, rtol=0, atol=2e-5
        )


def test_prefix_fills_an_empty_cache_that_is_given(model):
    prefixed = attach(model, Prefix(tokens=3))
    tokens, mask = padded(rows(*LENGTHS), left=True)
    expected = run(prefixed, tokens, mask).logits
    cache = DynamicCache(config=model.config)
    got = run(prefixed, tokens, mask, cache=cache, use_cache=True)
    torch.testing.assert_close(got.logits[mask], expected[mask], **EXACT)
    assert got.cache is cache


@pytest.mark.parametrize("adapter", [LoRA(rank=2), Prefix(tokens=3)])
def test_adapter_off_is_the_base_model(model, adapter):
    tokens, mask = padded(rows(*LENGTHS), left=True)
    expected = run(model, tokens, mask).logits
    adapted = attach(model, adapter)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3)
    trained = [p.requires_grad for p in adapted.parameters()]
    changed = run(adapted, tokens, mask).logits
    assert (changed - expected).abs().max() > 1e-2
    torch.testing.assert_close(
        run(adapted, tokens, mask, adapter=False).logits[mask], expected[mask], **EXACT
    )
    # and on again, with what is trained as it was
    torch.testing.assert_close(run(adapted, tokens, mask).logits, changed, **EXACT)
    assert [p.requires_grad for p in adapted.parameters()] == trained
