"""RLOO by hand, against a loop, and what must not change it."""

import pytest
import torch

from instructgpt.algorithms.rloo import RLOO
from instructgpt.types import Rollout, ScoredRollout, UserError


def scored(scores, lengths, seed=0):
    """A rollout with responses of up to 4 tokens; a length of 0 is a row without a score."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(4) < torch.tensor(lengths)[:, None]
    shape = (len(lengths), 4)
    logprobs, reference = -torch.rand(2, *shape, generator=generator)
    tokens, finished = torch.ones(len(lengths), 6).long(), torch.ones(len(lengths)).bool()
    prompts, none = torch.ones(len(lengths), 2).bool(), torch.zeros(*shape, 0)
    rollout = Rollout(tokens, prompts, mask, finished, logprobs, none)
    return ScoredRollout(rollout, torch.tensor(scores), logprobs, reference, None, logprobs)


def test_by_hand():
    """Without KL: 1 - (2 + 6) / 2 = -3, 2 - (1 + 6) / 2 = -1.5, 6 - (1 + 2) / 2 = 4.5."""
    rollout = scored([1.0, 2.0, 6.0], [1, 2, 4])
    algorithm = RLOO(responses_per_prompt=3)
    experience = algorithm.experience(rollout, 0.0)
    torch.testing.assert_close(experience.advantages, torch.tensor([-3.0, -1.5, 4.5]))
    assert algorithm.row_weights(experience).tolist() == [1, 1, 1]  # whatever their lengths
    new = torch.tensor([[-1.0, 9, 9, 9], [-2, -1, 9, 9], [-1, -1, -1, -1]], requires_grad=True)
    loss = algorithm.loss(experience, new, None)
    # -(-3 * -1 + -1.5 * -3 + 4.5 * -4) = -(3 + 4.5 - 18) = 10.5
    assert loss.total.item() == pytest.approx(10.5) == loss.parts["policy"].item()
    loss.total.backward()
    torch.testing.assert_close(new.grad[:, 0], torch.tensor([3.0, 1.5, -4.5]))
    assert new.grad[0, 1:].tolist() == [0, 0, 0]


def test_matches_a_loop_and_leaves_out_what_has_no_score():
    """The second prompt has one response without a score; of the third one alone has one."""
    scores, lengths = [1.0, -2, 3, 0, 5, 1, 0, 7, 0], [1, 4, 2, 0, 3, 1, 0, 2, 0]
    rollout = scored(scores, lengths)
    advantages = RLOO(responses_per_prompt=3, kl_estimator="k2").experience(rollout, 0.3).advantages
    rewards = []
    for row, length in enumerate(lengths):
        ratios = (rollout.logprobs - rollout.reference_logprobs)[row, :length]
        rewards.append(scores[row] - 0.3 * sum(float(x) ** 2 / 2 for x in ratios))
    for row, length in enumerate(lengths):
        group = range(row - row % 3, row - row % 3 + 3)
        others = [rewards[one] for one in group if one != row and lengths[one]]
        expected = rewards[row] - sum(others) / len(others) if length and others else 0.0
        assert advantages[row].item() == pytest.approx(expected, abs=1e-5)


def test_what_all_responses_to_a_prompt_have_in_common_changes_nothing():
    rollout, algorithm = scored([1.0, 3, -2, 0.5], [2, 4, 1, 3]), RLOO(responses_per_prompt=2)
    shifted = rollout._replace(scores=rollout.scores + torch.tensor([5.0, 5, -9, -9]))
    expected = algorithm.experience(rollout, 0.1).advantages
    torch.testing.assert_close(algorithm.experience(shifted, 0.1).advantages, expected)
    assert expected.view(-1, 2).sum(1).tolist() == pytest.approx([0, 0], abs=1e-6)


def test_one_response_cannot_be_left_out():
    with pytest.raises(UserError, match="responses_per_prompt must be >= 2 to leave one out"):
        RLOO(responses_per_prompt=1)
