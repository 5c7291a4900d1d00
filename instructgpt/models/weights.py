"""What a network is, whatever file it came from."""

from __future__ import annotations

import hashlib

import torch
from torch import nn
from transformers import PreTrainedModel


def network_hash(network: nn.Module) -> str:
    """Name a network by its weights and configurations; equal names mean equal answers.

    Args:
        network: any module, on any device.
    """
    digest = hashlib.sha256()
    for part in network.modules():
        if isinstance(part, PreTrainedModel):
            known = part.config.to_dict()
            known.pop("_name_or_path", None)  # where it lies says nothing about what it is
            digest.update(repr(sorted(known.items(), key=lambda item: item[0])).encode())
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]
