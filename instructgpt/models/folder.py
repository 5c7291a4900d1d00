"""Writing files and folders so that they are there as a whole or not at all."""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from instructgpt.types import UserError

NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EIO}
"""Errors of a disk that is full, or fails."""
PARTIAL = ".partial"
"""End of the name of a file of rows while it grows."""


@contextmanager
def replacing(path: Path, mark: str) -> Iterator[Path]:
    """Give a hidden folder to write into; it takes its place when all went well, else vanishes.

    Args:
        path: where the folder is to be.
        mark: a file of this name shows that a folder which is there already may be replaced.

    Raises:
        UserError: something else is there.
    """
    check_replaceable(path, mark)
    path = path.resolve()  # a link stays one
    new, old = path.with_name(f".{path.name}.new"), path.with_name(f".{path.name}.old")
    if old.exists() and not path.exists():  # killed between the two renames below
        old.rename(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    for leftover in (new, old):
        shutil.rmtree(leftover, ignore_errors=True)
    try:
        with naming(path):
            new.mkdir()
            yield new
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    _open_up(new)
    if path.exists():
        path.rename(old)
    new.rename(path)
    shutil.rmtree(old, ignore_errors=True)


def check_replaceable(path: Path, mark: str) -> None:
    """Refuse to write a folder where something else is.

    Args:
        path: where the folder is to be.
        mark: a file of this name shows that a folder which is there already may be replaced.

    Raises:
        UserError: it may not, or the place is a link that leads nowhere.
    """
    try:
        found = path.exists()
        if path.is_symlink() and not found:
            raise UserError(f"must not write to '{path}', a link that leads nowhere")
    except (OSError, RuntimeError) as error:
        raise UserError(f"must not write to '{path}': {error}") from error
    if found and not (path / mark).is_file() and not _is_empty_folder(path):
        raise UserError(f"must not replace '{path}', which has no {mark}")


def check_writable(folder: Path, key: str) -> None:
    """Refuse a folder that cannot be made or written to.

    Args:
        folder: to write to.
        key: the argument it came from, for the message.

    Raises:
        UserError: a file, a link that leads nowhere, a loop of links, or permissions are in the
            way.
    """
    try:
        there = folder.absolute()
        while not there.exists():
            if there.is_symlink():
                raise UserError(f"{key} must be a folder, got {folder}: {there} leads nowhere")
            there = there.parent
        if not there.is_dir():
            raise UserError(f"{key} must be a folder, got {folder}: {there} is a file")
        os.rmdir(tempfile.mkdtemp(prefix=".", dir=there))  # permissions say little on some systems
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UserError(f"{key} must be a folder to write to, got {folder}: {reason}") from error


def _open_up(folder: Path) -> None:
    """Give files the modes that the umask leaves them: some libraries write for the owner only."""
    umask = os.umask(0)
    os.umask(umask)
    for path in folder.rglob("*"):
        path.chmod((0o777 if path.is_dir() else 0o666) & ~umask)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Say where there was no room: an error of a write names no file.

    Args:
        path: of the file or folder that is being written.

    Raises:
        OSError: the same, with the name.
    """
    try:
        yield
    except Exception as error:
        number = error.errno if isinstance(error, OSError) else None
        if found := re.search(r"\(os error (\d+)\)", str(error)):  # safetensors and tokenizers
            number = int(found[1])
        if number not in NO_ROOM:
            raise
        raise OSError(number, os.strerror(number), str(path)) from error


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all.

    Args:
        path: of the file; its folder is created.
        content: what to write.
    """
    path = path.resolve()  # a link stays one
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with naming(path):
            temporary.write_bytes(content)
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all; arguments as for ``write_bytes``."""
    write_bytes(path, text.encode())


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and next(path.iterdir(), None) is None
