"""Which files a name stands for: a file, a folder, a pattern, a data set saved or downloaded."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from instructgpt.data.arrow_rows import STATE
from instructgpt.data.files import KINDS, is_known, is_saved, stem_of
from instructgpt.data.opening import check_file, kind_of
from instructgpt.types import UserError

Split = Literal["train", "validation", "test"]
Tell = Callable[[str], None]

_ABOUT = ("dataset_dict.json", "dataset_info.json", "dataset_infos.json", STATE)
"""Files beside data that say what the data are."""

_WORDS = {
    "train": {"train", "training"},
    "validation": {"validation", "valid", "val", "dev"},
    "test": {"test", "testing", "eval", "evaluation"},
}

_SHARD = re.compile(r"-\d{5}-of-\d{5}.*")
"""How the hub numbers the files of one split."""


def files_of(name: str, split: Split, tell: Tell) -> list[Path] | None:
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
    path = Path(os.path.expanduser(name))  # unlike Path's, leaves the home of nobody as it is
    kind = kind_of(path)
    if kind == "folder":
        return [path] if is_saved(path) else _in_folder(path, split, tell)
    is_pattern = any(mark in name for mark in "*?[")
    if kind or (is_known(path) and not is_pattern):
        check_file(path)
        return [path]
    return _matching(name, path, split, tell) if is_pattern else None


def _matching(name: str, pattern: Path, split: Split, tell: Tell) -> list[Path]:
    """What a pattern matches; ``**`` stands for any number of folders."""
    found = [Path(path) for path in sorted(glob.glob(str(pattern), recursive=True))]
    saved = [path for path in found if is_saved(path)]
    files = [path for path in found if _is_data(path) and path.parent not in saved]
    files = sorted([*saved, *(path for path in files if kind_of(path) != "folder")])
    if not files:
        got = f"{len(found)} others" if found else "none"
        raise UserError(f"{name}: must match files ({KINDS}), got {got}")
    inside = {folder for path in files for folder in path.parents}
    _tell_ignored(name, [path for path in found if path not in {*files, *inside}], saved, tell)
    return _chosen(name, files, split, tell)


def _in_folder(folder: Path, split: Split, tell: Tell) -> list[Path]:
    """The files of a folder, or of the one folder in it that has some, as the hub writes them."""
    inside = _listed(_revision(folder))
    files = [path for path in inside if _is_data(path)]
    for path in files:
        check_file(path)  # each must be one, so that no data are missing
    if files:
        _tell_ignored(str(folder), [path for path in inside if path not in files], [], tell)
        return _chosen(str(folder), files, split, tell)
    holding = [path for path in inside if _holds(path, {os.path.realpath(folder)})]
    if not holding:
        raise UserError(f"{folder}: the folder must hold files ({KINDS}), got none")
    if len(holding) > 1:
        holding = _chosen(str(folder), holding, split, tell)
    else:
        _tell_ignored(str(folder), [path for path in inside if path not in holding], [], tell)
    if len(holding) > 1:
        names = ", ".join(path.name for path in holding)
        raise UserError(f"{folder}: must hold one data set, got the folders {names}: name one")
    return holding if is_saved(holding[0]) else _in_folder(holding[0], split, tell)


def _revision(folder: Path) -> Path:
    """The revision that was downloaded last, where the hub's cache keeps several."""
    head = folder / "refs" / "main"
    if not (folder / "snapshots").is_dir() or not head.is_file():
        return folder
    return folder / "snapshots" / Path(head.read_text(encoding="utf-8", errors="replace")).name


def _holds(path: Path, above: set[str]) -> bool:
    """Whether there are data in a folder, or in one below.

    Args:
        path: of what may be a folder.
        above: folders that lead here, so that links to them do not go round.
    """
    real = os.path.realpath(path)
    if path.name.startswith(".") or real in above or kind_of(path) != "folder":
        return False
    if is_saved(path):
        return True
    inside = _listed(path)
    return any(map(_is_data, inside)) or any(_holds(one, above | {real}) for one in inside)


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise UserError(f"{folder}: cannot be read: {error.strerror or error}") from None


def _is_data(path: Path) -> bool:
    """Whether the name is that of a data file, not of what stands beside it."""
    about = path.name in _ABOUT or path.name.startswith(".")
    cached = path.name.startswith("cache-") and path.suffix == ".arrow"  # what datasets computed
    return is_known(path) and not about and not cached


def _tell_ignored(name: str, ignored: list[Path], inside: list[Path], tell: Tell) -> None:
    """Say what is there and not read; hidden folders and what belongs to a saved set go without.

    Args:
        name: what it was found in.
        ignored: what is not read.
        inside: folders whose files are not said.
        tell: told it.
    """
    names = [
        path.name
        for path in ignored
        if path.parent not in inside and (not path.name.startswith(".") or is_known(path))
    ]
    if names:
        tell(f"ignored in {name}: {', '.join(names)}")


def _split_of(name: str) -> str:
    """What a name says that rows are for, or ""."""
    words = set(re.split(r"[^a-z]+", name.lower()))
    return next((part for part, names in _WORDS.items() if words & names), "")


def _chosen(name: str, paths: list[Path], split: Split, tell: Tell) -> list[Path]:
    """Where names say what files are for: those of one split, never what is held out from it.

    Args:
        name: what the files were found in.
        paths: files or folders.
        split: what the rows are for.
        tell: told what is not read.
    """
    parts: dict[str, list[Path]] = {}
    for path in paths:
        parts.setdefault(_split_of(path.name), []).append(path)
    order = {"train": ("train",), "test": ("test", "validation")}
    wanted = order.get(split, ("validation", "test"))
    chosen = next((part for part in wanted if part in parts), "")
    if set(parts) == {""} or set(parts) == {_split_of(Path(name).name)}:  # the user says which
        return _once(name, paths)
    if not chosen and len(parts) == 1:
        raise UserError(
            f"{name}: must hold files for {split}, got only what is called {next(iter(parts))} "
            f"({paths[0].name}, …): name the files"
        )
    if not chosen:
        found = ", ".join(path.name for some in parts.values() for path in some[:1])
        raise UserError(
            f"{name}: must say by names which files are for {split}, got {found}, …: name the files"
        )
    others = [path.name for path in paths if path not in parts[chosen]]
    if others:
        tell(f"read of {name}: what is called {chosen}; not read: {', '.join(others)}")
    return _once(name, parts[chosen])


def _once(name: str, paths: list[Path]) -> list[Path]:
    """Files that do not hold the same rows twice, as far as their names tell.

    Args:
        name: what they were found in.
        paths: of the files.
    """
    sets = sorted({stem_of(_SHARD.sub("", path.name)) for path in paths if _is_shard(path)})
    if len(sets) > 1:  # such as train_sft and train_gen, which share their prompts
        raise UserError(
            f"{name}: must hold one data set, got {', '.join(sets)}: name one, as {sets[0]}-*"
        )
    stems: dict[Path, str] = {}
    for path in paths:
        other = stems.setdefault(path.parent / stem_of(path.name), path.name)
        if other != path.name:
            raise UserError(
                f"{name}: must hold its rows once, got {other} and {path.name}: name one of them"
            )
    return paths


def _is_shard(path: Path) -> bool:
    return _SHARD.search(path.name) is not None
