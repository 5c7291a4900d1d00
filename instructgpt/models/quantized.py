"""Weights that do not learn, in 8 or 4 bits: frozen networks, and what is under an adapter (QLoRA).

A product unpacks the weight of its layer and lets it go; the backward pass, which needs it for the
gradient of what went in, unpacks it again. So a network takes a quarter or a seventh of the memory
of float32, and arithmetic stays in the format of the activations. It is plain torch, on every
device: torchao (0.18) keeps the unpacked weight of every layer for the backward pass, which is what
was to be saved; bitsandbytes (0.50), once installed, is loaded by peft in every run with LoRA.
"""

from __future__ import annotations

from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers.pytorch_utils import Conv1D

from instructgpt.models.forward import base_network
from instructgpt.models.heads import ScalarModel

Model = TypeVar("Model", bound=nn.Module)
Quantization = Literal["int8", "nf4"]

BLOCK = 64
"""Weights of nf4 that share a scale."""
TINY = torch.finfo(torch.float32).tiny
LARGEST = 127.0  # of int8, the same on both sides of 0
NF4 = torch.tensor(
    [
        *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
        *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
        *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
        *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
    ]
)
"""Quantiles of a normal distribution, and 0 (arXiv:2305.14314, appendix E)."""
PAIRS = torch.stack([NF4.repeat_interleave(16), NF4.repeat(16)], 1)  # [256, 2] of a byte


class QuantizedLinear(nn.Module):
    """A linear layer whose weight is packed, and unpacked for each product.

    Args:
        layer: with the weight, which is let go.
        kind: int8: rounded, with a scale for each output; nf4: the nearest of 16 numbers, with a
            scale for each 64 weights.
    """

    def __init__(self, layer: nn.Linear | Conv1D, kind: Quantization) -> None:
        super().__init__()
        weight = layer.weight.detach()
        self.transposed = isinstance(layer, Conv1D)
        weight = weight.t().contiguous() if self.transposed else weight
        self.kind, self.shape, self.dtype = kind, weight.shape, weight.dtype
        pack = _pack_int8 if kind == "int8" else _pack_nf4
        packed, scales = pack(weight.float())
        self.packed = nn.Parameter(packed, requires_grad=False)
        # As bytes: no conversion of a network to another number format rounds them.
        self.scales = nn.Parameter(scales.view(torch.uint8), requires_grad=False)
        self.bias = layer.bias

    @property
    def weight(self) -> Tensor:
        """The weight, unpacked, [out, in]; as wide as it was."""
        return self.unpacked(self.dtype)

    def unpacked(self, dtype: torch.dtype) -> Tensor:
        """The weight, [out, in].

        Args:
            dtype: of the numbers.
        """
        scales = self.scales.view(torch.float32).to(dtype)
        if self.kind == "int8":
            return self.packed.to(dtype).mul_(scales)
        pairs = PAIRS.to(self.packed.device, dtype)
        blocks = nn.functional.embedding(self.packed.int(), pairs).view(-1, BLOCK).mul_(scales)
        return blocks.view(-1)[: self.shape.numel()].view(self.shape)

    def forward(self, inputs: Tensor) -> Tensor:
        """As of a linear layer."""
        device = inputs.device.type
        if torch.is_autocast_enabled(device):
            inputs = inputs.to(torch.get_autocast_dtype(device))
        with torch.autocast(device, enabled=False):
            output: Tensor = _Product.apply(inputs, self)
            return output if self.bias is None else output + self.bias.to(output.dtype)

    def plain(self) -> nn.Linear | Conv1D:
        """The layer that it was, with its weight as it is now."""
        weight, (outputs, inputs) = self.weight, self.shape
        with torch.device("meta"):
            layer = Conv1D(outputs, inputs) if self.transposed else nn.Linear(inputs, outputs)
        weight = weight.t().contiguous() if self.transposed else weight
        layer.weight, layer.bias = nn.Parameter(weight, requires_grad=False), self.bias
        return layer


class _Product(torch.autograd.Function):
    """Inputs times a weight that is unpacked in each pass."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, layer: QuantizedLinear) -> Tensor:
        """The product, [..., out]."""
        ctx.layer = layer
        return nn.functional.linear(inputs, layer.unpacked(inputs.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """The gradient of what went in; the weight has none."""
        return gradient @ ctx.layer.unpacked(gradient.dtype), None


def _pack_int8(weight: Tensor) -> tuple[Tensor, Tensor]:
    scales = weight.abs().amax(1, keepdim=True) / LARGEST
    rounded = (weight / scales.clamp_min(TINY)).round()
    return rounded.to(torch.int8), scales


def _pack_nf4(weight: Tensor) -> tuple[Tensor, Tensor]:
    flat = weight.flatten()
    blocks = nn.functional.pad(flat, (0, -len(flat) % BLOCK)).view(-1, BLOCK)
    scales = blocks.abs().amax(1, keepdim=True)
    borders = ((NF4[1:] + NF4[:-1]) / 2).to(weight.device)
    codes = torch.bucketize(blocks / scales.clamp_min(TINY), borders, out_int32=True)
    codes = codes.to(torch.uint8).view(-1, 2)
    return codes[:, 0] << 4 | codes[:, 1], scales


def quantize(model: Model, kind: Quantization | None) -> Model:
    """Pack the linear layers of a network that do not learn; all but those that make its outputs.

    Args:
        model: changed in place. What learns, embeddings, norms and heads stay as they are.
        kind: of numbers; None: nothing changes.

    Returns:
        The model.
    """
    if kind is None:
        return model
    network = base_network(model.trunk if isinstance(model, ScalarModel) else model)
    kept = network.get_output_embeddings()
    made: dict[nn.Module, nn.Module] = {}  # a layer can have several places
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            layer: Any = child
            if (
                type(layer) not in (nn.Linear, Conv1D) or layer is kept
            ):  # others have ways of theirs
                continue
            if not any(weight.requires_grad for weight in layer.parameters()):
                made[layer] = made.get(layer) or QuantizedLinear(layer, kind)
                setattr(module, name, made[layer])
    return model


def is_quantized(model: nn.Module) -> bool:
    """Whether a layer of a network is packed."""
    return any(isinstance(module, QuantizedLinear) for module in model.modules())


def unpack(model: Model) -> Model:
    """Turn packed layers into plain ones that compute the same, and return the model.

    Args:
        model: changed in place.
    """
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, QuantizedLinear):
                setattr(module, name, child.plain())
    return model


def packed_parameters(model: nn.Module) -> int:
    """How many weights of a network its packed numbers stand for beyond those they are kept in."""
    layers = [m for m in model.modules() if isinstance(m, QuantizedLinear)]
    return sum(one.shape.numel() - one.packed.numel() - one.scales.numel() for one in layers)
