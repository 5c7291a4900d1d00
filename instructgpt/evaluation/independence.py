"""Whether a judge took part in what it judges: by what artefacts say, and by the weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from instructgpt.data.sketch import Sketch, read_sketch, share_among
from instructgpt.evaluation.results import Background
from instructgpt.models.artefact import Artefact, read_artefact
from instructgpt.models.features import Features
from instructgpt.models.forward import base_network
from instructgpt.models.heads import ScalarModel
from instructgpt.models.layers import layers_of
from instructgpt.rewards.learned import LearnedReward
from instructgpt.types import UserError

UNKNOWN = "nothing is known of how {} was trained: it has no instructgpt.json"


class Known(NamedTuple):
    """A reward model and what its folder says about it."""

    artefact: Artefact | None
    model: ScalarModel

    @classmethod
    def of(cls, reward: LearnedReward) -> Known:
        """That of a reward which was prepared."""
        assert reward.model is not None
        return cls(read_artefact(reward.init_from), reward.model)


def trained(judge: LearnedReward, reward: LearnedReward) -> dict[str, Background]:
    """How two reward models came to be, and what the first has in common with the second.

    Args:
        judge: the one that judges.
        reward: the one that policies were trained against.
    """
    ours, theirs = Known.of(judge), Known.of(reward)
    return {
        "reward_model": _facts(theirs.artefact, []),
        "judge_model": _facts(ours.artefact, in_common(ours, theirs)),
    }


def in_common(judge: Known, reward: Known) -> list[str]:
    """What the training of a judge and that of a reward model share, in words.

    Args:
        judge: that judges.
        reward: that policies were trained against.
    """
    if judge.artefact is None or reward.artefact is None:
        names = {"the judge": judge.artefact, "the reward model": reward.artefact}
        found = [UNKNOWN.format(name) for name, one in names.items() if one is None]
    else:
        found = started(judge.artefact, reward.artefact) + rows(judge.artefact, reward.artefact)
    return found + weights(judge.model, reward.model)


def started(judge: Artefact, reward: Artefact) -> list[str]:
    """What both started from: known by its weights, or by its name."""
    if judge.parent_digest is not None and judge.parent_digest == reward.parent_digest:
        names = dict.fromkeys(_short(one.parent) for one in (judge, reward) if one.parent)
        return [f"both started from the weights of {' and '.join(names)}"]
    if judge.parent is not None and _same(judge.parent, reward.parent):
        return [f"both started from {_short(judge.parent)}"]
    if judge.base is not None and _same(judge.base, reward.base):
        return [f"both go back to {_short(judge.base)}"]
    return []


def rows(judge: Artefact, reward: Artefact) -> list[str]:
    """Which training prompts both have; of older artefacts the sets of the same name.

    Args:
        judge: of the one that judges.
        reward: of the one that policies were trained against.
    """
    found = []
    for one in training_sets(judge):
        ours = read_sketch(one.get("prompts"))
        for other in training_sets(reward):
            theirs = read_sketch(other.get("prompts"))
            share = None if ours is None or theirs is None else share_among(ours, theirs)
            if share is not None and ours is not None:
                found += _shared(one, ours, *share, other)
            elif one["name"] == other["name"]:
                sizes = f"{_count(one)} and {_count(other)}"
                found.append(f"both were trained on {one['name']} ({sizes})")
    return found


def _shared(
    one: dict[str, Any], ours: Sketch, share: float, seen: int, other: dict[str, Any]
) -> list[str]:
    if not share:
        return []
    number = f"{'' if seen == ours.distinct else 'about '}{ours.distinct * share:,.0f}"
    sets = one["name"] if one["name"] == other["name"] else f"{one['name']} and {other['name']}"
    return [f"{number} of the judge's {ours.distinct:,} training prompts are in both ({sets})"]


def weights(judge: ScalarModel, reward: ScalarModel) -> list[str]:
    """Which layers are the same numbers, and whether two heads read the same of them.

    Args:
        judge: that judges.
        reward: that policies were trained against.
    """
    try:
        ours, theirs = (layers_of(base_network(one.trunk), "") for one in (judge, reward))
    except UserError:  # nothing is known of the layers of one
        return []
    if len(ours) != len(theirs):
        return []
    same = 0
    while same < len(ours) and _equal(ours[same], theirs[same]):
        same += 1
    if not same:
        return []
    if same < len(ours):
        return [f"the first {same} of their {len(ours)} layers are the same weights"]
    if _read(judge) == _read(reward):
        return [f"all {same} layers are the same weights, of which both heads read the same"]
    return [f"all {same} layers are the same weights, of which their heads read different ones"]


def _read(model: ScalarModel) -> Features | None:
    plain = model.features is None or model.features.is_plain(model.trunk)
    return None if plain else model.features


def _equal(one: nn.Module, other: nn.Module) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(
        value.shape == theirs[name].shape and torch.equal(value, theirs[name])
        for name, value in ours.items()
    )


def _facts(one: Artefact | None, shares: list[str]) -> Background:
    if one is None:
        return Background(None, [], shares)
    parent = one.parent or one.base
    sets = [f"{each['name']}, {_count(each)}" for each in training_sets(one)]
    return Background(None if parent is None else _short(parent), sets, shares)


def training_sets(one: Artefact) -> list[dict[str, Any]]:
    """What an artefact says of the sets that it was trained on."""
    sets = one.data or []
    return [each for each in sets if isinstance(each, dict) and each.get("use") == "training"]


def _count(one: dict[str, Any]) -> str:
    found = one.get("rows")
    return f"{found:,} rows" if isinstance(found, int) else "streamed"


def _same(one: str, other: str | None) -> bool:
    if other is None:
        return False
    return one == other or Path(one).resolve() == Path(other).resolve()


def _short(source: str) -> str:
    """A hub id, or the end of a path: the folders of a machine concern nobody."""
    return "/".join(Path(source).parts[-2:])
