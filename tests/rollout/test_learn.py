"""What the loop makes of an algorithm's answers, and which it refuses."""

from dataclasses import dataclass, replace

import pytest
import torch
from toy_rollout import GroupPolicy

from instructgpt.algorithms.base import RolloutAlgorithm
from instructgpt.rollout.learn import learn_from, trained_rows
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
