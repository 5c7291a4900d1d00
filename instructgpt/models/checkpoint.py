"""Checkpoint files: written whole beside what they replace, and read only where they are whole."""

from __future__ import annotations

import io
import os
import struct
import zipfile
import zlib
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from instructgpt.models.folder import make_folder, sync_file, sync_folder
from instructgpt.models.shard_files import damage_of_shards
from instructgpt.types import UserError

LAST, PREVIOUS = "last.ckpt", "previous.ckpt"
"""The newest state, and while a run goes on the one before it."""


UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    RuntimeError,
    UnpicklingError,
    struct.error,
    zlib.error,
)
"""What reading a damaged file raises."""


class Watched(io.FileIO):
    """A file to write that remembers what went wrong, which torch does not say."""

    error: BaseException | None = None

    def write(self, data: Any) -> int:
        """Write all of it."""
        rest = memoryview(data).cast("B")
        try:
            while rest:
                rest = rest[super().write(rest) :]
        except BaseException as error:
            self.error = error
            raise
        return len(data)


def save_checkpoint(content: dict[str, Any], path: Path) -> None:
    """Write a file, with checksums in it, that takes its place once it is safely on the disk.

    It is written in the same folder, never through a folder for temporary files. Until it is whole,
    and where that fails, what was there stays. A ``last.ckpt`` that is replaced becomes
    ``previous.ckpt``.

    Args:
        content: of the checkpoint.
        path: of the file; its folder is created.

    Raises:
        UserError: it cannot be written; the disk may be full.
    """
    partial, watched = partial_file(path), None
    try:
        make_folder(path.parent)
        with Watched(partial, "wb") as watched:
            torch.save(content, watched)
            sync_file(watched)
        if path.name == LAST and path.exists():
            _keep(path, path.with_name(PREVIOUS))
        partial.replace(path)
        sync_folder(path.parent)
    except (OSError, RuntimeError) as error:  # torch raises the latter whatever went wrong
        reason = (watched and watched.error) or error
        if not isinstance(reason, OSError):
            raise reason from None
        kept = f"; the {path.name} of before is still there" if path.exists() else ""
        raise UserError(f"{path} cannot be written: {reason.strerror or reason}{kept}") from error
    finally:
        partial.unlink(missing_ok=True)


def partial_file(path: Path) -> Path:
    """What a checkpoint is called until it is whole."""
    return path.with_name(f".{path.name}.partial")


def _keep(path: Path, previous: Path) -> None:
    """Give a file a second name, without a moment in which it has none."""
    link = partial_file(previous)
    try:
        link.unlink(missing_ok=True)
        os.link(path, link)
        link.replace(previous)
    except OSError:  # a file system without hard links
        path.replace(previous)


def damage(path: Path) -> str | None:
    """What is wrong with a file; None when all checksums in it are right."""
    if not path.is_file():
        return "is gone"
    try:
        with zipfile.ZipFile(path) as file:
            if (bad := file.testzip()) is not None:
                return f"is damaged (the checksum of {bad} is wrong)"
        return damage_of_shards(path)
    except zipfile.BadZipFile as error:
        return f"is damaged ({str(error)[:80].lower()})"
    except UNREADABLE as error:
        return f"cannot be read ({str(error)[:80]})"


def newest(folder: Path) -> tuple[Path, str]:
    """The newest whole state in a folder, and what to say where it is not ``last.ckpt``."""
    last, previous = folder / LAST, folder / PREVIOUS
    if (wrong := damage(last)) is None or damage(previous) is not None:
        return last, ""
    return previous, f"{last} {wrong}: going on from {previous}, the one before it"


def load_checkpoint(path: Path, option: str = "checkpoint") -> dict[str, Any]:
    """Read a checkpoint of a run.

    Args:
        path: of the file.
        option: that named it, for the message.

    Raises:
        UserError: it is not there, damaged, or no checkpoint of a run.
    """
    if not path.is_file():
        raise UserError(f"{option} must be an existing checkpoint, got {path}")
    if (wrong := damage(path)) is not None:
        raise UserError(f"{option} must be a checkpoint of a run, got {path}, which {wrong}")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        checkpoint["instructgpt"]["class_path"], checkpoint["global_step"]
    except (KeyError, TypeError, RuntimeError, UnpicklingError, EOFError, OSError) as error:
        raise UserError(f"{option} must be a checkpoint of a run, got {path}") from error
    return dict(checkpoint)
