"""What the training forward pass says about a rollout: log-probabilities, entropy, values."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from instructgpt.functional.logprobs import entropy, token_logprobs
from instructgpt.models.forward import run
from instructgpt.models.heads import ScalarModel
from instructgpt.types import Progress, Rollout


class RolloutLogprobs(NamedTuple):
    """Of the tokens of a response, under a policy."""

    logprobs: Tensor  # [N, R]
    entropy: Tensor | None  # [N, R], without gradient
    hidden: Tensor | None  # [N, R + 1, d] the state before each response token and after the last


def response_logprobs(
    policy: nn.Module,
    rollout: Rollout,
    temperature: float,
    adapter: bool = True,
    hidden: bool = False,
    with_entropy: bool = False,
) -> RolloutLogprobs:
    """Log-probabilities of the response tokens, of ``logits / temperature``.

    Args:
        policy: a causal language model.
        rollout: prompts and responses.
        temperature: that the responses were sampled with.
        adapter: False switches adapters off, which gives the reference of an adapted policy.
        hidden: also return the hidden states that a value head reads.
        with_entropy: also return the entropy, which costs a softmax over the vocabulary.
    """
    length = rollout.response_mask.shape[1]
    # The hidden state after the last column bootstraps truncated responses: one position more.
    output = run(
        policy, rollout.tokens, rollout.mask, keep=length + 1, hidden=hidden, adapter=adapter
    )
    logits = output.logits[:, :-1].float()
    if temperature != 1:
        logits = logits / temperature
    spread = entropy(logits.detach()) if with_entropy else None
    return RolloutLogprobs(token_logprobs(logits, rollout.responses), spread, output.hidden)


def response_values(value: ScalarModel, rollout: Rollout) -> Tensor:
    """Values before each response token and after the last column, [N, R + 1]."""
    values: Tensor = value(rollout.tokens, rollout.mask)
    return values[:, rollout.prompt_mask.shape[1] - 1 :]


def select(rollout: Rollout, rows: Tensor) -> Rollout:
    """The given rows of a rollout."""
    return Rollout(*(field[rows] for field in rollout))


@torch.no_grad()
def in_microbatches(
    function: Callable[[Rollout], tuple[Tensor, ...]],
    rollout: Rollout,
    size: int,
    part: str,
    progress: Progress,
) -> tuple[Tensor, ...]:
    """Apply a function to micro-batches of rows and join its outputs.

    The same micro-batch size as in the update keeps the matrix products the same, so that the first
    probability ratio is 1 and not almost 1.
    """
    outputs = []
    rows = torch.arange(len(rollout.tokens), device=rollout.tokens.device)
    for group in rows.split(size):
        outputs.append(function(select(rollout, group)))
        progress(part, int(group[-1]) + 1, len(rows))
    return tuple(torch.cat(columns) for columns in zip(*outputs, strict=True))
