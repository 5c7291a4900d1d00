"""Scores and values: read at the last token of each row."""

import pytest
import torch
from tiny_models import flat, scalar_of

from instructgpt.functional.layout import Layout
from instructgpt.models.heads import ScalarModel, ValueHead, score_head
from instructgpt.models.load import Network, load_scalar
from instructgpt.types import FlatRows


@pytest.fixture(params=["tiny_tokenizer", "eos_padded_tokenizer"])
def tokenizer(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def model(tiny_architecture, tokenizer):
    return scalar_of(tiny_architecture, tokenizer)


def test_score_is_read_at_eos(model, tokenizer):
    """EOS is the last token of a row, and may stand within one."""
    eos = tokenizer.eos_token_id
    rows = [torch.tensor([[5, 9, eos, 7, eos]]), torch.tensor([[8, eos]])]
    together = FlatRows(torch.cat(rows, 1)[0], Layout.of([5, 2]))
    expected = torch.cat([model(flat(row))[-1:] for row in rows])
    torch.testing.assert_close(model.score(together), expected, rtol=0, atol=1e-5)
    # and it depends on EOS having been read
    assert (model.score(flat(rows[0][:, :-1])) - expected[0]).abs() > 1e-3


def test_an_empty_document_has_no_score_and_an_empty_response_that_of_its_prompt(model):
    for lengths in ([0, 2], [2, 0]):
        with pytest.raises(ValueError, match="every document must hold a token to be scored"):
            model.score(FlatRows(torch.tensor([5, 9]), Layout.of(lengths)))
    row = FlatRows(torch.tensor([5, 9]), Layout.shared([2], [[0]]))
    torch.testing.assert_close(model.score(row), model.score(flat(row.tokens[None])).expand(2))
    headless = FlatRows(row.tokens, Layout.shared([0], [[2]]))  # a response to nothing
    torch.testing.assert_close(model.score(headless)[1], model.score(row)[0])


def test_forward_scores_every_position_of_the_past_only(model):
    tokens = torch.tensor([[5, 9, 12, 7]])
    scores = model(flat(tokens))
    assert scores.shape == (4,)
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores[:2], model(flat(tokens[:, :2])), rtol=0, atol=1e-5)


def test_head_starts_at_the_papers_scale():
    torch.manual_seed(0)
    width = 399  # std 1 / sqrt(400) = 0.05
    weights = torch.cat([score_head(width).weight for _ in range(100)])
    assert weights.std().item() == pytest.approx(0.05, rel=0.02)
    assert weights.mean().abs() < 1e-3
    assert score_head(width).bias is None


def test_offset_is_subtracted_everywhere(model):
    rows = flat(torch.tensor([[5, 9, 12, 7]]))
    before = model(rows)
    with torch.no_grad():
        model.offset.fill_(1.5)
    torch.testing.assert_close(model(rows), before - 1.5)


def test_offset_is_trained_on_request_only(make_architecture, tiny_tokenizer):
    for trainable in (False, True):
        model = load_scalar(
            None,
            make_architecture("gpt2"),
            Network(),
            tiny_tokenizer,
            head="new",
            trainable_offset=trainable,
        )
        assert model.offset.shape == (1,)
        assert model.offset.requires_grad is trainable


def test_scores_in_bfloat16_come_from_a_float32_head(make_architecture, tiny_tokenizer):
    network = Network(dtype="bfloat16")
    model = load_scalar(None, make_architecture("llama"), network, tiny_tokenizer, head="new")
    rows = flat(torch.tensor([[5, 9, 12, 7]]))
    assert isinstance(model, ScalarModel)
    assert model.trunk.dtype == torch.bfloat16
    assert model.head.weight.dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        scores = model(rows)
    assert scores.dtype == torch.float32
    assert not torch.equal(scores, scores.bfloat16().float())


def test_value_head_starts_at_zero():
    head, hidden = ValueHead(8), torch.randn(2, 3, 8)
    assert head(hidden).shape == (2, 3)
    assert not head(hidden).any()
    head(hidden).sum().backward()
    torch.testing.assert_close(head.weight.grad[0], hidden.sum((0, 1)))
    assert head(hidden.bfloat16()).dtype == torch.float32
