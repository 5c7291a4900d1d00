"""Writing files and folders so that they are there as a whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from instructgpt.types import UserError

PARTIAL = ".partial"
"""End of the name of a file of rows while it grows."""


@contextmanager
def replacing(path: Path, mark: str) -> Iterator[Path]:
    """Give a hidden folder to write into; it takes its place when all went well, else vanishes.

    Args:
        path: Where the folder is to be.
        mark: A file of this name shows that a folder which is there already may be replaced.

    Raises:
        UserError: Something else is there.
    """
    path = path.absolute()
    new, old = path.with_name(f".{path.name}.new"), path.with_name(f".{path.name}.old")
    if old.exists() and not path.exists():  # killed between the two renames below
        old.rename(path)
    if path.exists() and not (path / mark).is_file() and not _is_empty_folder(path):
        raise UserError(f"must not replace '{path}', which has no {mark}")
    path.parent.mkdir(parents=True, exist_ok=True)
    for leftover in (new, old):
        shutil.rmtree(leftover, ignore_errors=True)
    new.mkdir()
    try:
        yield new
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    if path.exists():
        path.rename(old)
    new.rename(path)
    shutil.rmtree(old, ignore_errors=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all.

    Args:
        path: Of the file; its folder is created.
        content: What to write.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all; arguments as for ``write_bytes``."""
    write_bytes(path, text.encode())


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and next(path.iterdir(), None) is None
