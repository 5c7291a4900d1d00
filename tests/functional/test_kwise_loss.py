"""The K-wise loss against the sum over its pairs, computed one by one."""

from __future__ import annotations

import math
from itertools import combinations

import pytest
import torch
from torch import Tensor

from instructgpt.functional.losses import PairDivisor, decided_pairs, kwise_loss

SIZES = [4, 9, 2, 3, 0, 5]  # responses of each prompt
DIVISORS: list[PairDivisor] = ["decided", "all"]


def batch(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(4)
    mask = torch.arange(9) < torch.tensor(SIZES).unsqueeze(-1)
    ranking = torch.randint(1, 5, (6, 9), generator=generator)  # 9 responses on 4 ranks: ties
    ranking[2, :2] = torch.tensor([3, 1])
    ranking[3] = 2  # all tied
    scores = 2 * torch.randn(6, 9, generator=generator, dtype=dtype)
    return scores, torch.where(mask, ranking, 0), mask


def naive(
    scores: list[list[float]], ranking: list[list[int]], mask: list[list[bool]], divisor: str
) -> tuple[float, int]:
    total, prompts = 0.0, 0
    for row, ranks, real in zip(scores, ranking, mask, strict=True):
        losses, pairs = [], 0
        for i, j in combinations(range(len(row)), 2):
            if not (real[i] and real[j]):
                continue
            pairs += 1
            if ranks[i] == ranks[j]:
                continue
            winner, loser = (i, j) if ranks[i] < ranks[j] else (j, i)
            losses.append(math.log1p(math.exp(row[loser] - row[winner])))
        if losses:
            total += sum(losses) / (len(losses) if divisor == "decided" else pairs)
            prompts += 1
    return total, prompts


def test_worked_example() -> None:
    # Scores 3, 1, 2 ranked 1, 2, 2: the tie is dropped, the margins are 3 - 1 = 2 and 3 - 2 = 1.
    # -log sigmoid: log(1 + exp(-2)) = 0.126928 and log(1 + exp(-1)) = 0.313262; sum 0.440190.
    # Mean over the 2 decided pairs: 0.220095. Over all C(3, 2) = 3 pairs: 0.146730.
    scores = torch.tensor([[3.0, 1.0, 2.0]], dtype=torch.float64)
    ranking, mask = torch.tensor([[1, 2, 2]]), torch.ones(1, 3, dtype=torch.bool)
    loss, count = kwise_loss(scores, ranking, mask)
    assert loss.item() == pytest.approx(0.220095, abs=1e-6)
    assert count.item() == 1
    loss, count = kwise_loss(scores, ranking, mask, divisor="all")
    assert loss.item() == pytest.approx(0.146730, abs=1e-6)
    assert count.item() == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("divisor", DIVISORS)
def test_matches_a_loop_with_varying_sizes_and_ties(
    divisor: PairDivisor, dtype: torch.dtype
) -> None:
    scores, ranking, mask = batch(dtype)
    loss, count = kwise_loss(scores, ranking, mask, divisor)
    expected, prompts = naive(scores.tolist(), ranking.tolist(), mask.tolist(), divisor)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert loss.dtype == dtype
    assert count.item() == prompts == 4  # neither the all-tied prompt nor the empty one


def test_batch_equals_the_sum_over_its_pairs_with_gradients() -> None:
    scores, ranking, mask = batch()
    together = scores.clone().requires_grad_()
    kwise_loss(together, ranking, mask)[0].backward()
    one_by_one = scores.clone().requires_grad_()
    for b, size in enumerate(SIZES):
        decided = [
            pair
            for pair in combinations(range(size), 2)
            if ranking[b][pair[0]] != ranking[b][pair[1]]
        ]
        for pair in decided:
            columns = list(pair)
            loss, count = kwise_loss(
                one_by_one[b : b + 1, columns],
                ranking[b : b + 1, columns],
                torch.ones(1, 2, dtype=torch.bool),
            )
            assert count.item() == 1
            (loss / len(decided)).backward()
    torch.testing.assert_close(together.grad, one_by_one.grad)


def test_pair_loss_is_log_sigmoid_and_symmetric() -> None:
    ranking, mask = torch.tensor([[1, 2], [2, 1]]), torch.ones(2, 2, dtype=torch.bool)
    scores = torch.tensor([[1.5, 0.5], [0.5, 1.5]], dtype=torch.float64)
    loss, count = kwise_loss(scores, ranking, mask)
    assert loss.item() == pytest.approx(2 * math.log1p(math.exp(-1)))
    assert count.item() == 2


@pytest.mark.parametrize("divisor", DIVISORS)
def test_prompts_add_up_over_micro_batches(divisor: PairDivisor) -> None:
    scores, ranking, mask = batch()
    loss, count = kwise_loss(scores, ranking, mask, divisor)
    for size in (1, 2, 3):
        parts = [
            kwise_loss(*rows, divisor)
            for rows in zip(*(x.split(size) for x in (scores, ranking, mask)), strict=True)
        ]
        torch.testing.assert_close(torch.stack([part for part, _ in parts]).sum(), loss)
        assert sum(int(part) for _, part in parts) == count


@pytest.mark.parametrize("divisor", DIVISORS)
def test_padding_order_and_shift_of_the_scores_do_not_matter(divisor: PairDivisor) -> None:
    scores, ranking, mask = batch()
    expected = kwise_loss(scores, ranking, mask, divisor)
    wider = [torch.cat([x, x[:, :2]], 1) for x in (scores, ranking)]
    wider_mask = torch.cat([mask, torch.zeros(6, 2, dtype=torch.bool)], 1)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    shift = torch.arange(6, dtype=torch.float64).unsqueeze(-1)
    for other in (
        kwise_loss(*wider, wider_mask, divisor),
        kwise_loss(scores[:, order], ranking[:, order], mask[:, order], divisor),
        kwise_loss(scores + shift, ranking, mask, divisor),
    ):
        torch.testing.assert_close(other, expected)


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("divisor", DIVISORS)
def test_poison_under_the_mask_reaches_neither_values_nor_gradients(
    divisor: PairDivisor, poison: float
) -> None:
    clean, ranking, mask = batch()
    scores = torch.where(mask, clean, poison).requires_grad_()
    loss, count = kwise_loss(scores, ranking, mask, divisor)
    torch.testing.assert_close((loss, count), kwise_loss(clean, ranking, mask, divisor))
    loss.backward()
    assert scores.grad is not None
    assert scores.grad.isfinite().all()
    assert scores.grad[~mask].eq(0).all()
    assert scores.grad[3].eq(0).all()  # all tied


@pytest.mark.parametrize("divisor", DIVISORS)
def test_a_batch_without_a_decided_pair_is_0_of_0(divisor: PairDivisor) -> None:
    scores = torch.randn(3, 4, requires_grad=True)
    mask = torch.ones(3, 4, dtype=torch.bool)
    mask[1] = False
    mask[2, 1:] = False  # one response: no pair at all
    loss, count = kwise_loss(scores, torch.ones(3, 4, dtype=torch.long), mask, divisor)
    assert (loss.item(), count.item()) == (0, 0)
    loss.backward()
    assert scores.grad is not None
    assert scores.grad.eq(0).all()


def test_huge_margins_stay_finite() -> None:
    scores = torch.tensor([[500.0, -500.0], [-500.0, 500.0]], requires_grad=True)
    ranking, mask = torch.tensor([[1, 2], [1, 2]]), torch.ones(2, 2, dtype=torch.bool)
    loss, _ = kwise_loss(scores, ranking, mask)
    assert loss.item() == 1000  # 0 for the margin of 1000, 1000 for that of -1000
    loss.backward()
    assert scores.grad is not None
    assert scores.grad.tolist() == [[0, 0], [-1, 1]]


def test_half_precision_is_widened() -> None:
    scores, ranking, mask = batch()
    half = scores.bfloat16()
    loss, _ = kwise_loss(half, ranking, mask)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(kwise_loss(half.double(), ranking, mask)[0].item())


def test_decided_pairs_are_one_sided() -> None:
    _, ranking, mask = batch()
    pairs = decided_pairs(ranking, mask)
    assert not (pairs & pairs.transpose(-1, -2)).any()
    for b in range(6):
        for i in range(9):
            for j in range(9):
                better = bool(mask[b, i] and mask[b, j] and ranking[b, i] < ranking[b, j])
                assert bool(pairs[b, i, j]) == better


def test_unknown_divisor_is_named() -> None:
    scores, ranking, mask = batch()
    with pytest.raises(ValueError, match="divisor must be decided or all, got 'some'"):
        kwise_loss(scores, ranking, mask, "some")  # type: ignore[arg-type]
