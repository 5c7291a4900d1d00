"""Joining what the ranks have: their rollouts, and what networks said about their rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from instructgpt.types import Rollout


def gather(
    rollout: Rollout, scores: Tensor, all_gather: Callable[[Tensor], Any], world_size: int
) -> tuple[Rollout, Tensor]:
    """The rows of all ranks, in the order of the ranks.

    Every rank then holds the whole rollout (a few megabytes), so that statistics and minibatches do
    not depend on how many there are.

    Args:
        rollout: rows of this rank.
        scores: [N] of them.
        all_gather: a tensor of each rank to one with a dimension more, [ranks, ...].
        world_size: number of ranks; every one must call this.
    """
    if world_size == 1:
        return rollout, scores
    widths = [rollout.prompt_mask.shape[1], rollout.response_mask.shape[1]]
    mine = torch.tensor(widths, device=rollout.tokens.device)
    wide = pad_to(rollout, *all_gather(mine).amax(0).tolist())
    joined = Rollout(*(all_gather(field).flatten(0, 1) for field in wide))
    return joined, all_gather(scores).flatten(0, 1)


def pad_to(rollout: Rollout, prompt_length: int, response_length: int) -> Rollout:
    """Add padding columns up to common lengths, so that rollouts of several ranks can be joined."""
    left = prompt_length - rollout.prompt_mask.shape[1]
    right = response_length - rollout.response_mask.shape[1]
    return Rollout(
        pad(rollout.tokens, (left, right)),
        pad(rollout.prompt_mask, (left, 0)),
        pad(rollout.response_mask, (0, right)),
        rollout.finished,
        pad(rollout.logprobs, (0, right)),
        pad(rollout.support, (0, 0, 0, right)),
    )


def gather_rows(
    columns: dict[str, Tensor],
    shares: Sequence[Tensor],
    all_gather: Callable[[Tensor], Any],
) -> dict[str, Tensor]:
    """What was said about rows that ranks have shared out, by row number.

    Args:
        columns: of the rows of this rank, in the order of its share.
        shares: row numbers of each rank, as many for each.
        all_gather: as for ``gather``.

    Returns:
        The columns of all these rows, in the order of their numbers.
    """
    order = torch.cat(list(shares)).argsort()
    if len(shares) > 1:
        columns = {name: all_gather(column).flatten(0, 1) for name, column in columns.items()}
    return {name: column[order.to(column.device)] for name, column in columns.items()}
