"""How what a fit holds is spread over its devices, by strategy, as far as that is arithmetic."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from instructgpt.types import UserError

STRATEGIES = "ddp, fsdp2, deepspeed, deepspeed_stage_1, deepspeed_stage_2 or deepspeed_stage_3"


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
        master: the optimizer keeps float32 weights of its own, beside those in half precision.
    """

    name: str = "one device"
    devices: int = 1
    weights: int = 1
    frozen: int = 1
    gradients: int = 1
    moments: int = 1
    wholes: bool = False
    buckets: bool = False
    master: bool = False


ALONE = Placement()


def placement_of(strategy: Any, devices: int, precision: str) -> Placement:
    """How a strategy spreads a fit.

    With ``fsdp2`` and with DeepSpeed's stage 3 (ZeRO, arXiv:1910.02054) layers are gathered one by
    one; with ``fsdp2`` a policy is whole while it samples. DeepSpeed holds weights and gradients of
    half precision in two bytes, and the optimizer float32 weights.

    Args:
        strategy: ``--trainer.strategy``: a name, class path and arguments, or what was built.
        devices: of all nodes.
        precision: of the trainer.
    """
    name, options = _named(strategy)
    if devices == 1 and not name.startswith("deepspeed"):
        return ALONE
    if name in ("auto", "") or name.startswith("ddp"):
        return Placement(f"ddp on {devices:,} devices", devices, buckets=devices > 1)
    if name.startswith("fsdp2"):
        frozen = devices if options.get("shard_frozen", True) else 1
        parts = devices, frozen, devices, devices
        return Placement(f"fsdp2 on {devices:,} devices", devices, *parts, wholes=True)
    if name.startswith("deepspeed"):
        stage = int(options.get("stage", name[-1] if name[-1].isdigit() else 2))
        parts = (
            *(devices if stage >= 3 else 1, 1),
            *(devices if stage >= 2 else 1, devices if stage >= 1 else 1),
        )
        title = f"DeepSpeed stage {stage} on {devices:,} devices"
        return Placement(title, devices, *parts, master="16" in precision)
    raise UserError(f"--trainer.strategy must be {STRATEGIES} for a plan, got {name}")


def _named(strategy: Any) -> tuple[str, Mapping[str, Any]]:
    """A strategy by the name that it has as a flag, and its options."""
    if isinstance(strategy, str):
        return strategy, {}
    if not hasattr(strategy, "class_path"):  # as the trainer has built it
        found = vars(strategy)
        zero = (found.get("config") or {}).get("zero_optimization", {})
        return type(strategy).__name__.lower().removesuffix("strategy"), found | zero
    kind = strategy.class_path.rpartition(".")[2].lower()
    return kind.removesuffix("strategy"), strategy.get("init_args") or {}
