"""The reward model's ranking loss as a strategy object."""

from __future__ import annotations

import math

import pytest
import torch

from instructgpt.algorithms.kwise import KWise
from instructgpt.types import UserError

# Equal scores: every pair costs log 2. Ranks 1, 2, 2 leave 2 decided pairs of 3.
SCORES, RANKING = torch.zeros(1, 3), torch.tensor([[1, 2, 2]])
MASK = torch.ones(1, 3, dtype=torch.bool)


@pytest.mark.parametrize(
    ("algorithm", "expected"),
    [
        (KWise(), math.log(2)),
        (KWise(divisor="decided"), math.log(2)),
        (KWise(divisor="all"), math.log(2) * 2 / 3),
    ],
)
def test_divisor(algorithm: KWise, expected: float) -> None:
    loss, count = algorithm.loss(SCORES, RANKING, MASK)
    assert loss.item() == pytest.approx(expected)
    assert count.item() == 1


def test_wrong_divisor_is_refused() -> None:
    with pytest.raises(UserError) as error:
        KWise(divisor="some")  # type: ignore[arg-type]
    assert str(error.value) == "divisor must be one of decided, all, got some"
