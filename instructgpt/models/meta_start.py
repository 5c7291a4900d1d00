"""Networks that start on the meta device, of which each process then reads its part of the file."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, cached_file

from instructgpt.models.digest import DIGEST, tensor_digest
from instructgpt.models.finite import first_not_finite
from instructgpt.models.transformers_private import keeps_float32
from instructgpt.terminal import say
from instructgpt.types import UserError

STORED = "stored"
"""Attribute of a weight on the meta device: where its numbers are."""
META = torch.device("meta")
DRAWS = {torch.rand, torch.rand_like, torch.randn, torch.randn_like, torch.randint, torch.normal}


class NotHereError(Exception):
    """Why a network cannot start on the meta device."""


class StoredTensor(NamedTuple):
    """A tensor in a file, and the number format that it is loaded in."""

    file: str
    name: str
    dtype: torch.dtype

    def read_into(self, target: Tensor, part: tuple[slice, ...] = ()) -> None:
        """Copy a part of it, of which nothing else is read.

        Args:
            target: as large as the part.
            part: of its dimensions; none: all of it.
        """
        with safe_open(self.file, "pt") as opened:  # closed after each: its pages are let go
            if not target.dim():
                found = opened.get_tensor(self.name)
            else:
                found = opened.get_slice(self.name)[part or slice(None)]
            target.copy_(found.to(self.dtype))


@dataclass
class StartTogether:
    """The processes that start networks together.

    Args:
        rank: of this process, of all.
        place: among the processes of its machine, which share the work of looking at all weights.
        places: how many those are.
        gather: what every process has to say, on every process.
    """

    rank: int
    place: int
    places: int
    gather: Callable[[Any], list[Any]]
    built: list[nn.Module] = field(default_factory=list)


_STARTING: ContextVar[StartTogether | None] = ContextVar("starting", default=None)


class _WhereTheyAre(TorchFunctionMode):
    """Whatever is moved, what is on the meta device stays there, and nothing else comes there.

    Peft moves new adapters to the device of the layer, where their first values would be lost.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """The result, of a move the tensor in its new number format."""
        kwargs = kwargs or {}
        if func is Tensor.to:
            given = [*args[1:], *kwargs.values()]
            given += [
                a for one in given if isinstance(one, Tensor) for a in (one.device, one.dtype)
            ]
            places = [torch.device(one) for one in given if isinstance(one, str | torch.device)]
            if args[0].is_meta or META in places:
                formats = [one for one in given if isinstance(one, torch.dtype)]
                args, kwargs = (args[0], *(formats[:1] or [args[0].dtype])), {}
        return func(*args, **kwargs)


class _Drawing(TorchFunctionMode):
    """Whether tensors of random numbers are made, wherever: weights drawn later would be others."""

    seen = False

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """The result."""
        self.seen |= func in DRAWS
        return func(*args, **(kwargs or {}))


@contextmanager
def starting(start: StartTogether) -> Iterator[None]:
    """Within the context networks are built without weights, where that can be done.

    Args:
        start: told of each of them; every process must build the same.
    """
    token = _STARTING.set(start)
    try:
        with _WhereTheyAre():
            yield
    finally:
        _STARTING.reset(token)


@contextmanager
def where_they_are() -> Iterator[None]:
    """Within the context moving a network leaves those of its weights that are not there yet."""
    with _WhereTheyAre():
        yield


def say_whole(what: str, reason: str) -> None:
    """Say once why every process begins with all of a network, where it need not elsewhere.

    Args:
        what: network.
        reason: why.
    """
    start = _STARTING.get()
    if start is None or start.rank == 0:
        say(f"{what}: every process first has all of it, because {reason}")


def start_on_meta(
    build: Callable[[], PreTrainedModel],
    folder: Path | str,
    source: str,
    dtype: torch.dtype,
    obstacle: str | None,
) -> PreTrainedModel | None:
    """A network without weights that knows where they are; None: it is to be loaded at once.

    Args:
        build: makes the network, with weights of any kind.
        folder: with its files, or a hub id.
        source: what the user named, for messages.
        dtype: of its weights.
        obstacle: what is known to be in the way.

    Raises:
        UserError: weights are not finite, or not the same on all machines.
    """
    start = _STARTING.get()
    if start is None:
        return None
    try:
        if obstacle is not None:
            raise NotHereError(obstacle)
        model = _empty(build)
        places = _places(model, folder, dtype)
    except NotHereError as error:
        say_whole(f"'{source}'", str(error))
        return None
    _know(places, _look_at(places, start, source))
    for name, buffer in model.named_buffers():
        if name in places:
            places[name][1].read_into(buffer)
    start.built.append(model)
    return model


def _empty(build: Callable[[], PreTrainedModel]) -> PreTrainedModel:
    """The network with its buffers, which follow from its configuration, and no weights."""

    def emptied(_module: nn.Module, _name: str, weight: nn.Parameter | None) -> Any:
        if weight is None or weight.is_meta:
            return None
        return nn.Parameter(torch.empty_like(weight, device=META), weight.requires_grad)

    hook = register_module_parameter_registration_hook(emptied)
    try:
        with torch.random.fork_rng(devices=[]), _Drawing() as drawing:
            before = torch.get_rng_state()
            model = build()
        if drawing.seen or not torch.equal(before, torch.get_rng_state()):
            raise NotHereError(f"'{model.config.model_type}' draws numbers as it is loaded")
        return model
    except (UserError, NotImplementedError, RuntimeError) as error:
        raise NotHereError(f"it cannot be built without weights ({error})") from error
    finally:
        hook.remove()


def _places(
    model: PreTrainedModel, folder: Path | str, dtype: torch.dtype
) -> dict[str, tuple[Tensor, StoredTensor]]:
    """Where each weight and stored buffer is, by its first name."""
    kind = model.config.model_type
    if get_model_conversion_mapping(model, add_legacy=False):
        raise NotHereError(f"transformers changes weights of '{kind}' as it loads them")
    if dtype != torch.float32 and keeps_float32(model):
        raise NotHereError(f"some weights of '{kind}' stay in float32")
    shapes, files = dict[str, list[int]](), _files(folder)
    for file in dict.fromkeys(files.values()):
        with safe_open(file, "pt") as opened:
            shapes |= {name: opened.get_slice(name).get_shape() for name in opened.keys()}  # noqa: SIM118
    found: dict[str, tuple[Tensor, StoredTensor]] = {}
    first: dict[int, str] = {}  # tied weights have several names, of which one is in the file
    for name, tensor in _stored_tensors(model):
        prefix = f"{model.base_model_prefix}."
        names = (name, prefix + name, name.removeprefix(prefix))
        key = next((one for one in names if one in files), None)
        known = first.get(id(tensor))
        if key is None or list(tensor.shape) != shapes.get(key):
            continue
        if known is not None and known in found:
            raise NotHereError(f"its file holds '{known}' and '{name}', which are one")
        first[id(tensor)] = name
        found[name] = (tensor, StoredTensor(files[key], key, tensor.dtype))
    absent = [name for name, tensor in _stored_tensors(model) if id(tensor) not in first]
    if absent:  # which is said better by who loads it
        raise NotHereError(f"its file has no '{absent[0]}' of the right shape")
    return found


def _stored_tensors(model: nn.Module) -> list[tuple[str, Tensor]]:
    kept = model.state_dict().keys()
    named = [
        *model.named_parameters(remove_duplicate=False),
        *model.named_buffers(remove_duplicate=False),
    ]
    return [(name, tensor) for name, tensor in named if name in kept]


def _files(folder: Path | str) -> dict[str, str]:
    """The file of each tensor."""
    try:
        index = cached_file(folder, SAFE_WEIGHTS_INDEX_NAME)
    except OSError:
        index = None
    try:
        if index is not None:
            listed = json.loads(Path(index).read_text(encoding="utf-8"))["weight_map"]
            paths = {one: str(cached_file(folder, one)) for one in dict.fromkeys(listed.values())}
            return {name: paths[one] for name, one in listed.items()}
        path = str(cached_file(folder, SAFE_WEIGHTS_NAME))
        with safe_open(path, "pt") as opened:
            return dict.fromkeys(opened.keys(), path)
    except OSError as error:
        raise NotHereError("it has no safetensors") from error


def _look_at(
    places: Mapping[str, tuple[Tensor, StoredTensor]], start: StartTogether, source: str
) -> dict[str, str]:
    """Digests of all weights: each process looks at some, one after the other."""
    by_size = sorted(places, key=lambda name: (-places[name][0].numel(), name))
    mine, bad = dict[str, str](), None
    for name in by_size[start.place :: start.places]:
        tensor, stored = places[name]
        whole = torch.empty(tensor.shape, dtype=tensor.dtype)
        stored.read_into(whole)
        mine[name] = tensor_digest(whole)
        bad = bad or first_not_finite([(name, whole)])
    digests: dict[str, str] = {}
    found = start.gather((mine, bad))
    if bad := next((one for _, one in found if one is not None), None):
        raise UserError(
            f"init_from: '{source}': weights must be finite, '{bad}' holds NaN or infinity"
        )
    for theirs, _ in found:
        for name, digest in theirs.items():
            if digests.setdefault(name, digest) != digest:
                raise UserError(
                    f"init_from: '{source}' must be the same on all machines, '{name}' is not"
                )
    return digests


def _know(places: Mapping[str, tuple[Tensor, StoredTensor]], digests: Mapping[str, str]) -> None:
    for name, (tensor, stored) in places.items():
        setattr(tensor, STORED, stored)
        setattr(tensor, DIGEST, digests[name])


def own_slices(tensor: DTensor) -> tuple[slice, ...]:
    """The part of a tensor that is on this rank: cut into layers' parts first, then into rows.

    Args:
        tensor: that is spread over ranks.
    """
    mesh = tensor.device_mesh
    ends = [(0, length) for length in tensor.shape]
    for number, placement in reversed(list(enumerate(tensor.placements))):
        dim = getattr(placement, "dim", None)
        if dim is not None:  # it is no copy
            first, end = ends[dim]
            share = -(-(end - first) // mesh.size(number))  # of all ranks but the last
            first = min(first + mesh.get_local_rank(number) * share, end)
            ends[dim] = first, min(first + share, end)
    return tuple(slice(*pair) for pair in ends)


class Waiting(NamedTuple):
    """A weight that is to be read, wherever the module then has it."""

    module: nn.Module
    name: str
    stored: StoredTensor


def waiting(network: nn.Module) -> list[Waiting]:
    """The weights of a network that are not there yet.

    Args:
        network: not spread over ranks yet, which forgets where they are.
    """
    return [
        Waiting(module, name, getattr(weight, STORED))
        for module in network.modules()
        for name, weight in module.named_parameters(recurse=False, remove_duplicate=False)
        if weight.is_meta and hasattr(weight, STORED)
    ]


@torch.no_grad()
def read(weights: list[Waiting], device: torch.device) -> None:
    """Read weights, of those that are spread over ranks by now the part of this one.

    Args:
        weights: of ``waiting``.
        device: where they are to be.
    """
    made: dict[nn.Parameter, nn.Parameter] = {}  # tied weights are read once, and stay one
    for module, name, stored in weights:
        empty: nn.Parameter = getattr(module, name)
        if empty not in made and empty.is_meta:
            value = torch.empty_like(empty, device=device)
            if not isinstance(value, DTensor):
                stored.read_into(value)
            elif (part := value.to_local()).numel():
                stored.read_into(part, own_slices(value))
            made[empty] = nn.Parameter(value, empty.requires_grad)
        if empty in made:
            setattr(module, name, made[empty])
