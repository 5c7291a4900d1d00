"""Joining the rollouts of all ranks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from instructgpt.rollout.buffer import columns
from instructgpt.types import Rollout, ScoredRollout


def gather(
    scored: ScoredRollout, all_gather: Callable[[Tensor], Any], world_size: int
) -> ScoredRollout:
    """The rows of all ranks, in the order of the ranks.

    Every rank then holds the whole rollout (a few megabytes), so that statistics and minibatches do
    not depend on how many there are.

    Args:
        scored: rows of this rank.
        all_gather: a tensor of each rank to one with a dimension more, [ranks, ...].
        world_size: number of ranks; every one must call this.
    """
    if world_size == 1:
        return scored
    rollout = scored.rollout
    widths = [rollout.prompt_mask.shape[1], rollout.response_mask.shape[1]]
    mine = torch.tensor(widths, device=rollout.tokens.device)
    wide = pad_to(scored, *all_gather(mine).amax(0).tolist())
    everyone = {name: all_gather(x) for name, x in wide.rollout._asdict().items()}
    others = {name: all_gather(x) for name, x in columns(wide).items()}
    parts = []
    for rank in range(world_size):
        own = Rollout(**{name: field[rank] for name, field in everyone.items()})
        rest = {name: field[rank] for name, field in others.items()}
        parts.append(wide._replace(rollout=own, **rest))
    return join(parts)


def pad_to(scored: ScoredRollout, prompt_length: int, response_length: int) -> ScoredRollout:
    """Add padding columns up to common lengths, so that rollouts of several ranks can be joined."""
    rollout = scored.rollout
    left = prompt_length - rollout.prompt_mask.shape[1]
    right = response_length - rollout.response_mask.shape[1]
    wide = Rollout(
        pad(rollout.tokens, (left, right)),
        pad(rollout.prompt_mask, (left, 0)),
        pad(rollout.response_mask, (0, right)),
        rollout.finished,
        pad(rollout.logprobs, (0, right)),
    )
    padded = {name: pad(x, (0, right)) for name, x in columns(scored).items() if name != "scores"}
    return scored._replace(rollout=wide, **padded)


def join(parts: Sequence[ScoredRollout]) -> ScoredRollout:
    """The rows of several ranks, in the order of the ranks."""
    rollout = Rollout(*(torch.cat(f) for f in zip(*(p.rollout for p in parts), strict=True)))
    names = columns(parts[0])
    joined = {name: torch.cat([getattr(part, name) for part in parts]) for name in names}
    return parts[0]._replace(rollout=rollout, **joined)
