"""How what a fit holds is spread over its devices, by strategy, as far as that is arithmetic."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from instructgpt.models.tensor_parallel import OPTION
from instructgpt.types import UserError, require


class Placement(NamedTuple):
    """What is on each device between two steps, and what comes there for one.

    Args:
        name: of the strategy, for people.
        devices: of the run.
        weights: parts that the weights of what learns are in.
        frozen: parts that those of frozen networks are in.
        gradients: parts that gradients are in, once they are exchanged.
        moments: parts that the optimizer's state is in, and an average of the weights.
        wholes: the policy is gathered whole to sample and a reward model to score, all else layer
            by layer.
        buckets: gradients are exchanged through a second copy of them.
        tensor: devices that cut each layer; the parts above are those of what each then has.
        cuts_frozen: whether the layers of frozen networks are cut as well.
        copied: the optimizer steps on a second copy of its part of the weights.
    """

    name: str = "one device"
    devices: int = 1
    weights: int = 1
    frozen: int = 1
    gradients: int = 1
    moments: int = 1
    wholes: bool = False
    buckets: bool = False
    tensor: int = 1
    cuts_frozen: bool = False
    copied: bool = False


ALONE = Placement()
NAMES, FAMILIES = ("auto", "", "single_device"), ("ddp", "fsdp2", "deepspeed_stage_", "zero")
RULE = "must be ddp, fsdp2, deepspeed_stage_2 or deepspeed_stage_3 for a plan"


def placement_of(strategy: Any, devices: int) -> Placement:
    """How a strategy spreads a fit.

    With ``fsdp2`` layers are gathered one by one (ZeRO 3, arXiv:1910.02054), and a policy is whole
    while it samples.

    Args:
        strategy: ``--trainer.strategy``: a name, class path and arguments, or what was built.
        devices: of all nodes.
    """
    name, options = _named(strategy)
    if isinstance(strategy, str) and not (name in NAMES or name.startswith(FAMILIES)):
        raise UserError(f"--trainer.strategy {RULE}, got {name}")  # on one device, too
    if devices == 1:
        return ALONE
    if name in ("auto", "") or name.startswith("ddp"):
        return Placement(f"ddp on {devices:,} devices", devices, buckets=devices > 1)
    if name.startswith("fsdp2"):
        tensor, spreads = tensor_parallel_of(strategy), bool(options.get("shard_frozen", True))
        data = devices // tensor
        parts = data, data if spreads else 1, data, data
        told = f"fsdp2 on {devices:,} devices" + (f", layers cut by {tensor}" if tensor > 1 else "")
        return Placement(told, devices, *parts, wholes=True, tensor=tensor, cuts_frozen=spreads)
    if name.startswith(("deepspeed_stage_", "zero")):  # weights are whole at times
        parts = 1, 1, devices, devices
        return Placement(f"DeepSpeed on {devices:,} devices", devices, *parts, copied=True)
    raise UserError(f"--trainer.strategy {RULE}, got {name}")


def tensor_parallel_of(strategy: Any) -> int:
    """Devices that cut each layer between them.

    Args:
        strategy: as for ``placement_of``.
    """
    size = int(_named(strategy)[1].get("tensor_parallel_size", 1))
    require(size >= 1, OPTION, ">= 1", size)
    return size


def _named(strategy: Any) -> tuple[str, Mapping[str, Any]]:
    """A strategy by the name that it has as a flag, and its options."""
    if isinstance(strategy, str):
        return strategy, {}
    if not hasattr(strategy, "class_path"):  # as the trainer has built it
        return type(strategy).__name__.lower().removesuffix("strategy"), vars(strategy)
    kind = strategy.class_path.rpartition(".")[2].lower()
    return kind.removesuffix("strategy"), strategy.get("init_args") or {}
