"""PPO from scored rollout to experience to loss, by hand and by loop."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError, replace

import pytest
import torch
from torch import Tensor

from instructgpt.algorithms.ppo import PPO, PPOExperience
from instructgpt.types import Rollout, ScoredRollout, UserError

LENGTHS = [5, 2, 0, 4, 5]
FINISHED = [True, True, True, True, False]  # the last was cut by the limit; row 2 is a blank row
PLAIN = PPO(whiten_advantages=False)


def scored_rollout(dtype: torch.dtype = torch.float64) -> ScoredRollout:
    generator = torch.Generator().manual_seed(7)
    mask = torch.arange(5) < torch.tensor(LENGTHS).unsqueeze(-1)
    rollout = Rollout(
        tokens=torch.randint(9, (5, 8), generator=generator),
        prompt_mask=torch.ones(5, 3, dtype=torch.bool),
        response_mask=mask,
        finished=torch.tensor(FINISHED),
        logprobs=torch.zeros(5, 5),
        support=torch.zeros(5, 5, 0),
    )
    logprobs, reference = -torch.rand(2, 5, 5, generator=generator).to(dtype)
    values = torch.randn(5, 6, generator=generator).to(dtype)
    scores = torch.tensor([1.0, -2.0, 3.0, 0.5, 4.0], dtype=dtype)
    return ScoredRollout(rollout, scores, logprobs, reference, values, torch.rand(5, 5))


def naive_experience(scored: ScoredRollout, kl_coef: float, algorithm: PPO) -> PPOExperience:
    """Unwhitened, row by row, token by token."""
    advantages, returns = torch.zeros(2, 5, 5, dtype=torch.float64)
    for n, length in enumerate(LENGTHS):
        score, after, running = scored.scores[n].item(), 0.0, 0.0
        if not FINISHED[n] and algorithm.missing_eos_score is not None:
            score = algorithm.missing_eos_score
        if not FINISHED[n] and algorithm.bootstrap_truncated:
            after = scored.values[n, length].item()
        for t in reversed(range(length)):
            reward = -kl_coef * (scored.logprobs[n, t] - scored.reference_logprobs[n, t]).item()
            reward += score if t == length - 1 else 0
            value = scored.values[n, t].item()
            running = (
                reward + algorithm.gamma * after - value + algorithm.gamma * algorithm.lam * running
            )
            advantages[n, t], returns[n, t], after = running, running + value, value
    return PPOExperience(
        scored.rollout, scored.logprobs, scored.values[:, :-1], advantages, returns
    )


def rows_of(experience: PPOExperience, rows: slice) -> PPOExperience:
    rollout = Rollout(*(x[rows] for x in experience.rollout))
    return PPOExperience(rollout, *(x[rows] for x in experience[1:]))


def test_defaults_are_the_papers_or_its_ancestors() -> None:
    stated = PPO(epochs=1, clip_range=0.2, gamma=1.0, kl_estimator="k1")
    chosen = PPO(
        value_clip_range=0.2,
        lam=0.95,
        value_coef=0.1,
        whiten_advantages=True,
        whiten_rewards=False,
        missing_eos_score=-1.0,
        bootstrap_truncated=False,
        target_kl=None,
    )
    assert PPO() == stated == chosen
    assert PPO.uses_value
    assert PPO().responses_per_prompt == 1
    with pytest.raises(FrozenInstanceError):
        PPO().gamma = 0.5  # type: ignore[misc]


def test_missing_eos_replaces_the_score() -> None:
    scores, finished = torch.tensor([3.0, 4.0]), torch.tensor([True, False])
    assert PPO().episode_scores(scores, finished).tolist() == [3, -1]
    assert PPO(missing_eos_score=None).episode_scores(scores, finished).tolist() == [3, 4]
    once = PPO(missing_eos_score=-2.5).episode_scores(scores, finished)
    assert once.tolist() == [3, -2.5]
    assert PPO(missing_eos_score=-2.5).episode_scores(once, finished).tolist() == [3, -2.5]


def test_experience_worked_example() -> None:
    # One response of two tokens, no whitening, gamma = 1, lam = 0.5, kl_coef = 0.1.
    # Rewards: -0.1 * (-1 - -2) = -0.1, then 3 - 0.1 * (-1 - -1) = 3. Values 1, 2 (and 9 unused).
    # delta_1 = 3 - 2 = 1, delta_0 = -0.1 + 2 - 1 = 0.9: A = 0.9 + 0.5 * 1 = 1.4, 1; returns 2.4, 3.
    scored = ScoredRollout(
        Rollout(
            *(torch.ones(1, n, dtype=torch.bool) for n in (3, 1, 2)),
            torch.tensor([True]),
            torch.zeros(1, 2),
            torch.zeros(1, 2, 0),
        ),
        scores=torch.tensor([3.0]),
        logprobs=torch.tensor([[-1.0, -1.0]]),
        reference_logprobs=torch.tensor([[-2.0, -1.0]]),
        values=torch.tensor([[1.0, 2.0, 9.0]]),
        entropy=torch.zeros(1, 2),
    )
    experience = PPO(lam=0.5, whiten_advantages=False).experience(scored, kl_coef=0.1)
    torch.testing.assert_close(experience.advantages, torch.tensor([[1.4, 1.0]]))
    torch.testing.assert_close(experience.returns, torch.tensor([[2.4, 3.0]]))
    torch.testing.assert_close(experience.values, torch.tensor([[1.0, 2.0]]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "algorithm",
    [
        PLAIN,
        replace(PLAIN, gamma=0.9, lam=0.5),
        replace(PLAIN, missing_eos_score=None),
        replace(PLAIN, gamma=0.9, missing_eos_score=None, bootstrap_truncated=True),
    ],
)
def test_experience_matches_a_loop(algorithm: PPO, dtype: torch.dtype) -> None:
    expected = naive_experience(scored_rollout(), 0.3, algorithm)
    experience = algorithm.experience(scored_rollout(dtype), 0.3)
    for result, naive in zip(experience[1:], expected[1:], strict=True):
        torch.testing.assert_close(result, naive.to(dtype), atol=1e-5, rtol=1e-5)


def test_experience_uses_the_kl_estimator() -> None:
    # With lam = gamma = 1 the first return is the score minus kl_coef * the KL of the whole row.
    scored = scored_rollout()
    returns = replace(PLAIN, lam=1.0, kl_estimator="k2").experience(scored, 0.3).returns
    differences = (scored.logprobs - scored.reference_logprobs)[0]  # five tokens, all real
    expected = scored.scores[0] - 0.3 * differences.square().sum() / 2
    assert returns[0, 0].item() == pytest.approx(expected.item())


def test_bootstrap_reads_the_value_after_the_last_token_of_cut_rows_only() -> None:
    algorithm = replace(PLAIN, missing_eos_score=None, bootstrap_truncated=True)
    scored = scored_rollout()
    expected = algorithm.experience(scored, 0.1)
    values = scored.values.clone()
    for n, length in enumerate(LENGTHS):  # spoil the value after each finished row
        if FINISHED[n]:
            values[n, length:] = math.nan
    result = algorithm.experience(scored._replace(values=values), 0.1)
    torch.testing.assert_close(result.advantages, expected.advantages)
    values[4, 5] += 1  # lam < 1 and gamma = 1: one more after the end is one more at the last token
    shifted = algorithm.experience(scored._replace(values=values), 0.1)
    assert (shifted.advantages - expected.advantages)[4, 4].item() == pytest.approx(1)


def test_advantages_are_whitened_over_the_real_tokens_of_all_rows() -> None:
    scored = scored_rollout()
    plain, white = PLAIN.experience(scored, 0.1), PPO().experience(scored, 0.1)
    mask = scored.rollout.response_mask
    kept = plain.advantages[mask]
    expected = (kept - kept.mean()) / kept.var(correction=0).sqrt()
    torch.testing.assert_close(white.advantages[mask], expected, atol=1e-6, rtol=1e-6)
    assert white.advantages[~mask].eq(0).all()
    torch.testing.assert_close(white.returns, plain.returns)  # the values' target is not whitened


def test_whitened_rewards_keep_their_mean() -> None:
    # With lam = 1, gamma = 1 the first return of a row is the sum of its rewards.
    scored = scored_rollout()
    mask = scored.rollout.response_mask
    plain = replace(PLAIN, lam=1.0).experience(scored, 0.1).returns
    white = replace(PLAIN, lam=1.0, whiten_rewards=True).experience(scored, 0.1).returns
    rewards = plain - torch.cat([plain[:, 1:], torch.zeros(5, 1)], 1)  # back from sums to steps
    mean, std = rewards[mask].mean(), rewards[mask].std(correction=0)
    expected = torch.where(mask, (rewards - mean) / std + mean, 0).sum(-1)
    torch.testing.assert_close(white[:, 0], expected, atol=1e-6, rtol=1e-6)


def test_padding_and_blank_rows_do_not_matter() -> None:
    scored = scored_rollout()
    expected = PPO().experience(scored, 0.1)
    rollout = scored.rollout._replace(
        response_mask=torch.cat([scored.rollout.response_mask, torch.zeros(5, 2).bool()], 1)
    )
    wide = {
        key: torch.cat([getattr(scored, key), torch.full((5, 2), math.nan)], 1)
        for key in ("logprobs", "reference_logprobs", "values", "entropy")
    }
    scores = scored.scores.clone()
    scores[2] = math.nan
    result = PPO().experience(scored._replace(rollout=rollout, scores=scores, **wide), 0.1)
    torch.testing.assert_close(result.advantages[:, :5], expected.advantages)
    torch.testing.assert_close(result.returns[:, :5], expected.returns)


def test_experience_carries_no_gradient() -> None:
    scored = scored_rollout()
    scored.values.requires_grad_()
    experience = PPO().experience(scored, 0.1)
    assert not experience.advantages.requires_grad
    assert not experience.returns.requires_grad


def naive_update(
    algorithm: PPO, batch: PPOExperience, new_logprobs: Tensor, new_values: Tensor
) -> dict[str, float]:
    sums = dict.fromkeys(("policy", "value", "clip_fraction", "value_clip_fraction"), 0.0)
    assert algorithm.value_clip_range is not None
    for n, length in enumerate(LENGTHS):
        for t in range(length):
            difference = (new_logprobs[n, t] - batch.logprobs[n, t]).item()
            ratio, advantage = math.exp(difference), batch.advantages[n, t].item()
            bounded = min(max(ratio, 1 - algorithm.clip_range), 1 + algorithm.clip_range)
            old, new = batch.values[n, t].item(), new_values[n, t].item()
            target, clip = batch.returns[n, t].item(), algorithm.value_clip_range
            near = min(max(new, old - clip), old + clip)
            sums["policy"] += max(-advantage * ratio, -advantage * bounded)
            sums["value"] += max((new - target) ** 2, (near - target) ** 2) / 2
            sums["clip_fraction"] += bounded * advantage < ratio * advantage
            sums["value_clip_fraction"] += (near - target) ** 2 > (new - target) ** 2 + 1e-12
    return sums


def test_loss_matches_a_loop() -> None:
    algorithm = PPO(value_coef=0.7, clip_range=0.1, value_clip_range=0.3)
    batch = algorithm.experience(scored_rollout(), 0.1)
    generator = torch.Generator().manual_seed(8)
    noise = 0.3 * torch.randn(2, 5, 5, generator=generator, dtype=torch.float64)
    new_logprobs, new_values = batch.logprobs + noise[0], batch.values + noise[1]
    loss = algorithm.loss(batch, new_logprobs, new_values)
    expected = naive_update(algorithm, batch, new_logprobs, new_values)
    assert {key: part.item() for key, part in loss.parts.items()} == pytest.approx(expected)
    assert loss.total.item() == pytest.approx(expected["policy"] + 0.7 * expected["value"])
    assert algorithm.row_weights(batch).tolist() == LENGTHS
    assert 0 < expected["clip_fraction"] < sum(LENGTHS)
    assert 0 < expected["value_clip_fraction"] < sum(LENGTHS)


def test_first_update_clips_nothing() -> None:
    batch = PPO().experience(scored_rollout(torch.float32), 0.1)
    loss = PPO().loss(batch, batch.logprobs.clone(), batch.values.clone())
    for key in ("clip_fraction", "value_clip_fraction"):
        assert loss.parts[key].item() == 0


@pytest.mark.parametrize("size", [1, 2, 3])
def test_micro_batches_add_up(size: int) -> None:
    batch = PPO().experience(scored_rollout(), 0.1)
    whole = [(x + 0.2).requires_grad_() for x in (batch.logprobs, batch.values)]
    split = [x.detach().clone().requires_grad_() for x in whole]
    expected = PPO().loss(batch, *whole)
    expected.total.backward()
    slices = [slice(start, start + size) for start in range(0, 5, size)]
    losses = [PPO().loss(rows_of(batch, rows), *(x[rows] for x in split)) for rows in slices]
    for loss in losses:
        loss.total.backward()
    for key, part in expected.parts.items():
        assert not part.requires_grad
        assert sum(loss.parts[key].item() for loss in losses) == pytest.approx(part.item())
    torch.testing.assert_close([x.grad for x in split], [x.grad for x in whole])


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
def test_poison_under_the_mask_reaches_neither_values_nor_gradients(poison: float) -> None:
    batch = PPO().experience(scored_rollout(), 0.1)
    mask = batch.rollout.response_mask
    clean = PPO().loss(batch, batch.logprobs + 0.1, batch.values + 0.1)
    spoilt = PPOExperience(batch.rollout, *(torch.where(mask, x, poison) for x in batch[1:]))
    inputs = [(x + 0.1).requires_grad_() for x in (spoilt.logprobs, spoilt.values)]
    loss = PPO().loss(spoilt, *inputs)
    torch.testing.assert_close(loss.total, clean.total)
    torch.testing.assert_close(loss.parts, clean.parts)
    loss.total.backward()
    for x in inputs:
        assert x.grad is not None
        assert x.grad.isfinite().all()
        assert x.grad[~mask].eq(0).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epochs": 0}, "epochs must be >= 1, got 0"),
        ({"missing_eos_score": math.nan}, "missing_eos_score must be finite or null, got nan"),
        (
            {"bootstrap_truncated": True},
            "missing_eos_score must be null when bootstrap_truncated is true, got -1.0",
        ),
        ({"kl_estimator": "k4"}, "kl_estimator must be one of k1, k2, k3, got k4"),
        ({"target_kl": 0.0}, "target_kl must be > 0 or null, got 0.0"),
        ({"clip_range": -1}, "clip_range must be > 0, got -1"),
        ({"clip_range": math.nan}, "clip_range must be > 0, got nan"),
        ({"value_clip_range": 0.0}, "value_clip_range must be > 0 or null, got 0.0"),
        ({"gamma": 1.1}, "gamma must be in [0, 1], got 1.1"),
        ({"lam": -0.1}, "lam must be in [0, 1], got -0.1"),
        ({"value_coef": -0.1}, "value_coef must be >= 0, got -0.1"),
        ({"value_coef": math.inf}, "value_coef must be >= 0, got inf"),
    ],
)
def test_wrong_values_are_refused(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(UserError) as error:
        PPO(**arguments)  # type: ignore[arg-type]
    assert str(error.value) == message


def test_what_may_be_null_may_be_null() -> None:
    algorithm = PPO(
        missing_eos_score=None, bootstrap_truncated=True, value_clip_range=None, target_kl=None
    )
    batch = algorithm.experience(scored_rollout(), 0.1)
    assert algorithm.loss(batch, batch.logprobs, batch.values + 5).parts["value_clip_fraction"] == 0
