"""What the terminal shows of a running pipeline."""

from __future__ import annotations

import sys
import time
from typing import NamedTuple, Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from instructgpt.errors import fall_silent
from instructgpt.terminal import duration, printable, say

LINE_SECONDS = 15.0


class Running(NamedTuple):
    """A stage that is running."""

    name: str
    seconds: float
    line: str  # the last of its log


class Status(NamedTuple):
    """How far everything is."""

    fraction: float
    seconds: float
    left: float | None
    running: list[Running]


class Board(Protocol):
    """Where it is shown."""

    def say(self, text: str) -> None:
        """Show a line that stays."""

    def update(self, status: Status) -> None:
        """Show how far everything is; called several times a second."""

    def close(self) -> None:
        """Everything is over."""


class PlainBoard:
    """Plain lines, for files and pipes.

    Args:
        seconds: from one report on what is running to the next.
    """

    def __init__(self, seconds: float = LINE_SECONDS) -> None:
        self.seconds = seconds
        self._last = time.monotonic()

    def say(self, text: str) -> None:
        """Print; without a reader the stages go on unseen."""
        try:
            say(text)
        except BrokenPipeError:
            fall_silent()

    def update(self, status: Status) -> None:
        """Print when it is time to."""
        if time.monotonic() - self._last < self.seconds:
            return
        self._last = time.monotonic()
        for stage in status.running:
            self.say(f"  {stage.name} {duration(stage.seconds)}  {stage.line}")
        if status.left is not None:
            self.say(f"  {status.fraction:.0%} done, about {duration(status.left)} left")

    def close(self) -> None:
        """Nothing to leave."""


class LiveBoard:
    """A bar for the whole and a line for each running stage, below the lines that stay.

    Args:
        console: the terminal.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console()
        self._live = Live(console=self.console, auto_refresh=False, transient=True)

    def say(self, text: str) -> None:
        """Print above the bar; no character of it means anything to rich."""
        self.console.print(Text(printable(text)), highlight=False, soft_wrap=True)

    def update(self, status: Status) -> None:
        """Draw."""
        if not self._live.is_started:
            self._live.start()
        self._live.update(picture(status), refresh=True)

    def close(self) -> None:
        """Remove the bar."""
        self._live.stop()


def picture(status: Status) -> Group:
    """The bar and the lines, each cut to the width of the terminal."""
    left = "" if status.left is None else f"  about {duration(status.left)} left"
    whole = Table.grid(padding=(0, 2))
    bar = ProgressBar(total=1.0, completed=status.fraction, width=24)
    whole.add_row(bar, _line(f"{status.fraction:.0%}  {duration(status.seconds)}{left}"))
    width = max((len(stage.name) for stage in status.running), default=0)
    rows = [f"{s.name:{width}}  {duration(s.seconds)}  {s.line}" for s in status.running]
    return Group(whole, *map(_line, rows))


def _line(text: str) -> Text:
    return Text(printable(text), no_wrap=True, overflow="ellipsis")


def make_board() -> Board:
    """A screen on a terminal, else lines."""
    return LiveBoard() if sys.stdout.isatty() else PlainBoard()
