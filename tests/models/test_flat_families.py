"""Loss and gradients on flat rows are those of each row alone, for every kind of architecture."""

import warnings

import pytest
import torch
from flat_families import FLAT, PADDED, build, flat_rows

from instructgpt.models.flat import predict
from instructgpt.models.forward import run

RECURRENT = {"mamba", "lfm2"}
BOTH = [*((name, True) for name in FLAT), *((name, False) for name in PADDED)]


def asked(rows):
    return (rows.layout.previous >= 0).nonzero().squeeze(1)


def logprobs_of_rows_alone(model, rows):
    """[T] of every token, from the first row that has it; 0 for first tokens."""
    found = {}
    for places in rows.layout.row_places.split(rows.layout.row_lengths.tolist()):
        tokens = rows.tokens[places][None]
        logits = run(model, tokens, torch.ones_like(tokens).bool()).logits[0]
        logprobs = logits.log_softmax(-1)
        for column, place in enumerate(places.tolist()):
            token = rows.tokens[place]
            value = logprobs[column - 1, token] if column else logprobs[0, 0] * 0
            found.setdefault(place, value)
    return torch.stack([found[place] for place in range(rows.layout.tokens)])


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same_gradients(found, expected):
    largest = max(gradient.norm() for gradient in expected.values())
    assert set(found) == set(expected)
    for name, gradient in expected.items():
        difference = (found[name] - gradient).norm()
        assert difference <= 1e-5 * gradient.norm() + 1e-7 * largest, name


@pytest.mark.parametrize(("name", "flat"), BOTH, ids=[name for name, _ in BOTH])
def test_loss_and_gradients_are_those_of_rows_alone(tiny_tokenizer, name, flat):
    model, rows = build(name, tiny_tokenizer), flat_rows()
    places = asked(rows)
    weights = torch.randn(rows.layout.tokens, generator=torch.Generator().manual_seed(2))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):  # the second time nothing is said
            found = predict(model, rows, places)
    told = [str(one.message) for one in caught if "flat rows" in str(one.message)]
    assert len(told) == (not flat), told
    own, recurrent = "its attention is its own", "it has convolutions or recurrence"
    reason = recurrent if name in RECURRENT else own
    assert all(x == f"{name} does not read flat rows ({reason}): rows are padded" for x in told)
    expected = logprobs_of_rows_alone(model, rows)
    loss = (expected * weights)[places].sum()
    loss_of_flat = (found.logprobs * weights[places]).sum()
    size = (expected * weights)[places].abs().sum().item()  # summands of both signs
    assert loss_of_flat.item() == pytest.approx(loss.item(), abs=1e-5 * size)
    assert (found.logprobs - expected[places]).norm() <= 1e-5 * expected.norm()
    assert_same_gradients(gradients(model, loss_of_flat), gradients(model, loss))
