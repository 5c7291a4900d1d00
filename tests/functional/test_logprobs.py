"""Log-probabilities, entropy and KL estimators against worked numbers and loops."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from instructgpt.functional.logprobs import KLEstimator, entropy, kl_estimate, token_logprobs

INF = math.inf
KINDS: list[KLEstimator] = ["k1", "k2", "k3"]


def logits_and_tokens(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    logits = 3 * torch.randn(4, 5, 11, generator=generator, dtype=dtype)
    return logits, torch.randint(11, (4, 5), generator=generator)


def softmax(row: list[float]) -> list[float]:
    exponentials = [math.exp(value - max(row)) for value in row]
    return [value / sum(exponentials) for value in exponentials]


def test_token_logprobs_worked_example() -> None:
    # exp of the logits: 1, 2, 5 with sum 8, so the probabilities are 1/8, 2/8, 5/8.
    logits = torch.tensor([[0.0, math.log(2), math.log(5)]] * 2, dtype=torch.float64)
    result = token_logprobs(logits, torch.tensor([1, 2]))
    assert result.tolist() == pytest.approx([math.log(2 / 8), math.log(5 / 8)])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_token_logprobs_and_entropy_match_a_loop(dtype: torch.dtype) -> None:
    logits, tokens = logits_and_tokens(dtype)
    logprobs, entropies = token_logprobs(logits, tokens), entropy(logits)
    assert logprobs.dtype == entropies.dtype == dtype
    for n in range(4):
        for t in range(5):
            probabilities = softmax(logits[n, t].tolist())
            expected = math.log(probabilities[int(tokens[n, t])])
            assert logprobs[n, t].item() == pytest.approx(expected, abs=1e-5)
            expected = -sum(p * math.log(p) for p in probabilities)
            assert entropies[n, t].item() == pytest.approx(expected, abs=1e-5)


def test_entropy_worked_example() -> None:
    # Uniform over 4: log 4. Probabilities 1/2, 1/4, 1/4: log(2) / 2 + 2 * log(4) / 4 = 1.5 log 2.
    logits = torch.tensor([[0.0] * 4, [math.log(2), 0.0, 0.0, -INF]], dtype=torch.float64)
    assert entropy(logits).tolist() == pytest.approx([math.log(4), 1.5 * math.log(2)])


def test_logits_shift_does_not_matter() -> None:
    logits, tokens = logits_and_tokens()
    torch.testing.assert_close(token_logprobs(logits + 100, tokens), token_logprobs(logits, tokens))
    torch.testing.assert_close(entropy(logits + 100), entropy(logits))


def test_impossible_tokens_keep_values_and_gradients_finite() -> None:
    logits = torch.tensor([[0.0, 0.0, -INF], [0.0, -INF, -INF]], requires_grad=True)
    logprobs = token_logprobs(logits, torch.tensor([1, 0]))
    entropies = entropy(logits)
    assert logprobs.tolist() == pytest.approx([-math.log(2), 0])
    assert entropies.tolist() == pytest.approx([math.log(2), 0])
    (logprobs.sum() + entropies.sum()).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert token_logprobs(logits, torch.tensor([2, 2])).tolist() == [-INF, -INF]


def test_entropy_gradient() -> None:
    logits, _ = logits_and_tokens()
    assert torch.autograd.gradcheck(entropy, logits[0, :2].requires_grad_())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_give_float32(dtype: torch.dtype) -> None:
    logits, tokens = logits_and_tokens()
    half = logits.to(dtype)
    result = token_logprobs(half, tokens)
    assert result.dtype == entropy(half).dtype == torch.float32
    # Not merely cast at the end: equal to the softmax of the same numbers in float64.
    exact = token_logprobs(half.double(), tokens).float()
    torch.testing.assert_close(result, exact, atol=1e-6, rtol=1e-6)


def test_kl_estimators_worked_example() -> None:
    # d = -1 - (-1.5) = 0.5: k1 = 0.5, k2 = 0.25 / 2, k3 = exp(-0.5) - 1 + 0.5.
    # d = -2 - (-1) = -1: k1 = -1, k2 = 1 / 2, k3 = exp(1) - 1 - 1.
    logprobs = torch.tensor([-1.0, -2.0], dtype=torch.float64)
    reference = torch.tensor([-1.5, -1.0], dtype=torch.float64)
    expected = {
        "k1": [0.5, -1.0],
        "k2": [0.125, 0.5],
        "k3": [math.exp(-0.5) - 0.5, math.exp(1) - 2],
    }
    for kind in KINDS:
        assert kl_estimate(logprobs, reference, kind).tolist() == pytest.approx(expected[kind])
    assert kl_estimate(logprobs, reference).tolist() == pytest.approx(expected["k1"])


def test_k1_and_k3_are_unbiased() -> None:
    # The expectation over the policy's own tokens is the exact KL; k2's is not.
    policy = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    reference = torch.tensor([0.2, 0.2, 0.6], dtype=torch.float64)
    exact = sum(
        p * math.log(p / q) for p, q in zip(policy.tolist(), reference.tolist(), strict=True)
    )
    mean = {
        kind: (policy * kl_estimate(policy.log(), reference.log(), kind)).sum().item()
        for kind in KINDS
    }
    assert mean["k1"] == pytest.approx(exact)
    assert mean["k3"] == pytest.approx(exact)
    assert mean["k2"] != pytest.approx(exact, rel=0.01)


@pytest.mark.parametrize("difference", [1e-3, -1e-3, 1e-4, -1e-4])
def test_k3_keeps_its_digits_for_small_differences(difference: float) -> None:
    # d^2 / 2 = 5e-9 for d = 1e-4, far below the float32 spacing near 1 (1.2e-7) that exp(-d) - 1
    # would be rounded to.
    d = torch.tensor([difference], dtype=torch.float32)
    expected = difference**2 / 2 - difference**3 / 6
    assert kl_estimate(d, torch.zeros(1), "k3").item() == pytest.approx(expected, rel=2e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_equal_policies_are_at_distance_0_with_finite_gradient(kind: KLEstimator) -> None:
    logprobs = torch.tensor([-0.1, -20.0], requires_grad=True)
    estimate = kl_estimate(logprobs, logprobs.detach(), kind)
    assert estimate.tolist() == [0, 0]
    estimate.sum().backward()
    # d/dx of d is 1; of d^2 / 2 and exp(-d) - 1 + d it is 0 at d = 0.
    assert logprobs.grad is not None
    assert logprobs.grad.tolist() == [float(kind == "k1")] * 2


def test_unknown_estimator_is_named() -> None:
    with pytest.raises(ValueError, match="kind must be k1, k2 or k3, got 'k4'"):
        kl_estimate(torch.zeros(1), torch.zeros(1), "k4")  # type: ignore[arg-type]
