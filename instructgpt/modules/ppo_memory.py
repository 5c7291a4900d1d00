"""What the parts of a PPO phase need of memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from instructgpt.modules.memory import (
    Need,
    activation_bytes,
    cache_bytes,
    held,
    logit_bytes,
    number_size,
    shape_of,
)

if TYPE_CHECKING:
    from instructgpt.modules.policy_stage import PolicyStage


def frozen_bytes(module: PolicyStage) -> dict[str, int]:
    """Reference, reward models and the averaged policy."""
    reference, reward = module.frozen.reference, module.frozen.reward
    sizes = {
        "reference": 0 if reference is None else held(reference).weights,
        "reward": sum(held(network).weights for network in reward.networks()),
        "average of the policy": 4 * held(module.policy).trained if module.ema_decay else 0,
    }
    return {name: size for name, size in sizes.items() if size}


def phase_needs(module: PolicyStage) -> list[Need]:
    """Sampling, scoring and an update, with the longest prompts and responses there can be."""
    plan, data = module.plan_of_updates, module.data
    shape, size = shape_of(module.policy), number_size(module.trainer.precision, module.policy)
    prompt = max(len(row.tokens) for row in data.train_rows)
    response = data.max_response_tokens
    length = prompt + response
    decoded = min(module.sampling.batch_size, plan.rollout_batch_size // plan.world_size)
    rows = plan.microbatch_size
    kept = activation_bytes(shape, rows * length, length, size)
    if not module.shared_value:
        kept += activation_bytes(shape_of(module.value_model.trunk), rows * length, length, size)
    needs = [
        Need("sampling", "KV cache", cache_bytes(shape, decoded * length, size)),
        # Logits, probabilities, their sum up to each token, and one between.
        Need("sampling", "logits", logit_bytes(shape, decoded, 4)),
        # Logits, their log-softmax, and four tensors of the entropy.
        Need("scoring", "logits", logit_bytes(shape, rows * response, 6)),
        Need("update", "activations", kept),
        # The log-softmax, its gradient, and that of the logits.
        Need("update", "logits", logit_bytes(shape, rows * response, 3)),
    ]
    if module.pretraining.ptx_coef:
        block = data.pretraining_block_size
        kept = activation_bytes(shape, rows * block, block, size)
        needs.append(Need("pretraining", "activations", kept))
        needs.append(Need("pretraining", "logits", logit_bytes(shape, rows * block, 3)))
    return needs
