"""What is taken from the inside of Python's process pools."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress


def end_broken(pool: ProcessPoolExecutor) -> None:
    """End a pool of which a process was killed, so that its ``shutdown`` comes to an end.

    Its other processes can wait for a lock that the killed one held, and ignore SIGTERM. A thread
    of this process can wait for room in the pipe from which they read (Python before 3.11.5).

    Args:
        pool: that has raised BrokenProcessPool.
    """
    for worker in list((pool._processes or {}).values()):
        worker.kill()
    with suppress(OSError):  # the pipe is closed: nobody waits
        pipe = os.dup(pool._call_queue._reader.fileno())  # type: ignore[attr-defined]
        threading.Thread(target=_empty, args=(pipe,), daemon=True).start()


def _empty(pipe: int) -> None:
    """Read until nobody writes any more."""
    with open(pipe, "rb", buffering=0) as reader:
        while reader.read(65536):
            pass
