"""Learning-rate factors at the steps that matter."""

from __future__ import annotations

import math

import pytest

from instructgpt.algorithms.schedule import Constant, Cosine, Schedule
from instructgpt.types import UserError


def test_defaults_are_the_papers() -> None:
    assert Cosine() == Cosine(floor=0.1, warmup=0)
    assert Constant() == Constant(warmup=0, start=0.1)


def test_cosine_worked_example() -> None:
    # 0.1 + 0.9 * (1 + cos(pi * step / 6)) / 2; cos(pi / 3) = 1 / 2 at step 2, 0 at 3, -1 / 2 at 4.
    factors = [Cosine().factor(step, total=6) for step in (0, 2, 3, 4, 6, 7)]
    assert factors == pytest.approx([1.0, 0.775, 0.55, 0.325, 0.1, 0.1])


def test_cosine_with_warmup() -> None:
    # Three steps of warmup: 1/4, 2/4, 3/4; the peak at step 3; then 4 steps down to 0.
    schedule = Cosine(floor=0.0, warmup=3)
    factors = [schedule.factor(step, total=7) for step in range(8)]
    eighth = (1 + math.cos(math.pi / 4)) / 2
    expected = [0.25, 0.5, 0.75, 1.0, eighth, 0.5, 1 - eighth, 0.0]
    assert factors == pytest.approx(expected)


@pytest.mark.parametrize("total", [0, 1, 3, 5])
def test_runs_shorter_than_the_warmup_are_no_problem(total: int) -> None:
    factors = [Cosine(warmup=5).factor(step, total) for step in range(8)]
    assert all(0 < factor <= 1 for factor in factors)
    assert factors[5] == 1.0


def test_constant_is_constant_without_warmup() -> None:
    assert [Constant().factor(step, total=3) for step in range(3)] == [1.0, 1.0, 1.0]


def test_constant_with_the_papers_warmup() -> None:
    # 0.1 + 0.9 * step / 10 for ten rollouts, then 1.
    factors = [Constant(warmup=10).factor(step, total=500) for step in (0, 1, 5, 9, 10, 499)]
    assert factors == pytest.approx([0.1, 0.19, 0.55, 0.91, 1.0, 1.0])


@pytest.mark.parametrize(
    ("schedule", "arguments", "message"),
    [
        (Cosine, {"floor": 1.5}, "floor must be in [0, 1], got 1.5"),
        (Cosine, {"floor": math.nan}, "floor must be in [0, 1], got nan"),
        (Cosine, {"warmup": -1}, "warmup must be >= 0, got -1"),
        (Constant, {"warmup": -1}, "warmup must be >= 0, got -1"),
        (Constant, {"start": -0.5}, "start must be in [0, 1], got -0.5"),
    ],
)
def test_wrong_values_are_refused(
    schedule: type[Schedule], arguments: dict[str, float], message: str
) -> None:
    with pytest.raises(UserError) as error:
        schedule(**arguments)
    assert str(error.value) == message
