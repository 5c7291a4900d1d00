"""Checkpoints of which each process writes its part: safetensors in a folder beside the file."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from instructgpt.models.folder import sync_folder, sync_tree
from instructgpt.types import UserError

SHARDS = "shards"
"""Folder beside the checkpoint files, and key in them that says where the tensors of each are."""
MODEL, OPTIMIZER, AVERAGE = "model.", "optimizer.", "average."


def write_shards(tensors: Mapping[str, Tensor], folder: Path) -> dict[str, Any]:
    """Write tensors, each process its parts; every process must call this.

    Args:
        tensors: parts, or wholes that are the same on every process.
        folder: that is not there yet.

    Returns:
        What the checkpoint file says of it: the folder, and the bytes of each file.
    """
    writer = dcp.HuggingFaceStorageWriter(str(folder), save_distributed=True)
    try:
        dcp.save(dict(tensors), storage_writer=writer)
    except dcp.CheckpointException as error:
        first = next(iter(error.failures.values()))[0]
        raise UserError(f"{folder} cannot be written: {first}") from error
    sync_tree(folder)
    sync_folder(folder.parent)
    files = {file.name: file.stat().st_size for file in sorted(folder.iterdir())}
    return {"folder": folder.name, "files": files}


def read_shards(
    folder: Path, prefix: str, like: Callable[[str], Tensor | None] | None = None
) -> dict[str, Tensor]:
    """Read tensors, on any number of processes.

    Args:
        folder: that ``write_shards`` has written.
        prefix: of the names to read, which is left out in the result.
        like: by the name without prefix, what is spread over processes as the tensor is to be;
            every process must then call this. None: this process reads all of it alone.
    """
    reader = dcp.HuggingFaceStorageReader(str(folder))
    targets: dict[str, Any] = {}
    for name, about in reader.read_metadata().state_dict_metadata.items():
        if name.startswith(prefix):
            assert isinstance(about, TensorStorageMetadata)
            own = like(name.removeprefix(prefix)) if like is not None else None
            dtype = about.properties.dtype
            if own is not None and own.shape == about.size:
                targets[name] = torch.empty_like(own, dtype=dtype, requires_grad=False)
            else:
                targets[name] = torch.empty(about.size, dtype=dtype)
    dcp.load(targets, storage_reader=reader, no_dist=like is None)
    return {name.removeprefix(prefix): tensor for name, tensor in targets.items()}


def read_weights(
    content: Mapping[str, Any], path: Path, like: Callable[[str], Tensor | None] | None = None
) -> dict[str, Tensor]:
    """The weights of a checkpoint; arguments as for ``read_shards``.

    Args:
        content: of the file.
        path: of it.
        like: as for ``read_shards``.
    """
    weights = read_shards(folder_of(content, path), MODEL, like)
    tied = content[SHARDS]["tied"]
    return weights | {name: weights[other] for name, other in tied.items()}


def whole_again(content: dict[str, Any], path: Path) -> dict[str, Any]:
    """A checkpoint with all of its tensors, which its file may only name.

    Args:
        content: of the file.
        path: of it.
    """
    if SHARDS not in content:
        return content
    content["state_dict"] = read_weights(content, path)
    put_average(content, path)
    known = read_shards(folder_of(content, path), OPTIMIZER)
    for number, state in enumerate(content.get("optimizer_states", [])):
        put_states(state, number, known)
    return content


def take_tensors(content: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Take weights, their average and optimizer state out of a checkpoint.

    Args:
        content: with the parameters themselves; changed.

    Returns:
        Tensors by the names they are written under, and names of weights that are others.
    """
    taken, tied, first = dict[str, Tensor](), dict[str, str](), dict[int, str]()
    for name, value in content.pop("state_dict").items():
        if (other := first.setdefault(id(value), name)) != name:
            tied[name] = other
        else:
            taken[f"{MODEL}{name}"] = value.detach()
    for name, value in (average := average_of(content)).items():
        taken[f"{AVERAGE}{name}"] = value
    average.clear()
    for number, found in enumerate(content.get("optimizer_states", [])):
        for weight, state in found["state"].items():
            for name in [name for name, value in state.items() if isinstance(value, Tensor)]:
                taken[f"{OPTIMIZER}{number}.{weight}.{name}"] = state.pop(name)
    return taken, tied


def average_of(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """The average of the policy in a checkpoint of PPO, if it keeps one, as it stands there."""
    average: dict[str, Tensor] | None = content.get("ppo", {}).get("average")
    return {} if average is None else average


def put_average(
    content: Mapping[str, Any], path: Path, like: Callable[[str], Tensor | None] | None = None
) -> None:
    """Put the average of the policy back that ``take_tensors`` has taken.

    Args:
        content: of the file; changed.
        path: of it.
        like: as for ``read_shards``, by the name of the policy's weight.
    """
    if content.get("ppo", {}).get("average") == {}:
        average_of(content).update(read_shards(folder_of(content, path), AVERAGE, like))


def put_states(found: dict[str, Any], number: int, known: Mapping[str, Tensor]) -> None:
    """Put tensors back into the state of an optimizer.

    Args:
        found: of the optimizer; changed.
        number: of the optimizer.
        known: by the name that ``take_tensors`` gave it, without prefix.
    """
    for name, value in known.items():
        optimizer, weight, entry = name.split(".", 2)
        if int(optimizer) == number:
            found["state"].setdefault(int(weight), {})[entry] = value


def folder_of(content: Mapping[str, Any], path: Path) -> Path:
    """Where the tensors of a checkpoint are."""
    return path.parent / SHARDS / Path(str(content[SHARDS]["folder"])).name


def new_folder(path: Path, step: int) -> Path:
    """A folder for the tensors of a checkpoint that no file names."""
    number = 0
    while (folder := path.parent / SHARDS / f"{path.stem}-{step}-{number}").exists():
        number += 1
    return folder


def damage_of_shards(path: Path) -> str | None:
    """What is wrong with the tensors that a checkpoint file names; None if they are there."""
    if not (path.parent / SHARDS).is_dir():
        return None
    content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    if SHARDS not in content:
        return None
    folder = folder_of(content, path)
    for name, size in content[SHARDS]["files"].items():
        file = folder / Path(str(name)).name
        if not file.is_file() or file.stat().st_size != size:
            return f"is damaged ({file} must have {size:,} bytes)"
    return None


def remove_unnamed(folder: Path) -> None:
    """Remove tensors that no checkpoint file of a folder names any more."""
    if not (folder / SHARDS).is_dir():
        return
    named = set()
    for path in folder.glob("*.ckpt"):
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        if SHARDS in content:
            named.add(folder_of(content, path).name)
    for one in (folder / SHARDS).iterdir():
        if one.name not in named:
            shutil.rmtree(one, ignore_errors=True)
