"""What the loop makes of an algorithm's answers, and which it refuses."""

from dataclasses import dataclass, replace

import pytest
import torch
from tiny_models import policy_of
from toy_rollout import GroupExperience, GroupPolicy

from instructgpt.algorithms.base import RolloutAlgorithm, UpdateLoss
from instructgpt.rollout.buffer import RolloutBuffer
from instructgpt.rollout.learn import episodes_loss, learn_from, trained_rows
from instructgpt.rollout.rows import flatten
from instructgpt.rollout.scoring import Networks, response_logprobs
from instructgpt.types import Rollout, ScoredRollout, UserError


def scored(rows=6):
    mask = torch.ones(rows, 2, dtype=torch.bool)
    tokens, zeros = torch.ones(rows, 5, dtype=torch.long), torch.zeros(rows, 2)
    prompts, ends = torch.ones(rows, 3, dtype=torch.bool), torch.ones(rows).bool()
    rollout = Rollout(tokens, prompts, mask, ends, zeros, torch.zeros(rows, 2, 0))
    return ScoredRollout(rollout, torch.arange(float(rows)), zeros, zeros, None, zeros)


@dataclass(frozen=True)
class Kept(GroupPolicy):
    """Of three responses one is to be learned from."""

    rows: tuple[int, ...] = (2, 5)

    @property
    def trained_per_prompt(self):
        return 1

    def trained_rows(self, scored, kl_coef):
        return torch.tensor(self.rows)


def test_an_algorithm_keeps_as_many_rows_as_it_says():
    rows = trained_rows(Kept(), scored(), 0.1)
    assert learn_from(Kept(), scored(), rows, 0.1, 0)[0].rows.tolist() == [2, 5]
    rule = "Kept.trained_rows must be 2 of 6 rows, trained_per_prompt of each prompt, got 3"
    with pytest.raises(UserError, match=rule):
        trained_rows(replace(Kept(), rows=(0, 2, 5)), scored(), 0.1)


@dataclass(frozen=True)
class Measures(GroupPolicy):
    """Logs under a name of the loop."""

    def rollout_metrics(self, experience):
        return {"kl": experience.advantages.mean()}


def test_no_number_of_the_loop_is_replaced():
    rule = r"Measures.rollout_metrics must not be named as the loop's: \['kl'\]"
    with pytest.raises(UserError, match=rule):
        learn_from(Measures(), scored(), torch.arange(6), 0.1, 0)


def test_an_algorithm_says_which_networks_it_uses():
    class Silent(GroupPolicy):
        pass

    assert Silent().uses_reference

    class Unsaid(RolloutAlgorithm):
        experience_type = tuple
        experience = GroupPolicy.experience
        loss = GroupPolicy.loss

    with pytest.raises(UserError, match="Unsaid must define uses_value, uses_reference"):
        Unsaid()


@dataclass(frozen=True)
class Whole(GroupPolicy):
    """The loss is minus the log-probabilities of all tokens."""

    def loss(self, batch, new_logprobs, new_values):
        return UpdateLoss(-(new_logprobs * batch.rollout.response_mask).sum(), {})


def test_gradients_are_weighted_by_how_far_sampling_was(tiny_architecture, tiny_tokenizer):
    """Of one token each: twice as likely in training as in sampling, half, and five times."""
    policy = policy_of(tiny_architecture, tiny_tokenizer)
    parts = scored(3)
    ones = parts.rollout.response_mask.clone()
    ones[:, 1] = False
    start = parts.rollout._replace(response_mask=ones)
    said = response_logprobs(policy, flatten(start), 1.0).logprobs
    times = torch.tensor([[2.0, 1.0], [0.5, 1.0], [5.0, 1.0]])
    rollout = start._replace(logprobs=(said - times.log()).detach())
    gradients = {}
    for cap in (None, 3.0):
        algorithm = Whole(importance_cap=cap)
        buffer = RolloutBuffer(
            0,
            GroupExperience(rollout, said, torch.zeros(3), torch.zeros(3)),
            said.detach(),
            torch.ones(3),
            torch.arange(3),
        )
        networks = Networks(policy, None, None)
        found = []
        for row in range(3):
            policy.zero_grad()
            loss = episodes_loss(algorithm, networks, buffer, torch.tensor([row]), 1.0, False)
            loss.total.backward()
            found.append(policy.lm_head.weight.grad.clone())
            assert loss.worst < 1e-6
        gradients[cap] = found
    for row, weight in enumerate((2.0, 0.5, 3.0)):
        expected = weight * gradients[None][row]
        torch.testing.assert_close(gradients[3.0][row], expected, atol=1e-6, rtol=1e-4)
