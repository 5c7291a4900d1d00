"""IPO by hand, against each pair alone, and what must not change it."""

import pytest
import torch

from instructgpt.algorithms.ipo import IPO
from instructgpt.algorithms.preference import Candidates, ResponseLogprobs
from instructgpt.types import UserError


def candidates(scores, ranking, mask):
    scores, ranking, mask = torch.tensor(scores), torch.tensor(ranking), torch.tensor(mask)
    return Candidates(scores, scores, torch.ones_like(ranking), ranking, mask)


def test_by_hand():
    """Log ratios 2 and -1 nats, tau 0.25: the margin of 3 misses 1 / (2 * 0.25) = 2 by 1."""
    responses = ResponseLogprobs(
        torch.tensor([[-1.0, -2.0, 9.0], [-4.0, -1.0, -1.0]]),
        torch.tensor([[-2.0, -3.0, 7.0], [-3.0, -1.0, -1.0]]),
        torch.tensor([[True, True, False], [True, True, True]]),
    )
    algorithm = IPO(tau=0.25)
    scores = algorithm.scores(responses)
    torch.testing.assert_close(scores, torch.tensor([0.5, -0.25]))  # sums, whatever the lengths
    total, count, parts = algorithm.loss(candidates([scores.tolist()], [[1, 2]], [[True, True]]))
    assert (float(total), int(count), parts) == (pytest.approx(1.0), 1, {})


ROWS = [
    ([0.3, -1.2, 0.7, 2.0], [2, 1, 4, 3], [True] * 4),
    ([0.3, -1.2, 0.7, torch.nan], [1, 1, 2, 0], [True, True, True, False]),
    ([1.3, -0.2, 0.1, torch.nan], [1, 1, 1, 0], [True, True, True, False]),
]


def test_oracle_and_invariances():
    """K of 4, 3 with a tie, and 3 all tied, which is no element; NaN under the mask."""
    tau, expected = 0.2, 0.0
    for scores, ranking, _ in ROWS:
        ratios = [score / tau for score in scores]
        losses = [
            (ratios[i] - ratios[j] - 1 / (2 * tau)) ** 2
            for i, rank in enumerate(ranking)
            for j, other in enumerate(ranking)
            if 0 < rank < other
        ]
        expected += sum(losses) / max(1, len(losses))
    whole = [list(part) for part in zip(*ROWS, strict=True)]
    values = torch.tensor(whole[0], requires_grad=True)
    total, count, _ = IPO(tau).loss(candidates(*whole)._replace(scores=values))
    assert (float(total.detach()), int(count)) == (pytest.approx(expected, rel=1e-5), 2)
    total.backward()
    assert values.grad.isfinite().all()
    back = candidates(*([row[::-1] for row in part] for part in whole))
    assert float(IPO(tau).loss(back)[0]) == pytest.approx(expected, rel=1e-5)
    moved = candidates([[score + 3 for score in row] for row in whole[0]], *whole[1:])
    assert float(IPO(tau).loss(moved)[0]) == pytest.approx(expected, rel=1e-4)


def test_the_margin_is_where_the_gradient_ends():
    """Unlike DPO, which would go on for ever."""
    scores = torch.tensor([[0.5, 0.0]], requires_grad=True)
    found = candidates([[0.0, 0.0]], [[1, 2]], [[True, True]])
    IPO().loss(found._replace(scores=scores))[0].backward()
    assert torch.equal(scores.grad, torch.zeros(1, 2))


@pytest.mark.parametrize("tau", [0.0, -1.0, float("inf"), float("nan")])
def test_tau_is_checked(tau):
    with pytest.raises(UserError, match="tau must be > 0"):
        IPO(tau)
