"""Checksums of an artefact's files: written with it, and compared by whoever loads it.

They find what was changed, mixed up or copied by half. They are no signature: who can write the
files can write the list, too.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from instructgpt.models.source import ARTEFACT_FILE, is_planning, read_facts
from instructgpt.types import UserError

KEY = "files"
READ = {
    *("config.json", "generation_config.json", "adapter_config.json"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("model.safetensors", "model.safetensors.index.json", "adapter_model.safetensors"),
    *("head.safetensors", "heads.safetensors"),
}
"""Files that a loader looks for by name, and chat templates: one that is not listed was added."""

PLACES = ("", "base", "adapter", "additional_chat_templates")
DIGEST = re.compile(r"[0-9a-f]{64}")


def list_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Bytes and SHA-256 of each file of a folder.

    Args:
        folder: with all its files but the facts and the model card, which people edit.
    """
    paths = [path for path in folder.rglob("*") if path.is_file()]
    names = sorted(path.relative_to(folder).as_posix() for path in paths)
    with ThreadPoolExecutor() as pool:  # hashing lets go of the interpreter
        digests = list(pool.map(lambda name: _digest(folder / name), names))
    sizes = [(folder / name).stat().st_size for name in names]
    return {
        name: {"bytes": size, "sha256": digest}
        for name, size, digest in zip(names, sizes, digests, strict=True)
    }


def check_files(source: str | Path, wanted: Callable[[str], bool] = lambda name: True) -> None:
    """Refuse an artefact with a file that is not as it was written; hub ids and others pass.

    Args:
        source: folder or hub id; a folder without a list of files is taken as it is.
        wanted: which of the listed files are going to be read, by name. A plan reads no weights.

    Raises:
        UserError: a file is missing, cut, changed or added, or the list is not as it is written.
    """
    folder = Path(source)
    if not (folder / ARTEFACT_FILE).is_file():
        return
    listed = read_facts(folder / ARTEFACT_FILE).get(KEY)
    if listed is None:
        return
    _check_list(folder, listed)
    names = [one for one in listed if wanted(one) and not (is_planning() and is_weights(one))]
    for name in names:
        _check_size(folder, name, listed[name]["bytes"])
    for name in _read_by_name(folder):
        if name not in listed:
            raise _refused(folder, name, "is not among them")
    with ThreadPoolExecutor() as pool:
        for name, found in zip(names, pool.map(lambda n: _known(folder / n), names), strict=True):
            if found != (digest := listed[name]["sha256"]):
                raise _refused(folder, name, f"its SHA-256 is {found[:12]}…, not {digest[:12]}…")


def is_weights(name: str) -> bool:
    """Whether a file is of those that are large, and say nothing of how a text is read."""
    return name.endswith(".safetensors")


def _check_list(folder: Path, listed: Any) -> None:
    """Refuse a list that is not as it is written here, before any file that it names is opened."""
    place, rule = folder / ARTEFACT_FILE, "must name files of its folder, with bytes and sha256"
    if not isinstance(listed, dict):
        raise UserError(f"{place}: key '{KEY}' {rule}, got {type(listed).__name__}")
    for name, facts in listed.items():
        path = PurePosixPath(name)
        inside = not path.is_absolute() and ".." not in path.parts and "\\" not in name
        plain = inside and "\0" not in name and path.as_posix() == name and name != "."
        if not plain:
            raise UserError(f"{place}: key '{KEY}' {rule}, got {name!r:.60}")
        given = facts if isinstance(facts, dict) else {}
        size, digest = given.get("bytes"), given.get("sha256")
        known = type(size) is int and size >= 0 and isinstance(digest, str)
        if not known or DIGEST.fullmatch(str(digest)) is None:
            raise UserError(f"{place}: key '{KEY}' {rule}, got {facts!r:.60} of {name!r:.60}")


def _check_size(folder: Path, name: str, size: int) -> None:
    path = folder / name
    try:
        found = path.stat().st_size if path.is_file() else None  # no pipe, no device
    except OSError:  # a name that is too long, a loop of links
        found = None
    if found is None:
        raise _refused(folder, name, "is missing")
    if found != size:
        raise _refused(folder, name, f"has {found} bytes instead of {size}")


def _read_by_name(folder: Path) -> Iterable[str]:
    """Files of a folder that a loader would find."""
    for place in PLACES:
        for path in sorted((folder / place).glob("*")):
            if path.name in READ or path.suffix == ".jinja":
                yield path.relative_to(folder).as_posix()


def _refused(folder: Path, name: str, why: str) -> UserError:
    place = folder / ARTEFACT_FILE
    return UserError(
        f"{folder / name}: must be as {ARTEFACT_FILE} lists it, {why} (copy or export the folder "
        f"again; to take it as it is, remove '{KEY}' from {place})"
    )


def _known(path: Path) -> str:
    """The digest of a file, which is read once in a process as long as nobody touches it."""
    found = path.stat()
    return _once_read(path, found.st_ino, found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=1024)
def _once_read(path: Path, *identity: int) -> str:
    return _digest(path)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
