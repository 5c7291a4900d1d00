"""Files as bytes and lines: what is no ordinary file is refused before it is opened."""

from __future__ import annotations

import gzip
import io
import os
import stat
import zlib
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

from instructgpt.data.errors import shorten
from instructgpt.types import NoDataError, UserError

LINE_LIMIT = 8 * 2**20
"""Longer rows are refused: they are a wrong file more often than a row (bytes)."""

BUFFER = 2**20
"""How much is decompressed at once (bytes)."""

COMPRESSED = (".gz", ".zst")
"""How the names of compressed files end."""

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

    @property
    def size(self) -> int:
        """About how many bytes the value has."""
        return _size(self.value)


def _size(value: Any) -> int:
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, dict):
        return sum(map(_size, value.values()))
    return sum(map(_size, value)) if isinstance(value, list) else 8


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
        raise NoDataError(f"{path}: no such file")
    if kind != "file":
        raise UserError(f"{path}: must be an ordinary file, got a {kind}")


def plain_name(path: Path) -> str:
    """The name of a file in lower case, without what compression adds to it.

    >>> plain_name(Path("here/A.JSONL.gz"))
    'a.jsonl'
    """
    name = path.name.lower()
    return name.removesuffix(packed) if (packed := _packed(path)) else name


def _packed(path: Path) -> str:
    return next((kind for kind in COMPRESSED if path.name.lower().endswith(kind)), "")


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """The bytes of an ordinary file, decompressed where the name ends with .gz or .zst.

    Args:
        path: of the file.
    """
    check_file(path)
    packed = _packed(path)
    try:
        with ExitStack() as stack:
            file: Any = stack.enter_context(path.open("rb"))
            if packed == ".gz":
                file = stack.enter_context(gzip.open(file))
            elif packed == ".zst":
                import pyarrow  # here because it takes a moment to load; it comes with datasets

                file = stack.enter_context(pyarrow.CompressedInputStream(file, "zstd"))
                file = io.BufferedReader(file, BUFFER)
            yield file
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{path}: must be a whole gzip file, got: {error}") from None
    except OSError as error:
        if packed == ".zst" and error.errno is None:
            raise UserError(f"{path}: must be a whole zstd file, got: {error}") from None
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


def raw_lines(path: Path) -> Generator[tuple[str, bytes | UserError], None, None]:
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
