"""Files and folders that are there as a whole or not at all, after a power cut, too.

What a program writes is in memory until it is synced: the bytes of a file, and the names in a
folder. So a file is synced before it gets its name, and the folder after that.
"""

from __future__ import annotations

import errno
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO, Any

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
    make_folder(path.parent)
    for leftover in (new, old):
        shutil.rmtree(leftover, ignore_errors=True)
    try:
        with naming(path):
            new.mkdir()
            yield new
            _open_up(new)
            sync_tree(new)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    if path.exists():
        path.rename(old)
    new.rename(path)
    sync_folder(path.parent)
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
    make_folder(path.parent)
    remove_left(path.parent)
    temporary = path.with_name(f".{path.name}.{os.getpid()}@{here()}.tmp")
    try:
        with naming(path):
            with temporary.open("wb") as file:
                file.write(content)
                sync_file(file)
            temporary.replace(path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@cache
def remove_left(folder: Path) -> None:
    """Remove what killed processes of this machine left of the files they wrote, once a process.

    Args:
        folder: of the files.
    """
    left = re.compile(rf"\..+\.(\d+)@{re.escape(here())}\.tmp")
    with suppress(OSError):  # a folder of others, who let it be written to but not read
        for path in folder.iterdir():
            if (found := left.fullmatch(path.name)) and not _is_alive(int(found[1])):
                path.unlink(missing_ok=True)


def here() -> str:
    """The machine, or the container, in which a number of a process means that process."""
    with suppress(OSError):
        space = os.readlink("/proc/self/ns/pid")  # containers may share the name of a machine
        return f"{platform.node()}-{''.join(c for c in space if c.isdigit())}"
    return platform.node()


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # of somebody else
        pass
    return True


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all; arguments as for ``write_bytes``."""
    write_bytes(path, text.encode())


def make_folder(folder: Path) -> None:
    """Create a folder and those above it, to stay."""
    above = [one.parent for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for one in above:
        sync_folder(one)


def sync_file(file: IO[Any]) -> None:
    """Have what was written to a file survive a power cut."""
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Have the names in a folder survive a power cut."""
    try:
        number = os.open(folder, os.O_RDONLY)
    except OSError:  # of others, who let it be written to but not read
        return
    try:
        os.fsync(number)
    except OSError:  # some network file systems cannot
        pass
    finally:
        os.close(number)


def put_in_place(made: Path, path: Path) -> None:
    """Give a folder that is written its name, to stay, once all that is in it stays.

    Args:
        made: the folder.
        path: where nothing is.
    """
    sync_tree(made)
    made.rename(path)
    sync_folder(path.parent)


def sync_tree(folder: Path) -> None:
    """Have all that is in a folder survive a power cut, whoever wrote it."""
    for path in folder.rglob("*"):
        if path.is_dir():
            sync_folder(path)
        elif path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    sync_folder(folder)


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and next(path.iterdir(), None) is None
