"""Rows of a rollout end to end: worked by hand, and equal to padded rows one by one."""

import pytest
import torch

from instructgpt.models.load import Network, load_policy
from instructgpt.rollout.rows import flatten
from instructgpt.rollout.scoring import response_logprobs
from instructgpt.types import Rollout


def rollout_of(prompts, responses):
    """Left-padded prompts and right-padded responses; padding is a token that occurs."""
    width, length = max(map(len, prompts)), max(max(map(len, responses)), 1)
    tokens = [
        [9] * (width - len(p)) + p + r + [9] * (length - len(r))
        for p, r in zip(prompts, responses, strict=True)
    ]
    lengths = [torch.tensor([len(row) for row in rows]) for rows in (prompts, responses)]
    return Rollout(
        torch.tensor(tokens),
        torch.arange(width) >= width - lengths[0][:, None],
        torch.arange(length) < lengths[1][:, None],
        torch.ones(len(tokens), dtype=torch.bool),
        torch.zeros(len(tokens), length),
        torch.zeros(len(tokens), length, 0),
    )


def test_by_hand():
    """Rows 1 2|3, and twice the prompt 4 5 6, with 7 8 and with no response."""
    rows, places, states, mask, _ = flatten(
        rollout_of([[1, 2], [4, 5, 6], [4, 5, 6]], [[3], [7, 8], []])
    )
    assert rows.tokens.tolist() == [1, 2, 3, 4, 5, 6, 7, 8]
    assert rows.layout.lengths.tolist() == [3, 3, 2, 0]
    assert rows.layout.parents.tolist() == [-1, -1, 1, 1]
    assert places.tolist() == [2, 6, 7]
    assert states.tolist() == [[1, 2, 0], [5, 6, 7], [5, 0, 0]]
    laid = flatten(rollout_of([[1, 2], [4, 5, 6], [4, 5, 6]], [[3], [7, 8], []]))
    assert laid.of_tokens(torch.tensor([0.5, 1.5, 2.5])).tolist() == [[0.5, 0], [1.5, 2.5], [0, 0]]
    values = laid.of_states(torch.arange(8.0))
    assert values.tolist() == [[1, 2, 0], [5, 6, 7], [5, 0, 0]]
    assert mask.tolist() == [[True, False], [True, True], [False, False]]


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_equal_to_unpadded_rows_one_by_one(make_architecture, tiny_tokenizer, family):
    """Three responses to one prompt between two others; log-probabilities and their gradient."""
    torch.manual_seed(3)
    policy = load_policy(None, make_architecture(family), Network(), tiny_tokenizer).eval()
    prompts = [[11, 12], *[[21, 22, 23, 24]] * 3, [31]]
    responses = [[41, 42, 43], [51], [61, 62, 63, 64], [71, 72], [81, 82]]
    said = response_logprobs(policy, flatten(rollout_of(prompts, responses)), 0.8)
    said.logprobs.sum().backward()
    got = [p.grad.clone() for p in policy.parameters()]
    policy.zero_grad()
    for row, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        tokens = torch.tensor(prompt + response)
        logits = policy(input_ids=tokens[None]).logits[0, :-1, : len(tiny_tokenizer)] / 0.8
        expected = logits.log_softmax(-1).gather(1, tokens[1:, None])[-len(response) :, 0]
        expected.sum().backward()
        torch.testing.assert_close(
            said.logprobs[row, : len(response)], expected, atol=1e-5, rtol=1e-5
        )
    for gradient, parameter in zip(got, policy.parameters(), strict=True):
        torch.testing.assert_close(gradient, parameter.grad, atol=1e-5, rtol=1e-5)
