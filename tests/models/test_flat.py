"""Flat rows against each row alone."""

import pytest
import torch
from tiny_models import policy_of, scalar_of
from torch.testing import assert_close

from instructgpt.functional.layout import Layout
from instructgpt.functional.logprobs import entropy
from instructgpt.models.adapters import LoRA, Prefix, attach
from instructgpt.models.flat import hidden_states, predict
from instructgpt.models.forward import run
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


@pytest.mark.parametrize("adapter", [LoRA(rank=2), Prefix(tokens=3)])
def test_adapters_are_on_unless_switched_off(make_architecture, tiny_tokenizer, rows, adapter):
    plain = policy_of(make_architecture("llama"), tiny_tokenizer)
    before = hidden_states(plain, rows)
    model = attach(plain, adapter).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.5)
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
