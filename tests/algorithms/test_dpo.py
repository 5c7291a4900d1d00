"""DPO by hand, against each pair alone, and what must not change it."""

import math

import pytest
import torch

from instructgpt.algorithms.dpo import DPO
from instructgpt.algorithms.preference import Candidates, ResponseLogprobs
from instructgpt.types import UserError


def candidates(scores, ranking, mask=None):
    scores, ranking = torch.tensor(scores), torch.tensor(ranking)
    mask = torch.ones_like(ranking, dtype=torch.bool) if mask is None else torch.tensor(mask)
    return Candidates(scores, scores, torch.ones_like(ranking), ranking, mask)


def test_the_textbook_number():
    """Pair: ratios 2 and -1 nats, beta 0.1: -ln sigmoid(0.3) = ln(1 + e^-0.3) = 0.554355."""
    responses = ResponseLogprobs(
        torch.tensor([[-1.0, -2.0, 9.0], [-4.0, -1.0, -1.0]]),
        torch.tensor([[-2.0, -3.0, 7.0], [-3.0, -1.0, -1.0]]),
        torch.tensor([[True, True, False], [True, True, True]]),
    )
    algorithm = DPO()
    scores = algorithm.scores(responses)
    torch.testing.assert_close(scores, torch.tensor([0.2, -0.1]))
    found = candidates([scores.tolist()], [[1, 2]])
    total, count, parts = algorithm.loss(found)
    assert (float(total), int(count), parts) == (pytest.approx(0.554355, abs=1e-6), 1, {})
    # smoothed by 0.1: 0.9 * 0.554355 + 0.1 * ln(1 + e^0.3) = 0.498920 + 0.085436
    smooth, _, _ = DPO(label_smoothing=0.1).loss(found)
    assert float(smooth) == pytest.approx(0.584355, abs=1e-6)
    whole, count, _ = DPO(model="ranking").loss(found)  # of two, both are the same model
    assert (float(whole), int(count)) == (pytest.approx(0.554355, abs=1e-6), 1)


def naive_pairs(scores, ranking, smoothing):
    losses = [
        -(1 - smoothing) * math.log(1 / (1 + math.exp(b - a)))
        - smoothing * math.log(1 / (1 + math.exp(a - b)))
        for a, rank in zip(scores, ranking, strict=True)
        for b, other in zip(scores, ranking, strict=True)
        if rank < other
    ]
    return sum(losses) / len(losses) if losses else 0.0


def naive_ranking(scores, ranking):
    loss = 0.0
    for own, rank in zip(scores, ranking, strict=True):
        below = [s for s, other in zip(scores, ranking, strict=True) if other > rank]
        loss -= math.log(math.exp(own) / (math.exp(own) + sum(map(math.exp, below))))
    return loss


ROWS = [
    ([0.3, -1.2, 0.7, 2.0], [2, 1, 4, 3]),
    ([0.3, -1.2, 0.7, 9.0], [1, 1, 2, 0]),
    ([1.3, -0.2, 9.0, 9.0], [1, 2, 0, 0]),
    ([1.3, -0.2, 0.1, 9.0], [1, 1, 1, 0]),
]
MASK = [[rank > 0 for rank in ranking] for _, ranking in ROWS]


def real(row):
    scores, ranking = row
    return [s for s, r in zip(scores, ranking, strict=True) if r], [r for r in ranking if r]


@pytest.mark.parametrize(
    ("algorithm", "naive"),
    [
        (DPO(), lambda s, r: naive_pairs(s, r, 0.0)),
        (DPO(label_smoothing=0.2), lambda s, r: naive_pairs(s, r, 0.2)),
        (DPO(model="ranking"), naive_ranking),
    ],
)
def test_oracle_and_invariances(algorithm, naive):
    """K of 4, 3 with a tie, 2, and 3 all tied, which is no element."""
    scores, ranking = [list(part) for part in zip(*ROWS, strict=True)]
    total, count, _ = algorithm.loss(candidates(scores, ranking, MASK))
    assert int(count) == 3
    expected = sum(naive(*real(row)) for row in ROWS[:3])
    assert float(total) == pytest.approx(expected, rel=1e-5)
    # the order of the responses, a constant on all of a prompt, NaN under the mask
    back = candidates(*([row[::-1] for row in part] for part in (scores, ranking, MASK)))
    assert float(algorithm.loss(back)[0]) == pytest.approx(expected, rel=1e-5)
    moved = candidates([[s + 5 for s in row] for row in scores], ranking, MASK)
    assert float(algorithm.loss(moved)[0]) == pytest.approx(expected, rel=1e-4)
    values = torch.tensor(scores).masked_fill(~torch.tensor(MASK), torch.nan).requires_grad_()
    dirty, _, _ = algorithm.loss(candidates(scores, ranking, MASK)._replace(scores=values))
    dirty.backward()
    assert float(dirty.detach()) == pytest.approx(expected, rel=1e-5)
    assert values.grad.isfinite().all()
    assert values.grad[3].abs().max() == 0  # all tied


def test_what_both_policies_say_alike_cancels():
    mask = torch.ones(2, 3, dtype=torch.bool)
    policy, other, both = torch.randn(2, 3), torch.randn(2, 3), torch.randn(2, 3)
    plain = DPO().scores(ResponseLogprobs(policy, other, mask))
    torch.testing.assert_close(
        DPO().scores(ResponseLogprobs(policy + both, other + both, mask)), plain
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beta": 0.0}, "beta must be > 0"),
        ({"label_smoothing": 0.5}, r"label_smoothing must be in \[0, 0.5\)"),
        ({"model": "listwise"}, "model must be one of pairs, ranking"),
        ({"model": "ranking", "label_smoothing": 0.1}, "label_smoothing must be 0 with model rank"),
    ],
)
def test_fields_are_checked(options, message):
    with pytest.raises(UserError, match=message):
        DPO(**options)
