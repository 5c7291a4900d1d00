"""Rollouts beyond a limit are named with the remedy, and so is a judge who disagrees."""

from itertools import pairwise

import pytest
import torch
from small_ppo import make

from instructgpt.algorithms.kl import FixedKL
from instructgpt.algorithms.ppo import PPO
from instructgpt.callbacks.doctor import Doctor
from instructgpt.callbacks.limits import LIMITS, PATIENCE, LimitWatch
from instructgpt.rewards.base import RewardFunction
from instructgpt.rollout.updates import Batches


class Length(RewardFunction):
    """So many points a token."""

    def __init__(self, points):
        self.points = points

    def raw_scores(self, samples):
        return [self.points * len(sample.response_tokens) for sample in samples]


class Repeats(RewardFunction):
    """A point for each token that is the one before it."""

    def raw_scores(self, samples):
        return [
            float(sum(a == b for a, b in pairwise(sample.response_tokens))) for sample in samples
        ]


CLIPPED = PPO(missing_eos_score=None, clip_range=1e-3, epochs=4)
PROVOKED = {
    "shorter": (Length(-1.0), 0.03, 14, {}, {"length"}),
    "longer": (Length(1.0), 0.03, 14, {}, {"kl", "eos_rate", "explained_variance"}),
    "repeated": (Repeats(), 0.2, 6, {}, {"repetition", "entropy"}),
    "clipped": (Length(-1.0), 0.03, 4, {"algorithm": CLIPPED}, {"clip_fraction"}),
}


def learner(source, reward, rate, **options):
    adam = {"optimizer": lambda parameters: torch.optim.Adam(parameters, rate)}
    return make(source, reward, kl=FixedKL(0.0), batches=Batches(16, 8), **adam, **options)


@pytest.mark.parametrize("kind", PROVOKED)
def test_a_rollout_beyond_a_limit_is_named(fit, prompt_data, policy_artefact, kind):
    reward, rate, phases, options, names = PROVOKED[kind]
    doctor, module = Doctor(), learner(policy_artefact, reward, rate, **options)
    fit(module, prompt_data(), callbacks=[doctor], max_epochs=phases)
    found = [one["name"] for one in doctor.found]
    assert names <= set(found)
    assert len(set(found)) == len(found)  # each once


def test_every_limit_is_provoked():
    assert set().union(*(case[-1] for case in PROVOKED.values())) == {one.name for one in LIMITS}


def test_a_limit_is_said_after_some_phases_in_a_row():
    """Two of three are no row."""
    watch = LimitWatch()
    rates = [0.4, 0.4, 0.9, 0.4, 0.4, 0.4, 0.4]
    said = [[one.name for one in watch.see({"ppo/eos_rate": rate})] for rate in rates]
    assert said == [[], [], [], [], [], ["eos_rate"], []]
    assert PATIENCE == 3


@pytest.mark.parametrize(("points", "names"), [(1.0, ["over_optimisation"]), (-1.0, [])])
def test_a_judge_who_falls_while_the_reward_rises_is_said(
    fit, prompt_data, policy_artefact, points, names
):
    """The judge counts tokens for or against; nothing is learned from him."""
    doctor = Doctor()
    module = learner(policy_artefact, Length(-1.0), 0.03, judge=Length(points))
    options = {"limit_val_batches": 1.0, "check_val_every_n_epoch": 6}
    fit(module, prompt_data(validation=0.5), callbacks=[doctor], max_epochs=12, **options)
    found = [one for one in doctor.found if one["name"] == "over_optimisation"]
    assert [one["name"] for one in found] == names
    assert all("raise --model.kl.kl_coef" in one["remedy"] for one in found)
