"""``cache``: what earlier runs have prepared and kept for later ones."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from instructgpt.terminal import say

if TYPE_CHECKING:
    from instructgpt.data.cache import Entry


class Piece(NamedTuple):
    """Something that can be removed by itself."""

    about: str
    size: int  # bytes
    used: float  # when, in seconds since 1970
    remove: Callable[[], None]


def cache(folder: str | None = None, clear: bool = False) -> None:
    """Say what is kept for later runs, how large it is and when it was last used; or empty it.

    Rows of data, tokenised, log-probabilities of references, features of frozen trunks and scores
    of reward models are made again when they are asked for, so nothing is lost but time. Runs that
    are reading them go on.

    Args:
        folder: that ``--data.cache`` named; by default the user's, with all of it.
        clear: remove all of it. What another run is building stays, and so does what was not
            written by this package.
    """
    from instructgpt.data.cache import builds, cache_folder
    from instructgpt.modules.cached import KINDS, kept_folder
    from instructgpt.types import UserError

    root = cache_folder(folder)
    if folder is not None and not root.is_dir():
        raise UserError(f"--folder must be a folder, got {folder}: there is none")
    kinds = {f"rows of data in {root}": _rows(root)}
    if folder is None:
        for kind in KINDS:
            own = kept_folder(kind)
            kinds[f"{kind.words} in {own}"] = _kept(own, kind.end)
    for title, pieces in kinds.items():
        say(f"{title}: {_count(pieces)}")
        for piece in sorted(pieces, key=lambda one: -one.used):
            used = time.strftime("%Y-%m-%d %H:%M", time.localtime(piece.used))
            say(f"  {_size(piece.size):>9}  last used {used}  {piece.about}")
    for path, owner in builds(root):
        if owner:
            say(f"being built by {owner}{', stays' if clear else ''}: {path}")
    if clear:
        _remove([piece for kind in kinds.values() for piece in kind])


def _remove(pieces: list[Piece]) -> None:
    from instructgpt.models.lock import InUseError
    from instructgpt.types import UserError

    removed = []
    for piece in pieces:
        try:
            piece.remove()
            removed.append(piece)
        except InUseError as error:  # since it was listed
            say(error)
        except OSError as error:
            reason = error.strerror or error
            raise UserError(f"cannot remove {error.filename}: {reason}") from error
    say(f"removed: {_count(removed)}")


def _rows(root: Path) -> list[Piece]:
    """Sets of rows, digests of the files they come from, and what killed builds have left."""
    from instructgpt.data.cache import DIGESTS, builds, entries, named, remove, size_of

    pieces = [
        Piece(_about(one), one.size, one.used, partial(remove, one.folder)) for one in entries(root)
    ]
    for path, owner in builds(root):
        if not owner:
            about, used = "left by a run that was killed", path.stat().st_mtime
            pieces.append(Piece(about, size_of(path), used, partial(remove, path)))
    if digests := [(file, file.stat()) for file in named(root / DIGESTS, ".json")]:
        size = sum(state.st_size for _, state in digests)
        used = max(state.st_mtime for _, state in digests)
        files = [file for file, _ in digests]
        pieces.append(Piece("digests of large files", size, used, partial(_unlink, files)))
    return pieces


def _unlink(files: list[Path]) -> None:
    """Remove files, and their folder if nothing else is in it."""
    for file in files:
        file.unlink(missing_ok=True)
    with suppress(OSError):
        files[0].parent.rmdir()


def _about(entry: Entry) -> str:
    """What an entry was made from: what its rows were read for, and the files."""
    facts = entry.made_from
    if not {"sources", "wanted"} <= set(facts):
        return "damaged"
    names = [str(source[0]) for source in facts["sources"]]
    more = f" and {len(names) - 2:,} more" if len(names) > 2 else ""
    kind = facts["wanted"] if facts["wanted"].endswith("s") else f"{facts['wanted']}s"
    return f"{kind} of {', '.join(names[:2])}{more}"


def _kept(folder: Path, end: str) -> list[Piece]:
    """Files of numbers, with what they were computed from."""
    from safetensors import SafetensorError

    from instructgpt.data.cache import named
    from instructgpt.evaluation.kept_scores import about_scores
    from instructgpt.modules.cached import SCORES, made_from

    pieces, says = [], about_scores if end == SCORES.end else made_from
    for file in named(folder, end):
        try:
            about = says(file) or file.name
        except (OSError, SafetensorError):
            about = f"damaged: {file.name}"
        state = file.stat()
        pieces.append(Piece(about, state.st_size, state.st_mtime, partial(file.unlink, True)))
    return pieces


def _count(pieces: list[Piece]) -> str:
    entries = "1 entry" if len(pieces) == 1 else f"{len(pieces):,} entries"
    return f"{entries}, {_size(sum(piece.size for piece in pieces))}"


def _size(size: float) -> str:
    """Bytes for people.

    >>> _size(999), _size(2_345_678)
    ('999 B', '2.3 MB')
    """
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
