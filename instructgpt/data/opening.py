"""Files as bytes and lines: what is no ordinary file is refused before it is opened."""

from __future__ import annotations

import gzip
import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

from instructgpt.data.errors import shorten
from instructgpt.types import UserError

LINE_LIMIT = 8 * 2**20
"""Longer rows are refused: they are a wrong file more often than a row (bytes)."""

WHOLE_LIMIT = 2**30
"""Longer files are not read whole (bytes, decompressed)."""

MARK = b"\xef\xbb\xbf"
"""The byte order mark of UTF-8, which some programs put in front; it means nothing."""

_OTHER_MARKS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}
_KINDS = {
    stat.S_IFDIR: "folder",
    stat.S_IFIFO: "named pipe",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
}


class Item(NamedTuple):
    """A row as read, or what is wrong with its line."""

    where: str  # file:line
    origin: str  # the file or data set
    value: Any  # a parsed value, or a UserError


def kind_of(path: str | Path) -> str:
    """What there is at a path: "file", "folder", "named pipe", …, or "" for nothing.

    Raises:
        UserError: nobody can tell, as for links that lead to themselves.
    """
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: cannot be read: {reason}") from None
    return "file" if stat.S_ISREG(mode) else _KINDS.get(stat.S_IFMT(mode), "special file")


def check_file(path: str | Path) -> None:
    """Refuse what is no ordinary file: reading it might never end.

    Args:
        path: of what is going to be read.
    """
    kind = kind_of(path)
    if not kind:
        raise UserError(f"{path}: no such file")
    if kind != "file":
        raise UserError(f"{path}: must be an ordinary file, got a {kind}")


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """The bytes of an ordinary file, decompressed where the name ends with .gz.

    Args:
        path: of the file.
    """
    check_file(path)
    try:
        with gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb") as file:
            yield file  # type: ignore[misc]
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{path}: must be a whole gzip file, got: {error}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None


def without_mark(path: Path, start: bytes) -> bytes:
    """The bytes of a file from the first on, without the byte order mark of UTF-8.

    Args:
        path: for messages.
        start: of the file.
    """
    for mark, encoding in _OTHER_MARKS.items():
        if start.startswith(mark):
            raise UserError(
                f"{path}:1: must be UTF-8, got the byte order mark of {encoding}: "
                "save the file as UTF-8"
            )
    return start.removeprefix(MARK)


def raw_lines(path: Path) -> Iterator[tuple[str, bytes | UserError]]:
    """Lines by line feed alone: other Unicode separators may stand inside a JSON string.

    Args:
        path: of the file.

    Yields:
        file:line, and the line or what is wrong with it.
    """
    with opened(path) as file:
        number = 0
        while raw := file.readline(LINE_LIMIT + 1):
            number += 1
            where = f"{path}:{number}"
            long = len(raw) > LINE_LIMIT
            while long and raw and not raw.endswith(b"\n"):
                raw = file.readline(LINE_LIMIT)
            if long:
                yield where, UserError(f"{where}: must be at most 8 MiB long, got a longer line")
            else:
                yield where, without_mark(path, raw) if number == 1 else raw


def all_bytes(path: Path) -> bytes:
    """All of a file.

    Args:
        path: of the file.
    """
    with opened(path) as file:
        raw = file.read(WHOLE_LIMIT + 1)
    if len(raw) > WHOLE_LIMIT:
        raise UserError(
            f"{path}: must hold at most 1 GiB to be read whole, got more: "
            "write one object a line, as .jsonl"
        )
    return without_mark(path, raw)


def text_of(where: str, raw: bytes) -> str:
    """Bytes as text.

    Args:
        where: file and line.
        raw: of a row.
    """
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        got = shorten(raw[error.start : error.start + 8])
        raise UserError(f"{where}: must be UTF-8, got {got} at byte {error.start + 1}") from None
