"""What leaves for the terminal: no character of data, models or file names acts on it."""

from __future__ import annotations

import logging
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

# C0 but tab and line feed, DEL, C1; marks and overrides of direction; line separators; half
# surrogates, which no terminal can be sent.
_ACTING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: object) -> str:
    r"""Control characters as visible escapes; line feeds and tabs stay.

    The escapes are those of JSON, so that a line of JSON still holds the same values.

    >>> print(printable("red \x1b[31m, back \u202e"))
    red \u001b[31m, back \u202e
    """
    return _ACTING.sub(lambda found: f"\\u{ord(found[0]):04x}", str(text))


def say(text: object, error: bool = False, end: str = "\n") -> None:
    """Print a text in which nothing acts on the terminal.

    Args:
        text: one line or several.
        error: to the error output.
        end: behind the text.
    """
    print(printable(text), file=sys.stderr if error else sys.stdout, flush=True, end=end)


def note(line: str) -> None:
    """Tell what a verb without a summary does with its input, beside its output.

    Args:
        line: to tell.
    """
    say(f"note: {line}", error=True)


@contextmanager
def harmless_messages() -> Iterator[None]:
    """Warnings are lines of text, and like log records of any package printable, in here."""
    show, make = warnings.formatwarning, logging.getLogRecordFactory()

    def shown(message: Warning | str, *_: Any, **__: Any) -> str:  # without the line of code
        return f"warning: {printable(message)}\n"

    def made(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make(*args, **kwargs)
        with suppress(TypeError, ValueError):  # arguments that do not fit: its handler says so
            record.msg, record.args = printable(record.getMessage()), ()
        return record

    warnings.formatwarning = shown
    logging.setLogRecordFactory(made)
    try:
        yield
    finally:
        warnings.formatwarning = show
        logging.setLogRecordFactory(make)


def duration(seconds: float) -> str:
    """Hours, minutes and seconds.

    Examples:
        >>> duration(3725.4)
        '1:02:05'
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
