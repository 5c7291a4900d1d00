"""What an algorithm makes of a rollout: experience before the updates, a loss in each of them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from instructgpt.algorithms.base import RolloutAlgorithm, check_parts
from instructgpt.models.shard_calls import is_spread
from instructgpt.models.shards import local
from instructgpt.rollout.buffer import RolloutBuffer, take
from instructgpt.rollout.metrics import ratio_sums, rollout_metrics
from instructgpt.rollout.rows import flatten
from instructgpt.rollout.scoring import Networks, response_logprobs
from instructgpt.types import ScoredRollout, UserError, require


def learn_from(
    algorithm: RolloutAlgorithm,
    scored: ScoredRollout,
    rows: Tensor,
    kl_coef: float,
    number: int,
) -> tuple[RolloutBuffer, dict[str, float]]:
    """The rows that are learned from, and all that is logged of the rollout.

    Args:
        algorithm: says which rows, and what of them.
        scored: the rollout of all ranks.
        rows: of it that are learned from, as ``trained_rows`` gave them.
        kl_coef: weight of the KL penalty, reward per nat.
        number: of the phase.
    """
    experience = algorithm.experience(scored, kl_coef)
    learned = take(experience, rows)
    weights = algorithm.row_weights(learned)
    buffer = RolloutBuffer(number, learned, scored.logprobs[rows], weights, rows)
    episode = algorithm.episode_scores(scored.scores, scored.rollout.finished)
    metrics = rollout_metrics(scored, kl_coef, episode)
    further = {name: float(x) for name, x in algorithm.rollout_metrics(experience).items()}
    if taken := sorted(set(metrics) & set(further)):
        name = type(algorithm).__name__
        raise UserError(f"{name}.rollout_metrics must not be named as the loop's: {taken}")
    metrics |= further
    return buffer, {f"ppo/{name}": value for name, value in metrics.items()}


def trained_rows(algorithm: RolloutAlgorithm, scored: ScoredRollout, kl_coef: float) -> Tensor:
    """Refuse other numbers of rows than the updates were planned for."""
    rows, sampled = algorithm.trained_rows(scored, kl_coef), len(scored.scores)
    planned = sampled // algorithm.responses_per_prompt * algorithm.trained_per_prompt
    rule = f"{planned} of {sampled} rows, trained_per_prompt of each prompt"
    require(len(rows) == planned, f"{type(algorithm).__name__}.trained_rows", rule, len(rows))
    return rows


def untouched(network: nn.Module) -> Tensor:
    """A loss of 0 that has a gradient for every trained parameter, which DDP waits for."""
    trained = [local(parameter) for parameter in network.parameters() if parameter.requires_grad]
    return torch.stack([parameter.sum() * 0.0 for parameter in trained]).sum()


def importance_weights(logprobs: Tensor, sampled: Tensor, cap: float) -> Tensor:
    """Probability of each token in training over that in sampling, cut from above.

    Args:
        logprobs: [N, R] of the policy before the updates, by the training forward pass.
        sampled: [N, R] of the pass that sampled.
        cap: the most.

    Examples:
        >>> importance_weights(torch.tensor([0.5, 0.1]).log(), torch.tensor([0.1, 0.2]).log(), 2.0)
        tensor([2.0000, 0.5000])
    """
    return (logprobs - sampled).exp().clamp_max(cap)


def _scaled_gradient(values: Tensor, factors: Tensor) -> Tensor:
    """The same values to the last bit, with a gradient that is multiplied."""
    fixed = values.detach()
    return fixed + factors * (values - fixed)


class EpisodesLoss(NamedTuple):
    """Of a micro-batch."""

    total: Tensor  # sum, to call backward on
    weight: Tensor  # what the rows add to its divisor
    sums: dict[str, Tensor]  # to log
    worst: Tensor  # largest |ratio - 1|


def episodes_loss(
    algorithm: RolloutAlgorithm,
    networks: Networks,
    buffer: RolloutBuffer,
    rows: Tensor,
    temperature: float,
    value_only: bool,
) -> EpisodesLoss:
    """The loss of some rows of a rollout.

    Args:
        algorithm: whose loss it is.
        networks: in training.
        buffer: the rollout.
        rows: of the buffer.
        temperature: that the responses were sampled with.
        value_only: nothing is learned by the policy.
    """
    here = rows.to(buffer.logprobs.device)
    batch, logprobs = take(buffer.experience, here), buffer.logprobs[here]
    responses = flatten(batch.rollout)
    with torch.set_grad_enabled(not value_only):
        new = response_logprobs(networks.policy, responses, temperature)
    values = networks.values(responses, new.hidden)
    values = values if values is None else values[:, :-1]
    learned = new.logprobs
    if algorithm.importance_cap is not None:
        weights = importance_weights(logprobs, batch.rollout.logprobs, algorithm.importance_cap)
        learned = _scaled_gradient(learned, weights)
    loss = algorithm.loss(batch, learned, values)
    parts = {f"loss/{name}": value for name, value in loss.parts.items()}
    sums, worst = ratio_sums(logprobs, new.logprobs, batch.rollout.response_mask)
    check_parts(algorithm, loss.parts, sums)
    weight = torch.tensor(buffer.weight(rows), device=here.device)
    still = value_only and not is_spread(networks.policy)  # FSDP2 waits for nothing
    total = loss.total + untouched(networks.policy) if still else loss.total
    return EpisodesLoss(total, weight, {**parts, **sums}, worst)
