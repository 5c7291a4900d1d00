"""What ``examples/`` adds from outside the package; its commands are run by ``test_readme.py``."""

from pathlib import Path

import pytest
import torch

from instructgpt import Rollout, ScoredRollout

ROOT = Path(__file__).parents[1]


def test_reinforce_by_hand(monkeypatch):
    """Scores 2 and 0, one nat of KL a token, coefficient 0.5, lengths 2 and 1; one row abstained.

    Rewards are 2 - 1 = 1 and 0 - 0.5 = -0.5, their mean 0.25 and so the advantages 0.75 and -0.75.
    With log-probabilities of -1: -(0.75 * -2) - (-0.75 * -1) = 1.5 - 0.75.
    """
    monkeypatch.syspath_prepend(ROOT)
    from examples.own import Reinforce

    mask = torch.tensor([[True, True], [True, False], [False, False]])
    rollout = Rollout(
        torch.zeros(3, 3, dtype=torch.int64), torch.ones(3, 1, dtype=torch.bool), mask,
        torch.ones(3, dtype=torch.bool), torch.zeros(3, 2), torch.zeros(3, 2, 0),
    )  # fmt: skip
    ones = torch.ones(3, 2)
    scored = ScoredRollout(rollout, torch.tensor([2.0, 0.0, 0.0]), -ones, -2 * ones, None, ones)
    experience = Reinforce().experience(scored, 0.5)
    assert experience.advantages[:2].tolist() == [0.75, -0.75]
    assert Reinforce().row_weights(experience).tolist() == [1, 1, 0]
    assert Reinforce().loss(experience, -ones, None).total.item() == pytest.approx(0.75)
    padded = torch.where(mask, -ones, torch.nan)  # what is not sampled does not count
    assert Reinforce().loss(experience, padded, None).total.item() == pytest.approx(0.75)
