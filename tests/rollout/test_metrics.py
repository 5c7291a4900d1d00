"""How far the pass that samples is from the one that trains: worked by hand, and warned of."""

import math

import pytest
import torch

from instructgpt.rollout.metrics import rollout_metrics, sampler_finding
from instructgpt.types import Rollout, ScoredRollout


def scored(recorded, trained):
    """Rows with 2 and 1 response tokens."""
    mask = torch.tensor([[True, True], [True, False]])
    prompts, ends = torch.ones(2, 1, dtype=torch.bool), torch.ones(2, dtype=torch.bool)
    recorded, none = torch.tensor(recorded), torch.zeros(2, 2, 0)
    rollout = Rollout(torch.zeros(2, 3).long(), prompts, mask, ends, recorded, none)
    trained = torch.tensor(trained)
    return ScoredRollout(rollout, torch.zeros(2), trained, trained, None, -trained)


def test_sampler_kl_by_hand():
    """exp(-d) - 1 + d with d = 0.5 of one token of three; what follows a response is not read."""
    rollout = scored([[-1.0, -1.0], [-2.0, 7.0]], [[-1.5, -1.0], [-2.0, -9.0]])
    kl = rollout_metrics(rollout, 0.1, torch.zeros(2))["sampler_kl"]
    assert kl == pytest.approx((math.exp(-0.5) - 1 + 0.5) / 3, rel=1e-5)
    assert "3.6e-02 nats per token" in sampler_finding({"ppo/sampler_kl": kl}).what
    assert not sampler_finding({"ppo/sampler_kl": 1.6e-3})  # of bfloat16
