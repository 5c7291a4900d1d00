"""Telling whether weights are the same, wherever they lie."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor, nn

DIGEST = "digest"
"""Attribute of a weight on the meta device whose numbers are elsewhere: what they are named."""


def weights_digest(network: nn.Module, *facts: str) -> str:
    """Name the weights of a network: equal for equal parameters, whatever file they came from.

    Args:
        network: whose parameters and stored buffers count, by name, dtype, shape and bytes.
        facts: what else decides the result, such as the fingerprint of a tokenizer.
    """
    stored = network.state_dict().keys()
    buffers = [(name, buffer) for name, buffer in network.named_buffers() if name in stored]
    tensors = sorted([*network.named_parameters(), *buffers], key=lambda pair: pair[0])
    whole = hashlib.sha256()
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # hashing lets go of the interpreter
        for (name, tensor), digest in zip(
            tensors, pool.map(lambda pair: tensor_digest(pair[1]), tensors), strict=True
        ):
            whole.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} {digest}\n".encode())
    whole.update("\n".join(facts).encode())
    return whole.hexdigest()[:16]


def tensor_digest(tensor: Tensor) -> str:
    """Name the numbers of a tensor; those of a plan have no name.

    Args:
        tensor: of any kind, on any device.
    """
    if tensor.is_meta:
        return str(getattr(tensor, DIGEST, ""))
    flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return hashlib.sha256(flat.numpy().data).hexdigest()
