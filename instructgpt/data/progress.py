"""How far a long preparation is, how fast it goes, and how long it will take."""

from __future__ import annotations

import sys
import time
from typing import Any

from instructgpt.terminal import duration, note, printable

PATIENCE = 2.0
"""Shorter preparations are over before anybody asks (seconds)."""

SELDOM = 30.0
"""Where there is no terminal, how often a line is written (seconds)."""


class Progress:
    """A bar in a terminal, elsewhere a line now and then; nothing for what takes a moment.

    Args:
        what: is done.
        size: of the input in bytes, 0 if nobody knows.
    """

    def __init__(self, what: str, size: int) -> None:
        self.what, self.size = printable(what), size
        self.rows = self.done = 0
        self.began = time.monotonic()
        self.next = self.began + PATIENCE
        self._bar: Any = None

    def __enter__(self) -> Progress:
        """Begin."""
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the terminal as it was."""
        if self._bar is not None:
            self._bar.stop()

    def add(self, rows: int, read: int) -> None:
        """Show that more is done.

        Args:
            rows: that are ready.
            read: bytes that they were made of.
        """
        self.rows += rows
        self.done += read
        now = time.monotonic()
        if now < self.next:
            return
        if sys.stderr.isatty():
            self.next = now + 0.1
            self._draw(now)
        else:
            self.next = now + SELDOM
            note(f"{self.what}: {self._state(now)}")

    def _state(self, now: float) -> str:
        spent = now - self.began
        rate = f"{self.rows:,} rows, {self.rows / spent:,.0f} a second"
        if not self.size or self.done > self.size:  # a compressed file is larger than it looks
            return rate
        left = duration(spent * (self.size / self.done - 1))
        return f"{self.done / self.size:.0%}, {rate}, {left} left"

    def _draw(self, now: float) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bar

        if self._bar is None:
            columns = TextColumn("{task.description}", markup=False), BarColumn()
            state = TextColumn("{task.fields[state]}", markup=False)
            self._bar = Bar(*columns, state, console=Console(stderr=True), transient=True)
            self._bar.add_task(self.what, total=self.size or None, state="")
            self._bar.start()
        known = self.done <= self.size
        self._bar.update(
            0,
            completed=self.done if known else None,
            total=self.size if known else None,
            state=self._state(now),
        )
