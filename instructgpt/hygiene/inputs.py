"""The input as it lies there: its files, what they hold, and which split they are for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from instructgpt.data.files import LINES, plain_rows, raw_rows, read_file
from instructgpt.data.folders import files_of
from instructgpt.data.opening import Item, plain_name
from instructgpt.data.sources import raw_items, sources_of
from instructgpt.hygiene.clean_row import SPLITS, Split
from instructgpt.types import UserError

MARK = "prepare.json"
"""File of a folder that ``prepare`` has written."""


def items_of(names: Sequence[str], tell: Callable[[str], None]) -> Iterator[tuple[Item, str]]:
    """Rows as read, each with the split that the names of its files say, else "".

    Lines of JSON come undecoded, so that another process can do that; all else as plain values.

    Args:
        names: files, folders, patterns or data sets.
        tell: told what is particular about them.
    """
    for name in names:
        split_files = files_by_split(name, tell)
        if split_files is None:
            sources = sources_of([name], "train", tell)
            yield from ((item, "") for item in plain_rows(raw_items(sources, tell), tell))
            continue
        for path, split in split_files:
            lines = Path(plain_name(path)).suffix in LINES
            items = raw_rows(path, tell) if lines else read_file(path, tell)
            yield from ((item, split) for item in items)


def files_by_split(
    name: str, tell: Callable[[str], None]
) -> list[tuple[Path, Split | Literal[""]]] | None:
    """The files that a name stands for, with the split that their names say; None: no files.

    Args:
        name: as given by the user.
        tell: told what is there and not read.
    """
    training = files_of(name, "train", lambda line: None)
    if training is None:
        return None
    found = {one: _files_for(name, one) for one in SPLITS}
    if found["train"] == found["validation"] == found["test"]:
        return [(path, "") for path in files_of(name, "train", tell) or []]
    if found["test"] == found["validation"]:  # only one of them is there, whatever it is called
        found["validation"] = []
    files: list[tuple[Path, Split | Literal[""]]] = []
    files += [(path, split) for split, paths in found.items() for path in paths]
    tell(f"{name}: the names of the files say their split, which is kept")
    return files


def _files_for(name: str, split: Split) -> list[Path]:
    try:
        return files_of(name, split, lambda line: None) or []
    except UserError:  # there are files to train on, but none for this
        return []


def fingerprint(names: Sequence[str]) -> dict[str, str]:
    """What files of the input hold, by the names they were given under.

    Args:
        names: files, folders, patterns or data sets; of those that are no files, the name itself.
    """
    found: dict[str, str] = {}
    for name in names:
        for path, split in files_by_split(name, lambda line: None) or []:
            for one in _files_in(path):
                with one.open("rb") as file:
                    digest = hashlib.file_digest(file, "blake2b").hexdigest()[:32]
                found[f"{name} {one.name} {split} {len(found)}"] = digest
        found.setdefault(name, "")
    return found


def size_of(names: Sequence[str]) -> int:
    """Bytes of the files of the input, 0 of what is no file.

    Args:
        names: files, folders, patterns or data sets.
    """
    found = [files_by_split(name, lambda line: None) or [] for name in names]
    files = [one for paths in found for path, _ in paths for one in _files_in(path)]
    return sum(one.stat().st_size for one in files)


def contents(path: str) -> str:
    """Hash of a file or of all files of a folder; "" where there is none, as for a hub id.

    Args:
        path: of what a rule depends on.
    """
    if not Path(path).exists():
        return ""
    digest = hashlib.blake2b()
    for one in _files_in(Path(path)):
        with one.open("rb") as file:
            digest.update(hashlib.file_digest(file, "blake2b").digest())
    return digest.hexdigest()[:32]


def _files_in(path: Path) -> list[Path]:
    return sorted(one for one in path.rglob("*") if one.is_file()) if path.is_dir() else [path]


def earlier_sizes(names: Sequence[str]) -> dict[str, int]:
    """Rows of each source before the mixture of a folder that ``prepare`` has written.

    Args:
        names: of the input: that folder, or files in it.
    """
    sizes: dict[str, int] = {}
    for name in names:
        for path, _ in files_by_split(name, lambda line: None) or []:
            sizes |= _sizes_beside(path)
    return sizes


def _sizes_beside(path: Path) -> dict[str, int]:
    try:
        found: Any = json.loads((path.parent / MARK).read_bytes())
        if path.name not in found["files"]:
            return {}
        return {str(source): int(n) for source, n in found["mixed"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
