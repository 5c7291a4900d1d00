"""How much the heads on a frozen trunk are held back: a ridge, chosen by cross-validation."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from instructgpt.functional.pairs import BetterPairs, better_pairs, minimum
from instructgpt.models.heads import Heads
from instructgpt.modules.kept_features import KeptFeatures

RIDGES = (100.0, 300.0, 1_000.0, 3_000.0, 10_000.0, 30_000.0)
"""Those that are tried: with SmolLM2-135M and 674 to 1,472 pairs, 4,000 was best."""
FOLDS = 5
MOST = 4_000
"""More prompts are not looked at: a minute, and the choice no longer depends on a few of them."""


class Ridge(NamedTuple):
    """A penalty on weights that read standardised numbers."""

    strength: float
    prompts: int  # that train

    def penalty(self, weights: Tensor) -> Tensor:
        """What is added to the mean loss of a prompt: the mean over the heads of [H, F]."""
        squares: Tensor = weights.square().sum(1).mean()
        return self.strength / (2 * self.prompts) * squares


class Tried(NamedTuple):
    """What became of a ridge on prompts that had not trained, in nats and as a share."""

    strength: float
    loss: float
    accuracy: float


def ridge_of(asked: float | None, kept: KeptFeatures, rows: Sequence[Any], heads: Heads) -> Ridge:
    """The ridge of a run: as asked for, else the best of ``RIDGES``.

    Args:
        asked: its strength.
        kept: features of the rows to train on, the same on all ranks.
        rows: those rows, each with its prompt and ranking.
        heads: which have seen what they read.
    """
    decided = [i for i in range(len(rows)) if len(set(rows[i].ranking)) > 1]
    if asked is not None:
        return Ridge(asked, len(decided))
    chosen = decided[:MOST]
    folds = [_fold(rows[i]) for i in chosen]
    if len(set(folds)) == 1:
        rank_zero_info(f"ridge: {RIDGES[2]:,.0f}, as there is no second prompt to choose it by")
        return Ridge(RIDGES[2], len(decided))
    values = [kept.values[kept.starts[i] : kept.starts[i + 1]] for i in chosen]
    read = ((torch.cat(values) - heads.mean.cpu()) / heads.scale.cpu()).double()
    scale = len(chosen) / len(decided)  # a ridge is worth as much on a part of the prompts
    found = cross_validate(read, [rows[i].ranking for i in chosen], folds, scale)
    best = min(found, key=lambda one: one.loss)
    rank_zero_info(
        f"ridge: {best.strength:,.0f}, of {RIDGES[0]:,.0f} to {RIDGES[-1]:,.0f} the best in "
        f"{FOLDS} folds of {len(chosen):,} training prompts: loss {best.loss:.3f}, right in "
        f"{best.accuracy:.3f} of their pairs"
    )
    return Ridge(best.strength, len(decided))


def cross_validate(
    read: Tensor, rankings: Sequence[Sequence[int]], folds: Sequence[int], scale: float = 1.0
) -> list[Tried]:
    """Each ridge on the prompts of each fold, by weights fitted exactly to those of the others.

    Args:
        read: [N, F] float64, standardised, of all responses, prompt after prompt.
        rankings: of each prompt's responses.
        folds: of each prompt.
        scale: what a ridge is multiplied by.
    """
    numbers = sorted(set(folds))
    parts = {fold: _pairs(rankings, folds, fold, inside=True) for fold in numbers}
    others = {fold: _pairs(rankings, folds, fold, inside=False) for fold in numbers}
    found = []
    for strength in RIDGES:
        loss = right = prompts = 0.0
        for fold in numbers:
            weights = _fit(read, others[fold], strength * scale)
            held, scores = parts[fold], read @ weights
            loss += float(held.loss(scores))
            won = scores[held.better] > scores[held.worse]
            right += float((won * held.weights).sum())
            prompts += float(held.weights.sum())
        found.append(Tried(strength, loss / prompts, right / prompts))
    return found


def _fit(read: Tensor, pairs: BetterPairs, strength: float) -> Tensor:
    return minimum(
        lambda weights: pairs.loss(read @ weights) + strength / 2 * weights.square().sum(),
        read.shape[1],
    )


def _pairs(
    rankings: Sequence[Sequence[int]], folds: Sequence[int], fold: int, inside: bool
) -> BetterPairs:
    """Those of the prompts of a fold, or of all others; of the rest all is a tie."""
    picked = [(own == fold) == inside for own in folds]
    chosen = zip(rankings, picked, strict=True)
    return better_pairs([one if there else [1] * len(one) for one, there in chosen])


def _fold(row: Any) -> int:
    """That of a prompt: the same for the same tokens, in any order of the rows."""
    return hashlib.blake2b(row.prompt.numpy().tobytes(), digest_size=8).digest()[0] % FOLDS
