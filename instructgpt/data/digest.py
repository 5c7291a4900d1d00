"""Telling whether files are the same: by what they hold, wherever they lie."""

from __future__ import annotations

import hashlib
import json
import os
import time
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from instructgpt.data.opening import check_file
from instructgpt.models.folder import write_text
from instructgpt.types import UserError

SMALL = 2**20
"""Smaller files are read again rather than remembered (bytes)."""

FRESH = 5.0
"""What was changed less than this ago may change again within one tick of the clock (seconds)."""


def digest_of(facts: Any) -> str:
    """Name what JSON can hold, 32 hexadecimal digits."""
    text = json.dumps(facts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def file_digest(path: Path, known: Path) -> str:
    """Name a file, or a folder of files, by its bytes.

    Args:
        path: of what is read.
        known: folder in which digests of large files are remembered.
    """
    if path.is_dir():
        files = sorted(one for one in path.iterdir() if one.is_file())
        return digest_of({one.name: file_digest(one, known) for one in files})
    check_file(path)
    state = file_state(path)
    if state[0] < SMALL:
        return _read(path)
    place = known / f"{digest_of(os.path.abspath(path))}.json"
    with suppress(OSError, ValueError, KeyError, TypeError):
        found = json.loads(place.read_text(encoding="utf-8"))
        if found["state"] == state:
            return str(found["digest"])
    digest = _read(path)
    changed = max(state[1:3]) / 1e9
    if file_state(path) == state and time.time() - changed > FRESH:
        with suppress(OSError):  # it is read again then
            write_text(place, json.dumps({"path": str(path), "state": state, "digest": digest}))
    return digest


def file_state(path: Path) -> list[int]:
    """Size, times of change and number of a file: where they are the same, so are its bytes."""
    try:
        found = path.stat()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:32]
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None


@cache
def code_digest() -> str:
    """Name the code that makes rows of files, so that no other version's rows are taken for its."""
    package = Path(__file__).parents[1]
    files = [*package.glob("data/**/*.py"), *package.glob("models/*.py"), package / "types.py"]
    code = {str(one.relative_to(package)): _read(one) for one in sorted(files)}
    return digest_of([code, version("tokenizers"), version("transformers")])
