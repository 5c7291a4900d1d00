"""One rollout phase: sample, score, estimate advantages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from instructgpt.modules.finite import of_samples, stop, together
from instructgpt.modules.phase import Stopwatch, rollout_metrics
from instructgpt.rewards.base import check_abstained
from instructgpt.rollout.answer import repeat
from instructgpt.rollout.buffer import RolloutBuffer, join, take, widen
from instructgpt.rollout.sampler import sample, to_samples
from instructgpt.rollout.scoring import in_microbatches, response_logprobs
from instructgpt.types import PromptBatch, Rollout, ScoredRollout

if TYPE_CHECKING:
    from instructgpt.modules.ppo import PPOModule


@torch.no_grad()
def collect(module: PPOModule, phase: int) -> tuple[RolloutBuffer, dict[str, float]]:
    """Collect the experience of a phase; the same on every rank and for any number of ranks.

    1. prompts of the phase; 2. responses; 3. log-probabilities of policy and reference, values, by
    the forward pass that training uses; 4. scores; 5. the rollouts of all ranks are joined; 6.
    rewards, advantages and their whitening over all of them.
    """
    trainer, watch = module.trainer, Stopwatch()
    device = module.device
    prompts = draw(module, phase, trainer.global_rank, trainer.world_size)
    prompts = module.transfer_batch_to_device(prompts, device, 0)
    modes = {network: network.training for network in module.trained_networks()}
    for network in modes:
        network.eval()
    with trainer.precision_plugin.forward_context():
        with watch.part("sample", device):
            rollout = together(module, lambda: respond(module, prompts, phase))
        scored = score(module, rollout, watch)
    for network, mode in modes.items():
        network.train(mode)
    with watch.part("reward", device):
        samples = to_samples(rollout, prompts.prompts, module.tokenizer, module.template)
        scores = together(module, lambda: module.frozen.reward.score(samples)).to(device)
    scored = gather(module, scored._replace(scores=scores))
    check(module, scored, phase)
    tokens = float(scored.rollout.response_mask.sum())
    scored = without_abstained(scored)
    algorithm = module.algorithm
    experience = algorithm.experience(scored, module.kl_coef)
    episode = algorithm.episode_scores(scored.scores, scored.rollout.finished)
    numbers = rollout_metrics(scored, module.kl_coef, episode)
    numbers |= {name: float(x) for name, x in algorithm.rollout_metrics(experience).items()}
    metrics = {f"ppo/{name}": value for name, value in numbers.items()}
    metrics["throughput/sampled_tokens_per_second"] = tokens / watch.seconds["sample"]
    metrics |= {f"time/{name}": seconds for name, seconds in watch.seconds.items()}
    rows = algorithm.trained_rows(scored, module.kl_coef)
    trained = take(experience, rows)
    weights = algorithm.row_weights(trained)
    return RolloutBuffer(phase, trained, scored.logprobs[rows], weights, rows), metrics


def draw(module: PPOModule, phase: int, rank: int, world_size: int) -> PromptBatch:
    """A rank's share of the prompts of a phase, each as often as it is answered."""
    responses = module.algorithm.responses_per_prompt
    # To overfit is to see the same prompts again.
    drawn = 0 if module.trainer.overfit_batches else phase  # type: ignore[attr-defined]
    count = module.batches.rollout_batch_size // responses
    return repeat(module.data.rollout_prompts(drawn, count, rank, world_size), responses)


def row_ids(module: PPOModule, phase: int) -> list[str]:
    """Ids of the prompts of a rollout's rows; drawn again, so that nothing has to keep them."""
    return [prompt.id for prompt in draw(module, phase, 0, 1).prompts]


def respond(module: PPOModule, prompts: PromptBatch, phase: int) -> Rollout:
    """Responses to this rank's prompts."""
    return sample(
        module.policy,
        prompts,
        module.data.max_response_tokens,
        module.template.stop_ids(module.tokenizer),
        module.sampling,
        module.seed,
        phase,
        module.progress,
    )


def check(module: PPOModule, scored: ScoredRollout, phase: int) -> None:
    """Stop if what the networks say about a rollout is not finite."""
    mask = scored.rollout.response_mask
    fields = {"a log-probability of the policy": scored.logprobs}
    if scored.reference_logprobs is not None:
        fields["a log-probability of the reference"] = scored.reference_logprobs
    if scored.values is not None:
        fields["a value"] = scored.values[:, :-1]
    for name, field in fields.items():
        bad = (mask & ~field.isfinite()).any(1)
        if bool(bad.any()):
            ids = row_ids(module, phase)
            samples = of_samples([ids[row] for row in bad.nonzero().squeeze(1).tolist()])
            stop(module, [f"{name} is not finite{samples}"], module.global_step)


def without_abstained(scored: ScoredRollout) -> ScoredRollout:
    """Rows without a score lose their response: what has no token enters no sum and no mean."""
    abstained, rollout = scored.scores.isnan(), scored.rollout
    check_abstained(float(abstained.float().mean()))
    kept = rollout.response_mask & ~abstained[:, None]
    return scored._replace(
        rollout=rollout._replace(response_mask=kept),
        scores=scored.scores.masked_fill(abstained, 0.0),
    )


def score(module: PPOModule, rollout: Rollout, watch: Stopwatch) -> ScoredRollout:
    """Log-probabilities of policy and reference, and values, of this rank's rows; no scores yet."""
    size, report, device = module.plan_of_updates.microbatch_size, module.progress, module.device
    temperature = module.sampling.temperature

    def of_policy(rows: Rollout) -> tuple[Tensor, Tensor, Tensor]:
        policy = response_logprobs(
            module.policy, rows, temperature, hidden=module.shared_value, with_entropy=True
        )
        assert policy.entropy is not None
        return policy.logprobs, policy.entropy, module.values(rows, policy.hidden)

    def of_reference(rows: Rollout) -> tuple[Tensor]:
        return (module.reference_logprobs(rows),)

    with watch.part("policy_and_value", device):
        logprobs, entropy, values = in_microbatches(of_policy, rollout, size, "score", report)
    with watch.part("reference", device):
        (reference,) = in_microbatches(of_reference, rollout, size, "reference", report)
    unscored = torch.zeros(len(rollout.tokens), device=device)
    return ScoredRollout(rollout, unscored, logprobs, reference, values, entropy)


def gather(module: PPOModule, scored: ScoredRollout) -> ScoredRollout:
    """Join the rows of all ranks, in the order of the ranks.

    Every rank then holds the whole rollout (a few megabytes), so that statistics and minibatches do
    not depend on how many there are.
    """
    if module.trainer.world_size == 1:
        return scored
    rollout = scored.rollout
    widths = torch.tensor(
        [rollout.prompt_mask.shape[1], rollout.response_mask.shape[1]], device=module.device
    )
    widest = torch.as_tensor(module.all_gather(widths)).amax(0).tolist()
    wide = widen(scored, *widest)
    fields = wide._asdict() | wide.rollout._asdict()
    everyone: dict[str, Any] = {
        name: module.all_gather(field)
        for name, field in fields.items()
        if name != "rollout" and field is not None
    }
    parts = []
    for rank in range(module.trainer.world_size):
        mine = {name: field[rank] for name, field in everyone.items()}
        own = Rollout(*(mine.pop(name) for name in Rollout._fields))
        parts.append(wide._replace(rollout=own, **mine))
    return join(parts)
