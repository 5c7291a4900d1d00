"""Whether a judge took part in what it judges, as far as artefacts tell."""

from __future__ import annotations

from pathlib import Path

from instructgpt.evaluation.results import Background
from instructgpt.models.artefact import Artefact, read_artefact

UNKNOWN = "nothing is known of how {} was trained: it has no instructgpt.json"


def trained(judge: str, reward: str) -> dict[str, Background]:
    """How two reward models came to be, and what the first has in common with the second.

    Args:
        judge: folder or hub id of the one that judges.
        reward: of the one that policies were trained against.
    """
    ours, theirs = read_artefact(judge), read_artefact(reward)
    return {
        "reward_model": _facts(theirs, []),
        "judge_model": _facts(ours, in_common(ours, theirs)),
    }


def in_common(judge: Artefact | None, reward: Artefact | None) -> list[str]:
    """What the training of a judge and that of a reward model share, in words.

    Sets are known by their names only: two halves of one file are the same set here.

    Args:
        judge: what it says about itself.
        reward: the same.
    """
    if judge is None or reward is None:
        missing = [
            name
            for name, one in (("the judge", judge), ("the reward model", reward))
            if one is None
        ]
        return [UNKNOWN.format(name) for name in missing]
    found = []
    if judge.parent is not None and _same(judge.parent, reward.parent):
        found.append(f"both started from {_short(judge.parent)}")
    elif judge.base is not None and _same(judge.base, reward.base):
        found.append(f"both go back to {_short(judge.base)}")
    known = {str(one["name"]): one for one in _train(reward)}
    for one in _train(judge):
        if (other := known.get(str(one["name"]))) is not None:
            rows = f"{_count(one)} and {_count(other)}"
            found.append(f"both were trained on {one['name']} ({rows})")
    return found


def _facts(one: Artefact | None, shares: list[str]) -> Background:
    if one is None:
        return Background(None, [], shares)
    parent = one.parent or one.base
    sets = [f"{each['name']}, {_count(each)}" for each in _train(one)]
    return Background(None if parent is None else _short(parent), sets, shares)


def _train(one: Artefact) -> list[dict[str, object]]:
    sets = one.data or []
    return [each for each in sets if isinstance(each, dict) and each.get("use") == "train"]


def _count(one: dict[str, object]) -> str:
    rows = one.get("rows")
    return f"{rows:,} rows" if isinstance(rows, int) else "streamed"


def _same(one: str, other: str | None) -> bool:
    if other is None:
        return False
    return one == other or Path(one).resolve() == Path(other).resolve()


def _short(source: str) -> str:
    """A hub id, or the end of a path: the folders of a machine concern nobody."""
    return "/".join(Path(source).parts[-2:])
