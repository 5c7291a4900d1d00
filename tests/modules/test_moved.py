"""A run that moved nothing says so, by what its stage logs; one that moved does not."""

# ruff: noqa: E501  one case a line reads best

import pytest
from toy_stage import fit

from instructgpt.functional.intervals import Interval
from instructgpt.models.trained import FrozenTrunk, LoRA
from instructgpt.modules.moved import Run, rate_option, standing_still
from instructgpt.modules.reward import RewardModule

FALLING = [2.0, 2.1, 1.9, 2.0, 1.5, 1.4, 1.0, 1.1, 0.9, 1.0, 1.1, 0.9]
FLAT = [2.0, 2.1, 1.9, 2.0, 2.1, 1.9, 2.0, 2.0, 2.1, 1.9, 2.1, 1.9]


def said(stage, losses=FLAT, metrics=(), intervals=(), episodes=0, beta=None, rate=1e-5, **more):
    run = Run(stage, losses, dict(metrics), dict(intervals), episodes, beta, rate, **more)
    return standing_still(run)


@pytest.mark.parametrize(
    ("still", "moved", "finding"),
    [
        (
            {"stage": "sft"},
            {"stage": "sft", "losses": FALLING},
            "the loss of the last quarter of the steps is",
        ),
        (
            {"stage": "sft", "losses": FALLING, "intervals": {"val/loss_fall": Interval(0.0, 0.2, 9)}},
            {"stage": "sft", "intervals": {"val/loss_fall": Interval(0.01, 0.2, 9)}},
            "the adapter lowers the validation loss by 0.1 [0, 0.2] (val/loss_fall)",
        ),
        (
            {"metrics": {"val/accuracy": 0.6}, "intervals": {"val/accuracy": Interval(0.5, 0.7, 9)}},
            {"metrics": {"val/accuracy": 0.6}, "intervals": {"val/accuracy": Interval(0.51, 0.7, 9)}},
            "the accuracy, 0.600 [0.500, 0.700] over 9 prompts, is not above chance",
        ),
        (  # 100 pairs show 4 / 10 nats
            {"stage": "preference", "metrics": {"val/margin": 0.039, "val/pairs": 100}, "beta": 0.1},
            {"stage": "preference", "metrics": {"val/margin": 0.041, "val/pairs": 100}, "beta": 0.1},
            "chosen responses are 0.39 nats likelier against rejected ones than before",
        ),
        (  # 32 answers show 2 / 32 nats
            {"stage": "ppo", "metrics": {"ppo/kl_k3": 0.062}, "episodes": 32},
            {"stage": "ppo", "metrics": {"ppo/kl_k3": 0.063}, "episodes": 32},
            "the policy is 0.062 nats (ppo/kl_k3) from where it started, less than the 0.062",
        ),
    ],
    ids=["sft", "adapter", "reward", "preference", "ppo"],
)  # fmt: skip
def test_what_is_within_noise_is_said_with_the_remedy(still, moved, finding):
    line = str(said(**{"stage": "reward", **still}))
    assert finding in line
    assert "raise --model.optimizer.lr (now 1e-05, where LoRA moves a short run at" in line
    assert said(**{"stage": "reward", **moved}) is None


def test_a_head_on_frozen_states_is_told_of_its_own_rate():
    """Its loss is convex: another rate ends at the same place."""
    chance = {
        "metrics": {"val/accuracy": 0.6},
        "intervals": {"val/accuracy": Interval(0.5, 0.7, 9)},
    }
    line = str(
        said("reward", **chance, option=rate_option(RewardModule("x", trained=FrozenTrunk())))
    )
    assert (
        "other --model.trained.layers and tokens; a higher --model.trained.lr (now 1e-05)" in line
    )
    assert "--model.optimizer.lr" not in line
    assert rate_option(RewardModule("x", trained=LoRA())) == "--model.optimizer.lr"


def test_what_is_not_known_is_not_said():
    assert said("sft", FLAT[:7]) is None
    assert said("sft", rate=0.0) is None
    assert said("reward") is said("preference", beta=0.1) is said("ppo", episodes=8) is None
    assert said("preference", metrics={"val/margin": 0.0, "val/pairs": 9}) is None


def test_a_fit_says_it(tmp_path):
    with pytest.warns(
        UserWarning, match="nothing moved beyond noise: the loss of the last quarter"
    ):
        fit(tmp_path / "still", "--model.optimizer.lr=1e-9", "--trainer.max_epochs=4")


def test_a_fit_that_learns_does_not(tmp_path, recwarn):
    fit(tmp_path / "moved", "--trainer.max_epochs=20")
    assert not [one for one in recwarn if "nothing moved" in str(one.message)]
