"""Which files a name stands for: a file, a folder, a pattern, a data set saved or downloaded."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from instructgpt.data.arrow_rows import STATE
from instructgpt.data.files import SUFFIXES, is_known, is_saved
from instructgpt.data.opening import check_file, kind_of
from instructgpt.types import UserError

Split = Literal["train", "validation"]

_ABOUT = ("dataset_dict.json", "dataset_info.json", "dataset_infos.json", STATE)
"""Files beside data that say what the data are."""

_WORDS = {
    "train": {"train", "training"},
    "validation": {"validation", "valid", "val", "dev"},
    "test": {"test", "testing", "eval", "evaluation"},
}


def files_of(name: str, split: Split, tell: Callable[[str], None]) -> list[Path] | None:
    """The files that a name stands for, or None where it is no path.

    Args:
        name: as given by the user.
        split: what the rows are for, where names of files say which of them are for what.
        tell: told what is there and not read.

    Raises:
        UserError: nothing can be read there.
    """
    if not name.strip():
        raise UserError(f"must be a file, a folder or a data set, got {name!r}")
    path = _path(name)
    kind = kind_of(path)
    if kind == "folder":
        return [path] if is_saved(path) else _in_folder(path, split, tell)
    if kind or (is_known(path) and not _is_pattern(name)):
        check_file(path)
        return [path]
    return _matching(name, split, tell) if _is_pattern(name) else None


def _path(name: str) -> Path:
    return Path(os.path.expanduser(name))  # unlike Path's, leaves the home of nobody as it is


def _is_pattern(name: str) -> bool:
    return any(mark in name for mark in "*?[")


def _matching(name: str, split: Split, tell: Callable[[str], None]) -> list[Path]:
    found = [Path(path) for path in sorted(glob.glob(str(_path(name))))]
    files = [path for path in found if is_known(path) and path.name not in _ABOUT]
    if not files:
        kinds = ", ".join(SUFFIXES)
        raise UserError(f"{name}: must match files ({kinds}), got {len(found)} others")
    _tell_ignored(name, [path for path in found if path not in files], tell)
    return _chosen(name, files, split, tell)


def _in_folder(folder: Path, split: Split, tell: Callable[[str], None]) -> list[Path]:
    """The files of a folder, or of the one folder in it that has some, as the hub writes them."""
    inside = _listed(folder)
    files = _known(inside)
    if not files:
        below = [one for one in inside if not one.name.startswith(".") and kind_of(one) == "folder"]
        holding = [one for one in below if is_saved(one) or _known(_listed(one))]
        if len(holding) > 1:
            return _one_of(folder, holding, split, tell)
        if holding:
            _tell_ignored(str(folder), [one for one in inside if one not in holding], tell)
            return [holding[0]] if is_saved(holding[0]) else _in_folder(holding[0], split, tell)
        raise UserError(f"{folder}: the folder must hold files ({', '.join(SUFFIXES)}), got none")
    _tell_ignored(str(folder), [one for one in inside if one not in files], tell)
    return _chosen(str(folder), files, split, tell)


def _one_of(
    folder: Path, holding: list[Path], split: Split, tell: Callable[[str], None]
) -> list[Path]:
    """Of several folders the one that is called like the split."""
    chosen = _chosen(str(folder), holding, split, tell)
    if len(chosen) > 1:
        names = ", ".join(one.name for one in holding)
        raise UserError(f"{folder}: must hold one data set, got the folders {names}: name one")
    return chosen if is_saved(chosen[0]) else _in_folder(chosen[0], split, tell)


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise UserError(f"{folder}: cannot be read: {error.strerror or error}") from None


def _known(paths: list[Path]) -> list[Path]:
    """Those with the name of a data file; each must be one, so that no data are missing."""
    known = [path for path in paths if is_known(path) and path.name not in _ABOUT]
    files = [path for path in known if not path.name.startswith(".")]
    for path in files:
        check_file(path)
    return files


def _tell_ignored(name: str, ignored: list[Path], tell: Callable[[str], None]) -> None:
    if ignored:
        tell(f"ignored in {name}: {', '.join(path.name for path in ignored)}")


def _chosen(name: str, paths: list[Path], split: Split, tell: Callable[[str], None]) -> list[Path]:
    """Where names say what files are for: those of one split, never what is held out from it.

    Args:
        name: what the files were found in.
        paths: files or folders.
        split: what the rows are for.
        tell: told what is not read.
    """
    parts: dict[str, list[Path]] = {}
    for path in paths:
        words = set(re.split(r"[^a-z]+", path.name.lower()))
        part = next((part for part, names in _WORDS.items() if words & names), "")
        parts.setdefault(part, []).append(path)
    if len(parts) == 1:
        return paths
    order = ("train",) if split == "train" else ("validation", "test")
    chosen = next((part for part in order if part in parts), "")
    if not chosen:
        found = ", ".join(path.name for some in parts.values() for path in some[:1])
        raise UserError(
            f"{name}: must say by names which files are for {split}, got {found}, …: name the files"
        )
    others = [path.name for path in paths if path not in parts[chosen]]
    tell(f"read of {name}: what is called {chosen}; not read: {', '.join(others)}")
    return parts[chosen]
