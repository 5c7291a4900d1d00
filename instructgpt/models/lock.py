"""Only one run writes to a folder."""

from __future__ import annotations

import fcntl
import os
import socket
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from instructgpt.models.folder import make_folder
from instructgpt.types import UserError

LOCK_FILE = ".fit.lock"

TURN = 0.2
"""How often one that waits for a lock looks again (seconds)."""


class InUseError(UserError):
    """Another process writes to the folder."""


class _HeldError(Exception):
    """Another process holds the lock; who it is."""


@contextmanager
def locked(folder: Path, what: str) -> Iterator[None]:
    """Hold a folder; a process that ends in any way, also by a kill, lets go of it.

    Args:
        folder: to write to; created if it is not there.
        what: is going to write, for messages.

    Raises:
        InUseError: another process holds it.
        UserError: it cannot be written to.
    """
    path = folder / LOCK_FILE
    try:
        make_folder(folder)
        file = _open(path)
    except _HeldError as owner:
        raise InUseError(
            f"--output {folder} is in use by another {what} ({owner}): wait for it, or give "
            "another folder"
        ) from None
    except OSError as error:
        raise UserError(f"--output {folder} cannot be written to: {error.strerror}") from error
    with _held(path, file):
        yield


@contextmanager
def in_turn(path: Path, waiting: Callable[[str], None]) -> Iterator[None]:
    """Hold a lock file as soon as no other process does.

    Args:
        path: of the lock file, which is removed afterwards.
        waiting: told once who holds it.

    Raises:
        OSError: it cannot be written.
    """
    told = False
    while True:
        try:
            file = _open(path)
            break
        except _HeldError as owner:
            if not told:
                waiting(str(owner))
            told = True
            time.sleep(TURN)
    with _held(path, file):
        yield


def holder(path: Path) -> str:
    """Who holds a lock file, "" for nobody; what a kill has left of one is removed.

    Args:
        path: of the lock file.
    """
    if not path.exists():
        return ""
    try:
        file = _open(path)
    except _HeldError as owner:
        return str(owner)
    with _held(path, file):
        return ""


@contextmanager
def _held(path: Path, file: IO[str]) -> Iterator[None]:
    try:
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield
    finally:
        path.unlink(missing_ok=True)
        file.close()


def _open(path: Path) -> IO[str]:
    """The lock file, locked; what a kill has left is taken over."""
    while True:
        file = path.open("a+", encoding="utf-8")
        try:
            # Of this process alone: workers that outlive it for some seconds do not inherit it.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            file.seek(0)
            owner = file.read() or "another process"
            file.close()
            raise _HeldError(owner) from None
        except OSError as error:
            warnings.warn(
                f"{path.parent} cannot be locked ({error.strerror}): two runs in it at once would "
                "not be noticed",
                stacklevel=2,
            )
            return file
        if _is_still(path, file):
            return file
        file.close()  # its owner has just ended and removed it


def _is_still(path: Path, file: IO[str]) -> bool:
    try:
        return path.stat().st_ino == os.fstat(file.fileno()).st_ino
    except FileNotFoundError:
        return False
