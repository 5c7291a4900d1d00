"""The numbers of a transformer that its memory and its arithmetic follow from."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import PreTrainedModel

from instructgpt.models.forward import base_network, virtual_tokens
from instructgpt.models.layers import layers_of
from instructgpt.models.transformers_private import attention_name
from instructgpt.types import UserError

COMPOSED_GELU = {"quick_gelu"}


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


def number_size(precision: str, network: nn.Module) -> int:
    """Bytes of a number in a forward pass.

    Args:
        precision: of the trainer, such as bf16-mixed.
        network: whose weights decide otherwise.
    """
    if "16" in precision:
        return 2
    return torch.finfo(next(network.parameters()).dtype).bits // 8
