"""Networks whose weights are spread over ranks (FSDP2), and their weights as wholes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor

from instructgpt.models.forward import base_network
from instructgpt.models.heads import ScalarModel
from instructgpt.models.layers import layers_of
from instructgpt.models.meta_start import own_slices, read, waiting
from instructgpt.models.shard_calls import CALL
from instructgpt.models.tensor_parallel import cut_layers
from instructgpt.types import UserError


def shard(network: nn.Module, mesh: DeviceMesh) -> None:
    """Spread the weights of a network over ranks, each layer and the rest by themselves.

    A layer is gathered when it is called and let go behind it, forward and backward, where its
    gradient is exchanged; the rest is there until the gradient or ``release`` comes. So every rank
    must call the network equally often, unless all of it is there by ``gather``.

    Args:
        network: the same on every rank; changed in place. Where it has started on the meta device,
            each rank reads its part.
        mesh: of all ranks; of two dimensions, [data, tensor], where layers are cut over the second.
    """
    absent = waiting(network)
    if mesh.ndim > 1:
        cut_layers(network, mesh["tensor"])
        mesh = mesh["data"]
    for layer in layers_apart(network):
        fully_shard(layer, mesh=mesh, reshard_after_forward=True)
    # An offset that is not trained is set by hand, on every rank.
    by_hand = {p for p in network.parameters() if p.numel() == 1 and not p.requires_grad}
    fully_shard(network, mesh=mesh, reshard_after_forward=False, ignored_params=by_hand)
    read(absent, torch.device(mesh.device_type))
    # What a backward pass needs next is gathered beside it. Left alone, FSDP2 takes what was called
    # before, also in calls that other ranks did not have.
    root, *layers = shards_of([network])
    for before, part in pairwise([*layers[-1:], root, *layers]):
        part.set_modules_to_backward_prefetch([before])
    setattr(network, CALL, MethodType(_call, network))
    register_fsdp_forward_method(network, CALL)
    with torch.no_grad():  # the root must be the first that is called
        getattr(network, CALL)(lambda: None)
    release([network])


def _call(_network: nn.Module, function: Callable[[], Any]) -> Any:
    return function()


def layers_apart(network: nn.Module) -> list[nn.Module]:
    """The layers of a network that are gathered by themselves; none of what lists no layers.

    Args:
        network: any.
    """
    trunk = network.trunk if isinstance(network, ScalarModel) else network
    try:
        return layers_of(base_network(trunk), "")
    except (UserError, AssertionError):  # a head, or an architecture that lists no layers
        return []


def shards_of(networks: Iterator[nn.Module] | list[nn.Module]) -> list[FSDPModule]:
    """The parts that gather by themselves, each network before its layers."""
    return [m for network in networks for m in network.modules() if isinstance(m, FSDPModule)]


def gather(networks: list[nn.Module]) -> None:
    """Have all weights of networks on every rank until ``release``; every rank must call this."""
    for part in shards_of(networks):
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()


def release(networks: list[nn.Module]) -> None:
    """Let go of the weights that belong to other ranks, from now on layer by layer."""
    for network in networks:
        for depth, part in enumerate(shards_of([network])):
            part.set_reshard_after_forward(depth > 0, recurse=False)
            part.reshard()


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor that is spread over ranks; every rank must call this."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def local(tensor: Tensor) -> Tensor:
    """What is on this rank of a tensor that may be spread."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def part_of(tensor: Tensor, like: Tensor) -> Tensor:
    """This rank's part of a tensor that is there as a whole, where ``like`` is such a part."""
    if not isinstance(like, DTensor) or isinstance(tensor, DTensor) or tensor.shape != like.shape:
        return tensor
    part = tensor[own_slices(like)].to(like.device).contiguous()
    place = like.device_mesh, like.placements
    return DTensor.from_local(
        part, *place, run_check=False, shape=tensor.shape, stride=tensor.stride()
    )


def alike(tensors: Iterable[Tensor]) -> list[list[Tensor]]:
    """Tensors in lists of those that are spread in one way, which torch can do together.

    Args:
        tensors: any, or weights, by which their gradients are.
    """
    apart: dict[Any, list[Tensor]] = {}
    for tensor in tensors:
        apart.setdefault(getattr(tensor, "device_mesh", None), []).append(tensor)
    return list(apart.values())


def norm_of_parts(tensors: Iterable[Tensor]) -> Tensor:
    """The norm of all tensors as one, which may be spread in several ways.

    Args:
        tensors: at least one; every rank must call this.
    """
    norms = [nn.utils.get_total_norm(some) for some in alike(tensors)]
    if len(norms) == 1:
        return norms[0]
    norm: Tensor = torch.linalg.vector_norm(torch.stack([whole(norm) for norm in norms]))
    return norm


def outline(network: nn.Module) -> nn.Module:
    """A copy of a network without weights, which takes no memory; tied ones are still one.

    Args:
        network: not spread over ranks yet.
    """
    weights = dict.fromkeys(network.parameters())
    empty = {
        id(p): nn.Parameter(torch.empty_like(p, device="meta"), requires_grad=p.requires_grad)
        for p in weights
    }
    return copy.deepcopy(network, empty)


@torch.no_grad()
def filled(outline: nn.Module, network: nn.Module, here: bool) -> nn.Module:
    """A plain network with the weights that are spread over ranks; every rank must call this.

    Args:
        outline: of the network.
        network: with the weights.
        here: whether this rank keeps them; else they pass by, one after the other.
    """
    places = dict(outline.named_modules(remove_duplicate=False))
    known: dict[int, nn.Parameter] = {}
    for name, weight in network.named_parameters(remove_duplicate=False):
        if id(weight) not in known:
            everything = whole(weight.detach()).cpu()
            made = everything if here else torch.empty_like(everything, device="meta")
            known[id(weight)] = nn.Parameter(made, requires_grad=weight.requires_grad)
        place, _, own = name.rpartition(".")
        setattr(places[place], own, known[id(weight)])
    for name, buffer in network.named_buffers():
        place, _, own = name.rpartition(".")
        setattr(places[place], own, buffer.cpu())
    return outline
