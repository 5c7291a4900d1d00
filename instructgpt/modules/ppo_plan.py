"""What is said of a PPO run before it begins: its plan, its memory, what of it is not used."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import nlargest
from itertools import cycle, islice
from typing import Any

from instructgpt.algorithms.base import RolloutAlgorithm
from instructgpt.algorithms.kl import FixedKL, KLController
from instructgpt.models.heads import ScalarModel
from instructgpt.models.pages import PAGE, pages_of
from instructgpt.modules.held import bytes_beside, held
from instructgpt.modules.memory import (
    AVERAGE,
    WITHOUT_ADAPTER,
    Memory,
    Need,
    cache_bytes,
    head_bytes,
    logit_bytes,
    trunk_needs,
    update_needs,
)
from instructgpt.modules.networks import Frozen, Value
from instructgpt.modules.piece_sizes import Largest, Size, largest_piece
from instructgpt.modules.pretraining import Pretraining
from instructgpt.modules.shapes import number_size, shape_of
from instructgpt.modules.work import Cost, MeanRow, asked, learned
from instructgpt.rewards.base import RewardFunction
from instructgpt.rollout.drawing import Sampling
from instructgpt.rollout.scoring import Networks
from instructgpt.rollout.updates import Batches, UpdatePlan
from instructgpt.types import require


def phase_memory(
    networks: Networks,
    frozen: Frozen,
    sizes: tuple[Batches, UpdatePlan, Pretraining],
    data: Any,
    sampling: Sampling,
    where: tuple[str, str],
    averaged: bool,
) -> Memory:
    """Sampling, scoring and an update, with responses that are all as long as they can be.

    Args:
        networks: that learn and are asked.
        frozen: reward function and reference.
        sizes: that were asked for, what they come to, and the second term of eq. 2.
        data: of the run.
        sampling: how many are decoded together.
        where: precision of the trainer, and type of the device.
        averaged: whether an average of the policy is kept.
    """
    batches, plan, pretraining = sizes
    policy, response = networks.policy, data.max_response_tokens
    precision, device = where
    shape, size = shape_of(policy), number_size(precision, policy)
    prompts = data.train_rows.lengths
    piece, several = _largest(plan, prompts.tolist(), response)
    decoded = min(sampling.batch_size, batches.rollout_batch_size // plan.world_size)
    cached = cached_tokens(prompts.tolist(), decoded, response, device == "cuda" and size == 2)
    needs = [
        Need("sampling", "KV cache", cache_bytes(shape, cached, size)),
        # Logits, probabilities, their sum up to each token, and one between.
        Need("sampling", "logits", logit_bytes(shape, decoded, 4)),
        Need("scoring", "head", head_bytes(policy, piece, False, device)),
        *update_needs(policy, piece, precision, device),
    ]
    if isinstance(networks.value, ScalarModel):
        needs += trunk_needs(networks.value.trunk, piece, precision, " of the value model")
    if pretraining.ptx_coef:
        block = data.pretraining_block_size
        rows = [Size.document(block, block - 1)] * (pretraining.ptx_per_episode * plan.item_size)
        mixed, _ = largest_piece([rows], plan.max_tokens, plan.microbatch_size)
        mixing = update_needs(policy, mixed, precision, device)
        needs += [need._replace(part="pretraining") for need in mixing]
    reference = frozen.reference
    held_bytes = {
        "reference": 0 if reference is None else bytes_beside(reference, policy),
        "reward": weights_of(frozen.reward),
        "judge": 0 if frozen.judge is None else weights_of(frozen.judge),
        AVERAGE: 4 * held(policy).trained if averaged else 0,
    }
    held_bytes = {name: number for name, number in held_bytes.items() if number}
    shared = WITHOUT_ADAPTER if networks.reference is policy else {}
    if networks.value is not None:
        own = isinstance(networks.value, ScalarModel)
        shared = shared | {"value": "a trunk of its own" if own else "a head on the policy's trunk"}
    memory = Memory((), held_bytes, bool(pretraining.ptx_coef), shared, answers=True)
    return memory.updating(needs, several or plan.accumulate > 1)


def phase_work(
    networks: Networks,
    frozen: Frozen,
    sizes: tuple[Batches, UpdatePlan, Pretraining],
    data: Any,
    recorded: bool,
    phases: float,
) -> list[Cost]:
    """Tokens and operations of phases whose responses are all as long as they can be.

    Args:
        networks: that learn and are asked.
        frozen: reward function and reference.
        sizes: that were asked for, what they come to, and the second term of eq. 2.
        data: of the run.
        recorded: the log-probabilities of sampling are kept.
        phases: how many.
    """
    batches, plan, mix = sizes
    rows = ((prompt, [data.max_response_tokens]) for prompt in data.train_rows.lengths.tolist())
    seen, episodes = MeanRow.of(rows), batches.rollout_batch_size
    learning, rewards = networks.readers, frozen.reward.networks()
    readers = [*learning[recorded:], *(getattr(one, "trunk", one) for one in rewards)]
    readers += [] if networks.reference is None else [networks.reference]
    scoring, read = sum(asked(network, seen) for network in readers), len(readers)
    updated = plan.updates * plan.minibatch_size
    costs = [
        Cost("sampling", episodes * seen.tokens, episodes * asked(networks.policy, seen)),
        Cost("scoring", read * episodes * seen.tokens, episodes * scoring),
        Cost(
            "updates",
            len(learning) * updated * seen.tokens,
            updated * sum(learned(network, seen) for network in learning),
        ),
    ]
    if mix.ptx_coef:
        block, count = data.pretraining_block_size, updated * mix.ptx_per_episode
        text = MeanRow.of([(1, [block - 1])])
        costs.append(Cost("pretraining", count * block, count * learned(networks.policy, text)))
    return [Cost(part, tokens * phases, flops * phases) for part, tokens, flops in costs]


def cached_tokens(prompts: Sequence[int], decoded: int, response: int, paged: bool) -> int:
    """Tokens there is room for beside the policy while it samples.

    Args:
        prompts: tokens of each.
        decoded: rows at once.
        response: tokens of the longest response.
        paged: rows have pages, else slots as long as the longest row.

    Examples:
        >>> cached_tokens([10, 300], 2, 100, False), cached_tokens([10, 300], 2, 100, True)
        (800, 768)
    """
    if not paged:
        return decoded * (max(prompts) + response)
    rows = islice(cycle(prompts), max(len(prompts), decoded))
    return PAGE * sum(nlargest(decoded, (pages_of(prompt + response) for prompt in rows)))


def weights_of(scorer: RewardFunction) -> int:
    """Bytes of the networks inside of it."""
    return sum(held(network).weights for network in scorer.networks())


def _largest(plan: UpdatePlan, prompts: Sequence[int], response: int) -> Largest:
    """The micro-batches of updates whose responses are all as long as they can be."""
    rows = [Size.shared(prompt, [response] * plan.group) for prompt in prompts]
    together = plan.item_size // plan.group
    again = list(islice(cycle(rows), max(len(rows), together)))
    items = [again[at : at + together] for at in range(0, len(again), together)]
    return largest_piece(items, plan.max_tokens, plan.microbatch_size // plan.group)


def plan_lines(
    sizes: tuple[Batches, UpdatePlan, Pretraining],
    updates: int,
    response_tokens: int,
    steps: int | None,
    warmup: int,
) -> list[tuple[str, str]]:
    """Rollouts, minibatches, micro-batches, steps and tokens to come.

    Args:
        sizes: that were asked for, what they come to, and the second term of eq. 2.
        updates: optimizer steps of a phase, as limited by the trainer.
        response_tokens: of the longest response.
        steps: optimizer steps of the run; None where only time limits it.
        warmup: first phases in which the value learns alone.
    """
    batches, plan, pretraining = sizes
    phases = "until the time is up" if steps is None else f"{-(-steps // updates):,}"
    episodes, rows = batches.rollout_batch_size, pretraining.ptx_per_episode * plan.minibatch_size
    ptx = f"{rows:,} pretraining rows x {pretraining.ptx_coef} a step"
    budget = "" if plan.max_tokens is None else f" or {plan.max_tokens:,} tokens"
    learned = "" if plan.rows == episodes else f", {plan.rows:,} of them learned from"
    most = f"at most {episodes * response_tokens:,} sampled tokens"
    alone = f" (the first {warmup:,}: the value alone)" if warmup else ""
    return [
        ("rollout phases", phases + alone),
        ("a phase", f"{episodes:,} episodes, {most}{learned}"),
        ("minibatches", f"{updates:,} a phase, {plan.minibatch_size:,} episodes each"),
        ("micro-batches", f"at most {plan.microbatch_size:,} episodes{budget}"),
        ("pretraining mix", ptx if pretraining.ptx_coef else "none"),
        ("optimizer steps", f"{steps:,}" if steps is not None else "until the time is up"),
    ]


def check_plan(
    algorithm: RolloutAlgorithm,
    value: Value,
    kl: KLController,
    pretraining: Pretraining,
    sampling: Sampling,
    text: Any,
    episodes: int,
) -> list[str]:
    """Refuse what cannot work, and return what means nothing, or something else, in this run.

    Args:
        algorithm: that learns.
        value: the value model asked for.
        kl: the controller asked for.
        pretraining: the second term of eq. 2.
        sampling: how responses are drawn.
        text: to pretrain on, if any.
        episodes: of a rollout, over all ranks.
    """
    missing = bool(pretraining.ptx_coef) and text is None
    rule = f"given when model.pretraining.ptx_coef is {pretraining.ptx_coef}"
    require(not missing, "data.pretraining", rule, "null")
    kl.update(kl.initial, 0.0, episodes)  # refuses a short horizon
    name, lines = type(algorithm).__name__, []
    if text is not None and not pretraining.ptx_coef:
        lines.append("data.pretraining is not used: model.pretraining.ptx_coef is 0")
    if not algorithm.uses_value and value != Value():
        lines.append(f"model.value is not used: {name} has no value model")
    if not algorithm.uses_reference and kl != FixedKL():
        lines.append(f"model.kl is not used: {name} has no reference")
    if (sampling.top_p < 1 or sampling.top_k) and not sampling.own_support:
        lines.append(
            "model.sampling.top_p and top_k cut the distribution that responses come from, "
            "but ratios and KL are of the whole one: the update is off-policy; "
            "model.sampling.own_support makes them of what is left"
        )
    return lines
