"""What a fit will need of memory, from the numbers of its configuration alone.

What is counted was read off autograd, layer by layer, and compared with measured peaks. What is not
counted: temporary tensors of single operations, buffers of communication, the gaps of a GPU's
allocator.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import PreTrainedModel

from instructgpt.functional.tiles import TILES
from instructgpt.models.forward import base_network, virtual_tokens
from instructgpt.models.layers import layers_of
from instructgpt.models.output_head import MOST_LOGITS, output_head
from instructgpt.models.quantized import packed_parameters
from instructgpt.models.transformers_private import attention_name
from instructgpt.modules.piece_sizes import Size
from instructgpt.types import UserError

MIB = 2**20
COMPOSED_GELU = {"quick_gelu"}
ADAM = 2  # moments of a weight
CPU_GAPS = 0.4
"""What glibc's malloc holds for tensors that come and go, beside what is in them; measured."""


class Shape(NamedTuple):
    """Numbers of a transformer."""

    layers: int
    width: int  # of the hidden state
    kv_width: int  # of the keys of a token, as of its values
    inner: int  # width inside the feed-forward part
    heads: int
    vocabulary: int
    width_kept: int  # tensors of the width that a layer keeps for its backward pass
    inner_kept: int  # tensors of the inner width
    eager: bool  # attention keeps the weights of all pairs of tokens
    recomputed: bool  # gradient checkpointing: layers keep their input alone


def shape_of(model: nn.Module) -> Shape:
    """Read the numbers off a model."""
    network: PreTrainedModel = base_network(model)
    config = network.config.get_text_config()
    heads = int(config.num_attention_heads)
    width = int(config.hidden_size)
    kv_heads = int(getattr(config, "num_key_value_heads", None) or heads)
    head = int(getattr(config, "head_dim", None) or width // heads)
    inner = getattr(config, "intermediate_size", None) or getattr(config, "n_inner", None)
    kind = getattr(config, "hidden_act", None) or getattr(config, "activation_function", "")
    gated = any("gate_proj" in name or "gate_up" in name for name, _ in network.named_modules())
    fused_norm = any(isinstance(module, nn.LayerNorm) for module in network.modules())
    dropout = any(isinstance(m, nn.Dropout) and m.p > 0 for m in network.modules())
    return Shape(
        layers=int(config.num_hidden_layers),
        width=width,
        kv_width=kv_heads * head,
        inner=int(inner or 4 * width),
        heads=heads,
        vocabulary=int(config.vocab_size),
        # norms, queries, attention's output twice, the residual; other norms keep one more
        width_kept=(7 if fused_norm else 8) + 2 * dropout,
        # in, activation, gate and product; or in and out; or the steps of a composed GELU
        inner_kept=4 if gated else 5 if kind in COMPOSED_GELU else 2,
        eager=attention_name(config) == "eager",
        recomputed=any(getattr(m, "gradient_checkpointing", False) for m in network.modules()),
    )


def learning_shape(model: nn.Module) -> Shape:
    """The numbers of the layers that gradients go through: all above the first trained weight.

    Args:
        model: in training.
    """
    shape, network = shape_of(model), base_network(model)
    embedding: Any = network.get_input_embeddings()
    if embedding.weight.requires_grad or virtual_tokens(model):
        return shape
    try:
        layers = layers_of(network, "")
    except UserError:  # an architecture that does not show them
        return shape
    learn = [any(weight.requires_grad for weight in layer.parameters()) for layer in layers]
    return shape._replace(layers=len(learn) - learn.index(True) if any(learn) else 0)


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


def head_bytes(policy: nn.Module, piece: Size, learns: bool) -> int:
    """Logits, as many as there are at once, with what is made of them.

    Args:
        policy: a causal language model.
        piece: of the rows of a forward pass.
        learns: whether there are gradients; else the entropy is asked for.
    """
    shape, head = shape_of(policy), output_head(policy)
    if head is None:  # of all tokens, with their softmax and its gradient, or the entropy's parts
        return logit_bytes(shape, piece.predicted, 3 if learns else 6)
    weight = head.layer.weight
    if head.tiled:
        places, ids = TILES.get(weight.device.type, TILES["cuda"])
        numbers = 2 * min(piece.predicted, places) * min(shape.vocabulary, ids)
    else:
        numbers = 4 * min(MOST_LOGITS, piece.predicted * shape.vocabulary)
    gradient = weight.numel() if learns and weight.requires_grad else 0
    return 4 * (numbers + gradient)


def update_needs(policy: nn.Module, piece: Size, precision: str) -> list[Need]:
    """Of a forward pass of a policy and its backward pass.

    Args:
        policy: that learns.
        piece: of the rows of the largest one.
        precision: of the trainer.
    """
    size = number_size(precision, policy)
    return [
        Need("update", "activations", activation_bytes(learning_shape(policy), piece, size)),
        Need("update", "head", head_bytes(policy, piece, learns=True)),
    ]


WITHOUT_ADAPTER = {"reference": "the policy with its adapter off, no copy"}


class Memory(NamedTuple):
    """What a stage needs of memory beside its networks and its optimizer."""

    needs: Sequence[Need] = ()
    frozen: Mapping[str, int] = {}  # bytes of what is held and not trained, by name
    keeps_gradients: bool = False  # they are there when an update begins
    shared: Mapping[str, str] = {}  # what has no weights of its own, or has: by name

    def updating(self, needs: Sequence[Need], several: bool) -> Memory:
        """With the needs of updates, of several forward passes each or of one."""
        return self._replace(needs=needs, keeps_gradients=self.keeps_gradients or several)


class Held(NamedTuple):
    """What a network has in memory all the time, and its gradients."""

    parameters: int
    trained: int
    weights: int  # bytes
    gradients: int

    @property
    def moments(self) -> int:
        """Bytes of Adam's state."""
        return ADAM * self.gradients


def held(network: nn.Module) -> Held:
    """Count a network."""
    parameters = list(network.parameters())
    trained = [p for p in parameters if p.requires_grad]
    return Held(
        sum(p.numel() for p in parameters) + packed_parameters(network),
        sum(p.numel() for p in trained),
        sum(p.numel() * p.element_size() for p in parameters),
        sum(p.numel() * p.element_size() for p in trained),
    )


def bytes_beside(network: nn.Module, other: nn.Module) -> int:
    """Bytes of the weights of a network that are not also those of another one."""
    there = {id(weight) for weight in other.parameters()}
    shared = [weight for weight in network.parameters() if id(weight) in there]
    return held(network).weights - sum(one.numel() * one.element_size() for one in shared)


def peak_bytes(
    trained: Sequence[Held],
    others: int,
    needs: Sequence[Need],
    kept_gradients: bool,
    gaps: float,
) -> int:
    """The most that is in memory at once.

    Args:
        trained: networks that learn.
        others: bytes that are there all the time beside them.
        needs: of the parts of the run, of which one is at work at a time; gradients are made at the
            end of the one called "update", while its tensors go.
        kept_gradients: gradients are there when an update begins: of micro-batches before it.
        gaps: what the allocator wastes, as a share of what comes and goes, gradients included.
    """
    gradients = round(sum(network.gradients for network in trained) * (1 + gaps))
    parts: dict[str, int] = {"gradients": gradients}
    for need in needs:
        parts[need.part] = parts.get(need.part, 0) + round(need.bytes * (1 + gaps))
    if kept_gradients and "update" in parts:
        parts["update"] += gradients
    always = sum(network.weights + network.moments for network in trained) + others
    return always + max(parts.values())


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


def memory_plan(networks: Sequence[nn.Module], memory: Memory, device: torch.device) -> Plan:
    """The memory of a fit, before it begins.

    Args:
        networks: that learn.
        memory: what else the stage needs.
        device: where they are; on a CPU, Python and the libraries are there too.
    """
    needs, frozen, kept_gradients, shared = memory
    trained = [held(network) for network in networks]
    names = [type(network).__name__ for network in networks]
    on_cpu = device.type == "cpu"
    ours = sum(one.weights for one in trained) + sum(frozen.values())
    beside = max(0, process_bytes() - ours) if on_cpu else 0
    lines = [
        (
            name,
            f"{one.parameters:,} parameters, {one.trained:,} trained, "
            f"{mib(one.weights + one.gradients + one.moments)} with gradients and Adam",
        )
        for name, one in zip(names, trained, strict=True)
    ]
    lines += [(f"{name}, frozen", mib(size)) for name, size in frozen.items()]
    lines += shared.items()
    for part in dict.fromkeys(need.part for need in needs):
        parts = [f"{need.what} {mib(need.bytes)}" for need in needs if need.part == part]
        lines.append((f"memory of {part}", ", ".join(parts)))
    gaps = CPU_GAPS if on_cpu else 0.0
    total = peak_bytes(trained, sum(frozen.values()), needs, kept_gradients, gaps)
    others = "without what the device's libraries take"
    if on_cpu:
        others = f"with {mib(beside)} of Python, libraries and data, and the allocator's gaps"
    lines.append(
        ("memory in all", f"about {mib(total + beside)} at the peak, {others}; {ACCURACY}")
    )
    return Plan(lines, total, beside, most_bytes(device))


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
    if used <= plan.before:  # the peak is not of training, which stayed below
        return "memory used", f"at most {mib(used)}, before training began; {planned}"
    return "memory used", f"{mib(used)} at the peak, {planned}"


ACCURACY = "an estimate; docs/memory.md compares, and says where it is too low (LoRA)"


def mib(size: int) -> str:
    """Bytes for people."""
    return f"{size / MIB:,.0f} MiB"


def number_size(precision: str, network: nn.Module) -> int:
    """Bytes of a number in a forward pass.

    Args:
        precision: of the trainer, such as bf16-mixed.
        network: whose weights decide otherwise.
    """
    if "16" in precision:
        return 2
    return torch.finfo(next(network.parameters()).dtype).bits // 8
