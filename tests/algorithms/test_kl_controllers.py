"""Fixed and adaptive weights of the KL penalty."""

from __future__ import annotations

import math

import pytest

from instructgpt.algorithms.kl import AdaptiveKL, FixedKL, KLController
from instructgpt.types import UserError


def test_defaults_are_the_papers() -> None:
    assert FixedKL() == FixedKL(kl_coef=0.02)
    assert AdaptiveKL() == AdaptiveKL(initial_kl_coef=0.2, target=6.0, horizon=10_000)


def test_fixed_stays() -> None:
    assert FixedKL().update(0.02, kl=100.0, episodes=512) == 0.02


@pytest.mark.parametrize(
    ("kl", "expected"),
    [
        (6.0, 0.2),  # on target
        (6.6, 0.2 * (1 + 0.1 * 512 / 10_000)),  # 6.6 / 6 - 1 = 0.1
        (5.4, 0.2 * (1 - 0.1 * 512 / 10_000)),  # 5.4 / 6 - 1 = -0.1
        (60.0, 0.2 * (1 + 0.2 * 512 / 10_000)),  # 9, clipped to 0.2
        (math.inf, 0.2 * (1 + 0.2 * 512 / 10_000)),
        (0.0, 0.2 * (1 - 0.2 * 512 / 10_000)),  # -1, clipped to -0.2
        (-1.0, 0.2 * (1 - 0.2 * 512 / 10_000)),  # k1 can be negative
    ],
)
def test_adaptive_worked_examples(kl: float, expected: float) -> None:
    controller = AdaptiveKL()
    assert controller.update(0.2, kl, episodes=512) == pytest.approx(expected, rel=1e-12)
    # Nothing is remembered: the same question, the same answer.
    assert controller.update(0.2, kl, episodes=512) == pytest.approx(expected, rel=1e-12)


def test_adaptive_settles_where_the_kl_meets_the_target() -> None:
    # A policy whose KL falls with the weight, kl = 1.5 / coef, must end at coef = 1.5 / 6.
    controller, coef = AdaptiveKL(), 0.05
    for _ in range(1000):
        coef = controller.update(coef, kl=1.5 / coef, episodes=512)
    assert coef == pytest.approx(0.25, rel=1e-3)


def test_a_horizon_too_short_for_the_rollout_is_refused_whatever_the_kl() -> None:
    # e = -0.2 and 5 * horizon episodes would multiply the weight by 1 - 0.2 * 5 = 0.
    rule = r"horizon must be > 102.4, a fifth of the episodes of a rollout, got 102"
    with pytest.raises(UserError, match=rule):
        AdaptiveKL(horizon=102).update(0.2, kl=6.0, episodes=512)
    assert AdaptiveKL(horizon=103).update(0.2, kl=0.0, episodes=512) > 0


def test_a_broken_kl_shows() -> None:
    assert math.isnan(AdaptiveKL().update(0.2, math.nan, episodes=512))


@pytest.mark.parametrize(
    ("controller", "arguments", "message"),
    [
        (FixedKL, {"kl_coef": -0.1}, "kl_coef must be >= 0, got -0.1"),
        (FixedKL, {"kl_coef": math.nan}, "kl_coef must be >= 0, got nan"),
        (
            AdaptiveKL,
            {"initial_kl_coef": 0.0},
            "initial_kl_coef must be > 0 to be adapted, got 0.0",
        ),
        (AdaptiveKL, {"target": 0.0}, "target must be > 0, got 0.0"),
        (AdaptiveKL, {"horizon": 0}, "horizon must be >= 1, got 0"),
    ],
)
def test_wrong_values_are_refused(
    controller: type[KLController], arguments: dict[str, float], message: str
) -> None:
    with pytest.raises(UserError) as error:
        controller(**arguments)
    assert str(error.value) == message
