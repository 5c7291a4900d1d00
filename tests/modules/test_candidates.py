"""Responses share their prompt: scores, loss and gradients are those of padded rows."""

import pytest
import torch
from compared import sequence
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import padded_scores, policy_of, scalar_of

from instructgpt.algorithms.dpo import DPO
from instructgpt.algorithms.kwise import KWise
from instructgpt.data.collate import collate_comparisons
from instructgpt.data.rows import ComparisonRow
from instructgpt.functional.logprobs import token_logprobs
from instructgpt.models.forward import run
from instructgpt.modules.candidates import candidates, in_columns, response_logprobs


def comparison(seed, prompt, lengths, ranking):
    generator = torch.Generator().manual_seed(seed)

    def tokens(count):
        return torch.randint(2, 290, (count,), generator=generator)

    return ComparisonRow(tokens(prompt), tuple(map(tokens, lengths)), ranking, "", "", f"{seed}")


# K from 1 to 5, ties, responses and prompts of one token, one judged alone, one that fills a batch
ROWS = [
    comparison(0, 7, [3, 1, 9, 4], (2, 1, 1, 3)),
    comparison(1, 1, [1, 1], (1, 2)),
    comparison(2, 12, [5], (2,)),
    comparison(3, 3, [2, 2, 6, 1, 8], (1, 1, 1, 1, 1)),
    comparison(4, 20, [4, 5], (1, 2)).blank(),
    comparison(5, 2, [10, 3, 7], (3, 2, 1)),
]


def padded(batch):
    """Prompt with response, one a row, right-padded: tokens, mask, and where the responses are."""
    pairs = [(b, k) for b in range(len(batch.ids)) for k in range(batch.responses.shape[1])]
    real = [(b, k) for b, k in pairs if batch.responses[b, k] > 0]
    rows = [sequence(batch, b, k) for b, k in real]
    width = max(map(len, rows))
    tokens = torch.stack([torch.nn.functional.pad(row, (0, width - len(row))) for row in rows])
    mask = torch.arange(width) < torch.tensor([[len(row)] for row in rows])
    lengths = batch.rows.layout.lengths[[int(batch.responses[b, k]) for b, k in real]]
    return real, tokens, mask, mask & (torch.arange(width) >= mask.sum(1, True) - lengths[:, None])


def of_pieces(batch, max_tokens, loss):
    """Sums and the gradient of a network, from pieces."""
    total, count = 0.0, 0
    for piece in batch.pieces(max_tokens):
        one, elements = loss(piece)
        one.backward()
        total, count = total + float(one.detach()), count + int(elements)
    return total, count


def check(network, batch, flat, oracle, max_tokens):
    expected, elements = oracle(batch)
    expected.backward()
    gradients = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    network.zero_grad(set_to_none=True)
    assert of_pieces(batch, max_tokens, flat) == pytest.approx(
        (float(expected.detach()), int(elements)), abs=1e-5
    )
    found = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    assert set(found) == set(gradients)
    largest = max(float(gradient.abs().max()) for gradient in gradients.values())
    for name, gradient in gradients.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-5 * largest, rtol=1e-5, msg=name)


@pytest.mark.parametrize("max_tokens", [None, 30])
def test_reward_loss_and_gradients(tiny_architecture, tiny_tokenizer, max_tokens):
    model, batch = scalar_of(tiny_architecture, tiny_tokenizer), collate_comparisons(ROWS)

    def loss(piece):
        scores = model.score(piece.rows)[piece.responses]
        return KWise().loss(scores, piece.ranking, piece.ranking_mask)

    def oracle(batch):
        real, tokens, mask, _ = padded(batch)
        scores = torch.zeros(batch.responses.shape)
        b, k = torch.tensor(real).T
        scores[b, k] = padded_scores(model, tokens, mask)[range(len(mask)), mask.sum(1) - 1]
        return KWise().loss(scores, batch.ranking, batch.ranking_mask)

    check(model, batch, loss, oracle, max_tokens)


@pytest.mark.parametrize("max_tokens", [None, 30])
def test_preference_loss_and_gradients(tiny_architecture, tiny_tokenizer, max_tokens):
    policy, batch = policy_of(tiny_architecture, tiny_tokenizer), collate_comparisons(ROWS)

    def dpo(batch, logprobs):
        responses = in_columns(batch.rows.layout, logprobs, torch.full_like(logprobs, -5.0))
        found = candidates(batch, responses, DPO(beta=0.5).scores(responses))
        return DPO(beta=0.5).loss(found)[:2]

    def oracle(batch):
        _, tokens, mask, responses = padded(batch)
        logits = run(policy, tokens, mask).logits[:, :-1]
        return dpo(batch, token_logprobs(logits, tokens[:, 1:])[responses[:, 1:]])

    def loss(piece):
        return dpo(piece, response_logprobs(policy, piece.rows))

    check(policy, batch, loss, oracle, max_tokens)


def test_a_response_is_found_wherever_it_lies():
    """Sums of tokens that are known by their ids, for each place of a response in a batch."""
    batch = collate_comparisons(ROWS)
    continues = batch.rows.layout.parents >= 0
    values = batch.rows.tokens[continues.repeat_interleave(batch.rows.layout.lengths)].float()
    responses = in_columns(batch.rows.layout, values, None)
    found = candidates(batch, responses, responses.sums)
    for b, row in enumerate(ROWS):
        sums = [float(one.sum()) for one in row.responses]
        assert found.scores[b, : len(sums)].tolist() == sums
        assert found.lengths[b, : len(row.ranking)].tolist() == [
            len(one) for one in row.responses[: len(row.ranking)]
        ]


@given(
    st.lists(
        st.tuples(st.integers(1, 5), st.lists(st.integers(1, 5), min_size=1, max_size=4)),
        min_size=1,
        max_size=5,
    ),
    st.integers(1, 40),
)
@settings(max_examples=50)
def test_pieces_are_the_batch(sizes, max_tokens):
    """All prompts in order, none cut, none too large that could be smaller."""
    rows = [comparison(i, p, own, tuple(range(len(own)))) for i, (p, own) in enumerate(sizes)]
    batch = collate_comparisons(rows)
    pieces = batch.pieces(max_tokens)
    assert [name for piece in pieces for name in piece.ids] == batch.ids
    assert torch.equal(torch.cat([piece.rows.tokens for piece in pieces]), batch.rows.tokens)
    tokens = [len(piece.rows.tokens) for piece in pieces]
    assert all(n <= max_tokens or len(p.ids) == 1 for n, p in zip(tokens, pieces, strict=True))
    for piece, following in zip(tokens, pieces[1:], strict=False):
        assert piece + int(following.row_tokens[0]) > max_tokens
    whole = iter(range(len(rows)))
    for piece in pieces:
        for b, mine in enumerate(next(whole) for _ in piece.ids):
            for k in range(len(rows[mine].responses)):
                assert torch.equal(sequence(piece, b, k), sequence(batch, mine, k))
