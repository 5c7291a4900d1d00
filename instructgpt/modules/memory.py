"""What a fit will need of memory, from the numbers of its configuration alone.

What is counted was read off autograd, layer by layer, and compared with measured peaks. What is not
counted: temporary tensors of single operations, buffers of communication, and what an allocator
keeps of what was freed, which on a CPU can be as much again as comes and goes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from instructgpt.functional.tiles import TILES
from instructgpt.models.forward import base_network
from instructgpt.models.output_head import MOST_LOGITS, output_head
from instructgpt.modules.held import Held, held
from instructgpt.modules.piece_sizes import Size
from instructgpt.modules.placement import ALONE, Placement
from instructgpt.modules.shapes import Shape, learning_shape, number_size, shape_of

MIB = 2**20
NETWORKS = {"reference", "reward"}
"""What is frozen and a network, beside other things that are held."""
AVERAGE = "average of the policy"
COPIES = "weights in half precision"


class Need(NamedTuple):
    """What a part of a run has in memory, beside what is there all the time."""

    part: str  # of the run
    what: str
    bytes: int


def activation_bytes(shape: Shape, piece: Size, size: int) -> int:
    """What the layers keep for the backward pass.

    Args:
        shape: of the network.
        piece: of the rows of a forward pass.
        size: bytes of a number.

    Examples:
        >>> small = Shape(2, 4, 4, 16, 1, 10, 6, 5, False, False)
        >>> activation_bytes(small, Size.document(3, 3), 4)  # 2 * 3 * (6*4 + 2*4 + 5*16) numbers
        2688
    """
    of_token = (shape.width_kept - 2) * shape.width + shape.inner_kept * shape.inner
    # Attention keeps queries, keys, values and its output of every sequence.
    of_attended = 2 * shape.width + 2 * shape.kv_width
    of_attended += shape.heads * piece.longest if shape.eager else 0
    layer = piece.tokens * of_token + piece.attended * of_attended
    inputs = piece.tokens * shape.width * shape.layers
    return size * (inputs + layer if shape.recomputed else shape.layers * layer)


def cache_bytes(shape: Shape, tokens: int, size: int) -> int:
    """Keys and values of all layers.

    Args:
        shape: of the network.
        tokens: of all rows that are decoded together, prompt and response.
        size: bytes of a number.

    Examples:
        >>> cache_bytes(Shape(2, 4, 4, 16, 1, 10, 6, 5, False, False), 3, 4)  # 2 layers * 2 * 3*4*4
        192
    """
    return shape.layers * 2 * tokens * shape.kv_width * size


def logit_bytes(shape: Shape, tokens: int, copies: float) -> int:
    """Logits in float32 with what is made of them.

    Args:
        shape: of the network.
        tokens: that have logits.
        copies: tensors of that size which live at once.
    """
    return round(tokens * shape.vocabulary * copies * 4)


def head_bytes(policy: nn.Module, piece: Size, learns: bool, device: str) -> int:
    """Logits, as many as there are at once, with what is made of them.

    Args:
        policy: a causal language model.
        piece: of the rows of a forward pass.
        learns: whether there are gradients; else the entropy is asked for.
        device: type of where it is computed.
    """
    shape, head = shape_of(policy), output_head(policy)
    if head is None:  # of all tokens, with their softmax and its gradient, or the entropy's parts
        return logit_bytes(shape, piece.predicted, 3 if learns else 6)
    weight = head.layer.weight
    if head.tiled:
        places, ids = TILES.get(device, TILES["cuda"])
        numbers = 2 * min(piece.predicted, places) * min(shape.vocabulary, ids)
    else:
        numbers = 4 * min(MOST_LOGITS, piece.predicted * shape.vocabulary)
    gradient = weight.numel() if learns and weight.requires_grad else 0
    return 4 * (numbers + gradient)


def where(trainer: Any) -> tuple[str, str]:
    """What memory depends on: precision, and the type of the device.

    Args:
        trainer: of the run.
    """
    return trainer.precision, trainer.strategy.root_device.type


def update_needs(policy: nn.Module, piece: Size, precision: str, device: str) -> list[Need]:
    """Of a forward pass of a policy and its backward pass.

    Args:
        policy: that learns.
        piece: of the rows of the largest one.
        precision: of the trainer.
        device: type of where it is computed.
    """
    return [
        *trunk_needs(policy, piece, precision),
        Need("update", "head", head_bytes(policy, piece, True, device)),
    ]


def trunk_needs(network: nn.Module, piece: Size, precision: str, of: str = "") -> list[Need]:
    """What is below the head, of a forward pass and its backward pass.

    Args:
        network: that learns.
        piece: of the rows of the largest one.
        precision: of the trainer.
        of: whose they are, for people.
    """
    kept = activation_bytes(learning_shape(network), piece, number_size(precision, network))
    needs = [Need("update", f"activations{of}", kept)]
    if copied := half_bytes(network, precision):
        needs.append(Need("update", f"{COPIES}{of}", copied))
    return needs


def half_bytes(network: nn.Module, precision: str) -> int:
    """Copies that autocast makes of weights, which the backward pass needs, too.

    Args:
        network: that learns.
        precision: of the trainer.
    """
    if "16-mixed" not in precision:
        return 0
    base = base_network(network)
    layers = [m for m in base.modules() if isinstance(m, nn.Linear | Conv1D)]
    head = base.get_output_embeddings()  # made tile by tile
    weights = [m.weight for m in layers if m is not head and m.weight.element_size() == 4]
    return 2 * sum(weight.numel() for weight in weights)


WITHOUT_ADAPTER = {"reference": "the policy with its adapter off, no copy"}


class Memory(NamedTuple):
    """What a stage needs of memory beside its networks and its optimizer."""

    needs: Sequence[Need] = ()
    frozen: Mapping[str, int] = {}  # bytes of what is held and not trained, by name
    keeps_gradients: bool = False  # they are there when an update begins
    shared: Mapping[str, str] = {}  # what has no weights of its own, or has: by name
    answers: bool = False  # whether the first network answers prompts, for which it is whole

    def updating(self, needs: Sequence[Need], several: bool) -> Memory:
        """With the needs of updates, of several forward passes each or of one."""
        return self._replace(needs=needs, keeps_gradients=self.keeps_gradients or several)


def peak_bytes(
    trained: Sequence[Held],
    frozen: Mapping[str, int],
    needs: Sequence[Need],
    kept_gradients: bool,
    placement: Placement = ALONE,
    answers: bool = False,
) -> int:
    """The most that is in the memory of a device at once.

    Args:
        trained: networks that learn.
        frozen: bytes of what is there all the time beside them, by name.
        needs: of the parts of the run, of which one is at work at a time; gradients are made at the
            end of the one called "update", while its tensors go.
        kept_gradients: gradients are there when an update begins: of micro-batches before it.
        placement: how all of it is spread.
        answers: the first network answers prompts, for which ``fsdp2`` has all of it.
    """
    frozen = cut_frozen(trained, frozen, placement)
    trained = [network.cut(placement.tensor) for network in trained]
    weights = sum(network.weights for network in trained)
    gradients = sum(network.gradients for network in trained)
    moments = sum(network.moments for network in trained)
    still = sum(size for name, size in frozen.items() if name in NETWORKS)
    always = sum(frozen.values()) - still + still // placement.frozen
    if placement.wholes:
        always -= (average := frozen.get(AVERAGE, 0)) - average // placement.moments
    always += weights // placement.weights + moments // placement.moments
    if placement.buckets:
        always += gradients
    if placement.copied:
        always += gradients // placement.moments  # as many bytes as the weights that learn
    parts = {"step": gradients // placement.gradients}
    for need in needs:
        parts[need.part] = parts.get(need.part, 0) + need.bytes
    if kept_gradients and "update" in parts:
        parts["update"] += gradients // placement.gradients
    if placement.wholes:
        if answers:
            parts["sampling"] = parts.get("sampling", 0) + trained[0].weights
        parts["reward"] = frozen.get("reward", 0) if placement.frozen > 1 else 0
        # two layers, and what is in none: their weights and gradients
        blocks = 2 * max((network.block for network in trained), default=0)
        layers = 2 * (blocks + sum(network.rest for network in trained))
        for part in parts.keys() - {"step", "sampling", "reward"}:
            parts[part] += layers
    return always + max(parts.values())


def cut_frozen(
    trained: Sequence[Held], frozen: Mapping[str, int], placement: Placement
) -> dict[str, int]:
    """Bytes of what is frozen, where devices cut its layers: as much of it as of the policy.

    Args:
        trained: networks that learn, first the policy.
        frozen: bytes by name.
        placement: how all of it is spread.
    """
    if placement.tensor == 1 or not trained:
        return dict(frozen)
    cut = {AVERAGE} | (NETWORKS if placement.cuts_frozen else set())
    part = trained[0].cut(placement.tensor).weights / max(1, trained[0].weights)
    return {name: int(size * part) if name in cut else size for name, size in frozen.items()}


def process_bytes(most: bool = False) -> int:
    """What this process has in memory; 0 where the system does not say.

    Args:
        most: that it ever had, instead of now.
    """
    name = "VmHWM:" if most else "VmRSS:"
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(name)), 0)


class Plan(NamedTuple):
    """What a fit will need."""

    lines: list[tuple[str, str]]  # to print
    bytes: int  # of all that a run adds to the process
    beside: int  # what the process holds beside the run's networks: Python, libraries, rows
    before: int  # the most that the device held before training


def memory_plan(
    networks: Sequence[nn.Module],
    memory: Memory,
    device: torch.device,
    placement: Placement = ALONE,
) -> Plan:
    """The memory of a fit on each device, before it begins.

    Args:
        networks: that learn.
        memory: what else the stage needs.
        device: where they are; on a CPU, Python and the libraries are there too.
        placement: how they are spread over devices.
    """
    needs, frozen, kept_gradients, shared, answers = memory
    trained = [held(network) for network in networks]
    names = [type(network).__name__.removeprefix("FSDP") for network in networks]
    on_cpu, planning = device.type == "cpu", any(map(is_empty, networks))
    ours = sum(one.weights for one in trained) + sum(frozen.values())
    beside = max(0, process_bytes() - ours) if on_cpu and not planning else 0
    lines = [
        (
            name,
            f"{one.parameters:,} parameters, {one.trained:,} trained, "
            f"{mib(one.weights + one.gradients + one.moments)} with gradients and Adam"
            + spread(one.weights + one.gradients + one.moments, part_bytes(one, placement)),
        )
        for name, one in zip(names, trained, strict=True)
    ]
    for name, own in cut_frozen(trained, frozen, placement).items():
        share = placement.frozen if name in NETWORKS else 1
        share = placement.moments if name == AVERAGE and placement.wholes else share
        lines.append((f"{name}, frozen", mib(frozen[name]) + spread(frozen[name], own // share)))
    lines += shared.items()
    for part in dict.fromkeys(need.part for need in needs):
        parts = [f"{need.what} {mib(need.bytes)}" for need in needs if need.part == part]
        lines.append((f"memory of {part}", ", ".join(parts)))
    total = peak_bytes(trained, frozen, needs, kept_gradients, placement, answers)
    others = "without what the device's libraries take"
    if on_cpu:
        others = f"with {mib(beside)} of Python, libraries and data" if beside else "without Python"
        others += "; a CPU's allocator can keep as much again as comes and goes"
    each = f" on each device ({placement.name})" if placement.devices > 1 else ""
    lines.append(("memory in all", f"about {mib(total + beside)} at the peak{each}, {others}"))
    return Plan(lines, total, beside, 0 if planning else most_bytes(device))


def part_bytes(one: Held, placement: Placement) -> int:
    """What a device has between two steps of a network that learns, its gradients and Adam."""
    parts = placement.weights, placement.gradients, placement.moments
    one = one.cut(placement.tensor)
    copies = one.gradients if placement.copied else 0
    sizes = one.weights, one.gradients, one.moments + copies
    return sum(size // count for size, count in zip(sizes, parts, strict=True))


def spread(size: int, part: int) -> str:
    """What is said where a device has a part of something."""
    return f", {mib(part)} of it on each device" if part < size else ""


def is_empty(network: nn.Module) -> bool:
    """Whether a network has no weights, only their sizes."""
    return any(weight.is_meta for weight in network.parameters())


def most_bytes(device: torch.device) -> int:
    """The most that this process has had on a device so far; 0 where nobody says."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return process_bytes(most=True) if device.type == "cpu" else 0


def used_line(plan: Plan, used: int) -> tuple[str, str]:
    """What is said of the memory when training has ended.

    Args:
        plan: that was made before.
        used: the most that the device held.
    """
    planned = f"{mib(plan.bytes + plan.beside)} were planned"
    if used > plan.before and used > plan.bytes + plan.beside and plan.beside:
        planned += "; what is above is mostly what malloc keeps of freed tensors (docs/memory.md)"
    if used <= plan.before:  # the peak is not of training, which stayed below
        return "memory used", f"at most {mib(used)}, before training began; {planned}"
    return "memory used", f"{mib(used)} at the peak, {planned}"


def mib(size: int) -> str:
    """Bytes for people."""
    return f"{size / MIB:,.0f} MiB"
