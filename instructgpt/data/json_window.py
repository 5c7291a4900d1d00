"""A long JSON text of which a part is held at a time."""

from __future__ import annotations

import codecs
import json
import re
from pathlib import Path
from typing import IO, Any

from instructgpt.data.errors import shorten
from instructgpt.data.opening import LINE_LIMIT, without_mark
from instructgpt.data.values import DECODER
from instructgpt.types import UserError

_SPACE = re.compile(r"[ \t\n\r]*")
_BRACKET = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[\]{}]', re.DOTALL)
_OUTSIDE = re.compile(r'[^"\[\]{}]*+(["\[\]{}]?)')
_INSIDE = re.compile(r'[^"\\]*+(?:\\.[^"\\]*+)*+("?)', re.DOTALL)  # not the first half of an escape
_DEPTH = {"[": 1, "{": 1, "]": -1, "}": -1}


def limit_of(error: Exception) -> str:
    """What is right by JSON's grammar and still cannot be read."""
    return "nested too deeply" if isinstance(error, RecursionError) else str(error).split(";")[0]


class JsonWindow:
    """The part of a file around a position, which moves on.

    What is not UTF-8 becomes half surrogates, for which the row it stands in is refused.

    Args:
        path: of the file, for messages.
        file: its bytes.
    """

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self.path = path
        self._file = file
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._text = self._decoder.decode(without_mark(path, file.read(LINE_LIMIT)))
        self._position = 0
        self._ended = False
        self._line, self._counted = 1, 0

    def next(self) -> str:
        """The next character that is no white space, where the position then is; "" at the end."""
        while True:
            match = _SPACE.match(self._text, self._position)
            self._position = match.end() if match else self._position
            if self._position < len(self._text) or self._ended:
                return self._text[self._position : self._position + 1]
            self._fill(LINE_LIMIT)

    def step(self) -> None:
        """Go one character on."""
        self._position += 1

    def line(self) -> int:
        """The line of the position."""
        self._line += self._text.count("\n", self._counted, self._position)
        self._counted = self._position
        return self._line

    def seen(self) -> str:
        """What stands at the position, shortened."""
        return shorten(self._text[self._position : self._position + 80])

    def value(self, where: str, limit: int = 0) -> Any:
        """The value at the position, or what is wrong with it; the position is then behind it.

        Args:
            where: file, line and item, for messages.
            limit: how long it may be, if not as a line (characters).
        """
        ahead, limit = LINE_LIMIT, limit or LINE_LIMIT
        while True:
            self._fill(ahead)
            try:
                value, end = DECODER.raw_decode(self._text, self._position)
            except (RecursionError, ValueError) as error:
                if self._ended or ahead >= limit or self._end() is not None:
                    return self._bad(where, limit, error)
                ahead *= 4
                continue
            if end - self._position > limit:
                value = _long(where, limit)
            self._position = end
            return value

    def _fill(self, ahead: int) -> None:
        """Hold so many characters from the position on, and forget what is behind it."""
        if self._ended or len(self._text) - self._position >= ahead:
            return
        self.line()
        parts, count = [self._text[self._position :]], len(self._text) - self._position
        while count < 2 * ahead and not self._ended:
            raw = self._file.read(LINE_LIMIT)
            self._ended = not raw
            parts.append(self._decoder.decode(raw, final=self._ended))
            count += len(parts[-1])
        self._text, self._position, self._counted = "".join(parts), 0, 0

    def _bad(self, where: str, limit: int, error: Exception) -> UserError:
        """What is wrong with the value at the position, where that is known to end."""
        end, got = self._end(), self.seen()
        if end is None and not self._ended:
            self._skip()
            return _long(where, limit)
        if isinstance(error, json.JSONDecodeError):
            raise UserError(f"{where}: malformed JSON, got {got}") from None
        problem = UserError(f"{where}: malformed JSON: {limit_of(error)}, got {got}")
        if end is None:
            raise problem from None
        self._position = end
        return problem

    def _end(self) -> int | None:
        """Where the value at the position ends, None where that is not held."""
        depth = 0
        for found in _BRACKET.finditer(self._text, self._position):
            depth += _DEPTH.get(found[0], 0)
            if depth == 0:
                return found.end()
        return None

    def _skip(self) -> None:
        """Go behind a value of any length, or to the end of the file."""
        depth, quoted = 0, False
        while True:
            pattern = _INSIDE if quoted else _OUTSIDE
            found = pattern.match(self._text, self._position)
            self._position = found.end() if found else self._position
            mark = found[1] if found else ""
            if mark:
                quoted ^= mark == '"'
                depth += _DEPTH.get(mark, 0)
                if depth == 0 and not quoted:
                    return
            elif self._ended:
                return
            else:
                self._fill(LINE_LIMIT)


def _long(where: str, limit: int) -> UserError:
    return UserError(f"{where}: must be at most {limit // 2**20} MiB long, got a longer row")
