"""Processes that work for this one: they begin at once, and end with it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any


def cores() -> int:
    """How many cores this process may use."""
    allowed = getattr(os, "sched_getaffinity", None)  # not on macOS
    return len(allowed(0)) if allowed else os.cpu_count() or 1


def pool_of(
    count: int, begin: Callable[..., None] | None = None, *given: Any
) -> ProcessPoolExecutor:
    """Workers that end with this process, however it ends, and leave Ctrl-C to it.

    Args:
        count: of processes.
        begin: called in each of them first.
        given: to that.
    """
    # Forked, as DataLoader's workers are: they start at once, and need no script that can be
    # imported again. Where that is not safe (macOS), Python's own choice.
    how = multiprocessing.get_context("fork" if sys.platform == "linux" else None)
    return ProcessPoolExecutor(count, how, _begin, (begin, given))


def _begin(begin: Callable[..., None] | None, given: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if begin is not None:
        begin(*given)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGKILL)
