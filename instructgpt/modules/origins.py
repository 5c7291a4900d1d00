"""A checkpoint goes on only with the weights, rows and batches that it was made with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from instructgpt.models.digest import weights_digest
from instructgpt.types import Origin, UserError

SHOWN = 8  # digits of a digest in a message


def starts_from(init_from: str | None, network: nn.Module) -> dict[str, Origin]:
    """The weights that training starts from; those from scratch follow from the seed.

    Args:
        init_from: of the stage.
        network: what was loaded, without adapter and new head.
    """
    if init_from is None:
        return {}
    return {"model.init_from": Origin(init_from, weights_digest(network))}


def check_origins(theirs: Mapping[str, Sequence[str]], ours: Mapping[str, Origin]) -> None:
    """Refuse to go on with other weights or rows, under whatever name.

    Args:
        theirs: of the checkpoint, (place, digest) by argument; one of an earlier version may know
            fewer.
        ours: what was loaded now.

    Raises:
        UserError: one line that names all that differ.
    """
    lines = []
    for name, origin in ours.items():
        place, digest = theirs.get(name, origin)
        if digest != origin.digest:
            kind = "rows" if name.startswith("data.") else "weights"
            lines.append(
                f"{name} {origin.place} holds other {kind} ({origin.digest[:SHOWN]}) than the "
                f"run's ({digest[:SHOWN]}, from {place})"
            )
    if lines:
        raise UserError(f"--ckpt_path cannot go on with what differs: {'; '.join(lines)}")


def check_batching(theirs: Mapping[str, int], ours: Mapping[str, int]) -> None:
    """Refuse to go on with batches of another size: the place in the epoch would be another.

    Args:
        theirs: of the checkpoint, a number by argument.
        ours: of this run.

    Raises:
        UserError: one line that names all that differ.
    """
    different: list[str] = []
    for name, value in ours.items():
        if (was := theirs.get(name, value)) != value:
            different.append(f"{name} must stay {was}, got {value}")
    if different:
        raise UserError(f"--ckpt_path cannot go on with other batches: {', '.join(different)}")


def as_plain(origins: Mapping[str, Origin]) -> dict[str, Any]:
    """Origins for a checkpoint, which holds no classes of ours."""
    return {name: list(origin) for name, origin in origins.items()}
