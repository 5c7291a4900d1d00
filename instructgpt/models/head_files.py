"""Heads of a reward model as a file: several of them, or on features of a frozen trunk."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

from safetensors.torch import load_file, save_file

from instructgpt.models.features import Features, Tokens
from instructgpt.models.finite import check_finite
from instructgpt.models.heads import Heads
from instructgpt.models.source import ARTEFACT_FILE, explained
from instructgpt.types import UserError

HEADS = "heads.safetensors"


def save_heads(heads: Heads, features: Features | None, folder: Path) -> dict[str, Any]:
    """Write heads into the folder of an artefact, and return what it says about them.

    Args:
        heads: of a reward model.
        features: that they read; None: the last state.
        folder: of the artefact.
    """
    state = {name: value.contiguous() for name, value in heads.state_dict().items()}
    save_file(state, folder / HEADS)
    read = None
    if features is not None:
        read = {"layers": list(features.layers), "tokens": list(features.tokens)}
    return {"heads": HEADS, "features": read}


def read_heads(
    source: str, named: str, reading: dict[str, Any] | None
) -> tuple[Heads, Features | None]:
    """The heads of an artefact, and the features that they read.

    Args:
        source: folder of the artefact.
        named: the file that it says they are in.
        reading: what it says that they read; None: the last state.

    Raises:
        UserError: the file or what is said about it is not as it is written here.
    """
    place = Path(source, ARTEFACT_FILE)
    if named != HEADS:  # nothing outside
        raise UserError(f"{place}: key 'heads' must be {HEADS}, got {named!r}")
    with explained(f"init_from: cannot load the reward heads of '{source}'"):
        state = load_file(Path(source, HEADS))
        heads = Heads(*state["weight"].shape)
        heads.load_state_dict(state)
    check_finite(f"init_from: '{source}'", heads)
    return heads, _features(reading, place)


def _features(facts: dict[str, Any] | None, place: Path) -> Features | None:
    if facts is None:
        return None
    layers, tokens = facts.get("layers"), facts.get("tokens")
    numbers = isinstance(layers, list) and all(type(one) is int and one >= 0 for one in layers)
    named = isinstance(tokens, list) and set(tokens) <= set(get_args(Tokens))
    if not (numbers and named and layers and tokens):
        raise UserError(f"{place}: key 'features' must name layers and tokens, got {facts!r}")
    return Features(tuple(layers), tuple(tokens))
