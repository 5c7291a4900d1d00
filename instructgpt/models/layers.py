"""The layers of a network: which modules they are, and what comes after the last of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from instructgpt.models.flat_proof import evaluating
from instructgpt.models.forward import device_of
from instructgpt.types import UserError


def layers_of(network: PreTrainedModel, asked: str) -> list[nn.Module]:
    """The layers of a network in the order that it computes them in.

    Args:
        network: any, without an adapter.
        asked: the option that needs them, for the message.

    Raises:
        UserError: it has no list of as many modules as its configuration says.
    """
    count = int(network.config.get_text_config().num_hidden_layers)
    for module in network.modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return list(module)
    kind = network.config.model_type
    raise UserError(f"{asked}: '{kind}' has no list of its {count} layers, which is needed")


def called_modules(network: PreTrainedModel) -> list[nn.Module]:
    """The modules of a network in the order of their first call, as it reads two tokens.

    Args:
        network: any.
    """
    found: dict[nn.Module, None] = {}

    def note(module: nn.Module, _inputs: Any) -> None:
        found.setdefault(module)

    hooks = [module.register_forward_pre_hook(note) for module in network.modules()]
    tokens = torch.zeros(1, 2, dtype=torch.int64, device=device_of(network))
    try:
        with torch.no_grad(), evaluating(network):
            network(input_ids=tokens, use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return list(found)


def last_weights(network: PreTrainedModel, count: int, asked: str) -> list[nn.Parameter]:
    """The weights of the last layers, and of what is first computed after them: norms and heads.

    A head that shares its weights with the embedding, which comes before, is none of them.

    Args:
        network: any, without an adapter.
        count: of the layers.
        asked: the option that asks for so many, for the message.

    Raises:
        UserError: there are fewer layers.
    """
    layers = layers_of(network, asked)
    if count > len(layers):
        kind = network.config.model_type
        raise UserError(f"{asked} must be at most the {len(layers)} of '{kind}', got {count}")
    order = called_modules(network)
    first = order.index(layers[-count])
    before = {id(weight) for module in order[:first] for weight in module.parameters(recurse=False)}
    inside = [weight for layer in layers[-count:] for weight in layer.parameters()]
    after = [weight for module in order[first:] for weight in module.parameters(recurse=False)]
    found = {id(weight): weight for weight in [*inside, *after]}
    return [weight for name, weight in found.items() if name not in before]
