"""The cache of rows: a folder for each set of files, tokenizer, template and limits."""

from __future__ import annotations

import atexit
import errno
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from instructgpt.data.digest import digest_of
from instructgpt.data.store import ROWS_FILE, SUMMARY_FILE
from instructgpt.models.folder import make_folder, put_in_place
from instructgpt.models.lock import InUseError, holder, in_turn
from instructgpt.terminal import note
from instructgpt.types import UserError

MADE_FROM = "made_from.json"
"""What an entry was made from; when it was changed is when the entry was last used."""

DIGESTS = "digests"
"""The folder in the cache where digests of large files are remembered."""

BUSY, LOCK = ".partial", ".lock"

NAME = re.compile(r"[0-9a-f]{32}")
"""How entries are called."""

FILES = (MADE_FROM, SUMMARY_FILE, ROWS_FILE)
"""What an entry consists of."""


class Entry(NamedTuple):
    """A set of rows in the cache."""

    folder: Path
    made_from: dict[str, Any]
    size: int  # bytes
    used: float  # when, in seconds since 1970


def cache_folder(given: str | None) -> Path:
    """Where rows are kept.

    Args:
        given: by the user; else the user's cache folder.
    """
    if given is not None:
        return Path(given).expanduser()
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home, "instructgpt", "data")


def stored(
    root: Path, facts: dict[str, Any] | None, what: str, write: Callable[[Path], None]
) -> Path:
    """The folder of some rows: it is there already, or is written now, as a whole or not at all.

    Several runs and processes may ask at once: one writes, the others wait for it.

    Args:
        root: of the cache.
        facts: all that the rows depend on; None where nobody can tell, and nothing is kept.
        what: the rows are, for messages.
        write: puts files into a folder.

    Raises:
        UserError: the disk is full.
    """
    if facts is None:
        return _written_elsewhere(write)
    folder = root / digest_of(facts)
    if _is_whole(folder, facts):
        return folder
    try:
        make_folder(root)
        os.rmdir(tempfile.mkdtemp(prefix=".", dir=root))
    except OSError as error:
        reason = error.strerror or error
        note(f"--data.cache {root} cannot be written to ({reason}): rows are kept for this run")
        return _written_elsewhere(write)

    def waiting(owner: str) -> None:
        note(f"another run prepares {what} ({owner}): waiting for it")

    with in_turn(folder.with_name(folder.name + LOCK), waiting):
        if not _is_whole(folder, facts):
            _write(folder, facts, write)
    return folder


def named(root: Path, end: str = "") -> list[Path]:
    """What is called as an entry is: a folder that users name may hold what is theirs.

    Args:
        root: where it lies, if it is there.
        end: of the names, behind the digits.
    """
    found = root.iterdir() if root.is_dir() else ()
    return sorted(
        path
        for path in found
        if NAME.fullmatch(path.name.removesuffix(end)) and path.name.endswith(end)
        if not path.is_symlink()
    )


def entries(root: Path) -> Iterator[Entry]:
    """All sets of rows in the cache, and what is left of damaged ones.

    Args:
        root: of the cache.
    """
    for folder in named(root):
        file, made_from = folder / MADE_FROM, {}
        with suppress(OSError, ValueError, KeyError, TypeError):
            made_from = dict(json.loads(file.read_text(encoding="utf-8"))["facts"])
        with suppress(OSError):  # another process has just removed it
            used = (file if file.exists() else folder).stat().st_mtime
            yield Entry(folder, made_from, size_of(folder), used)


def size_of(folder: Path) -> int:
    """Bytes of an entry.

    Args:
        folder: of the entry.
    """
    return sum(file.stat().st_size for name in FILES if (file := folder / name).is_file())


def remove(folder: Path) -> None:
    """Remove an entry, or what a build has left; runs that have it open go on reading it.

    Args:
        folder: of the entry.

    Raises:
        InUseError: another run is writing it.
        OSError: it cannot be removed.
    """

    def refuse(owner: str) -> None:
        raise InUseError(f"being built by {owner}, stays: {folder}")

    with in_turn(folder.with_name(folder.name.removesuffix(BUSY) + LOCK), refuse):
        for name in FILES:  # the first makes it an entry
            (folder / name).unlink(missing_ok=True)
        with suppress(OSError):  # something else is in it
            folder.rmdir()


def builds(root: Path) -> Iterator[tuple[Path, str]]:
    """What is being built, and by whom; "" for what a kill has left.

    Args:
        root: of the cache.
    """
    for folder in named(root, BUSY):
        yield folder, holder(folder.with_suffix(LOCK))


def _is_whole(folder: Path, facts: dict[str, Any]) -> bool:
    """Whether rows of these facts are there; then they are used now."""
    file = folder / MADE_FROM
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        whole = found["facts"] == facts
        whole = whole and found["bytes"] == (folder / ROWS_FILE).stat().st_size
    except (OSError, ValueError, KeyError, TypeError):
        return False
    if whole:
        with suppress(OSError):  # another's cache may be read, but not changed
            os.utime(file, (time.time(),) * 2)
    return bool(whole)


def _write(folder: Path, facts: dict[str, Any], write: Callable[[Path], None]) -> None:
    partial = folder.with_name(folder.name + BUSY)
    for old in (partial, folder):
        shutil.rmtree(old, ignore_errors=True)
    try:
        partial.mkdir()
        write(partial)
        size = (partial / ROWS_FILE).stat().st_size
        record = {"facts": facts, "bytes": size}
        (partial / MADE_FROM).write_text(json.dumps(record, indent=1), encoding="utf-8")
        put_in_place(partial, folder)
    except OSError as error:
        raise _full(error, folder.parent) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _written_elsewhere(write: Callable[[Path], None]) -> Path:
    """A folder that is removed when the process ends."""
    folder = Path(tempfile.mkdtemp(prefix="instructgpt-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    try:
        write(folder)
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, OSError):
            raise _full(error, folder.parent) from error
        raise
    return folder


def _full(error: OSError, root: Path) -> OSError | UserError:
    """One line for a disk without room; other faults are what they are."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return error
    left = f"has no room left ({error.strerror}): make some, or give another folder"
    return UserError(f"--data.cache {root} {left}")
