"""Two (or more) processes for a test, in a second and without launching Python again.

The children are forked and look as if ``torchrun`` had started them, so that any Lightning strategy
runs in them as it is. A test that hangs is ended by a hard timeout.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import queue
import signal
import socket
import time
import traceback
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


def run_processes(
    function: Callable[..., T], *args: Any, processes: int = 2, timeout: float = 60.0
) -> list[T]:
    """Call ``function(*args)`` in each process of a group and return what each returns.

    Args:
        function: reads its rank from Lightning or ``torch.distributed``; a closure works.
        args: passed on; not pickled, as the children are forks.
        processes: how many.
        timeout: seconds until all of them must have answered.

    Raises:
        AssertionError: a child raised, died or did not answer; the message has its traceback.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = multiprocessing.get_context("fork")
    answers: Any = context.Queue()
    children = [
        context.Process(
            target=_child, args=(rank, processes, port, function, args, answers), daemon=True
        )
        for rank in range(processes)
    ]
    for child in children:
        child.start()
    try:
        results = _collect(answers, children, time.monotonic() + timeout)
    finally:
        for child in children:
            child.join(2)
            if child.is_alive():
                child.kill()
                child.join()
    failures = [f"rank {r}: {value}" for r, (good, value) in sorted(results.items()) if not good]
    missing = [r for r in range(processes) if r not in results]
    codes = [child.exitcode for child in children]
    assert not failures, "\n".join(failures)
    assert not missing, f"no answer from ranks {missing} (exit codes {codes})"
    return [pickle.loads(results[rank][1]) for rank in range(processes)]


def _collect(answers: Any, children: list[Any], deadline: float) -> dict[int, tuple[bool, Any]]:
    results: dict[int, tuple[bool, Any]] = {}
    while len(results) < len(children) and time.monotonic() < deadline:
        try:
            rank, good, value = answers.get(timeout=0.1)
        except queue.Empty:
            if not any(child.is_alive() for child in children) and answers.empty():
                break
            continue
        results[rank] = (good, value)
        if not good:
            deadline = min(deadline, time.monotonic() + 5)  # the others now wait for a dead rank
    return results


def _child(
    rank: int,
    processes: int,
    port: int,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    answers: Any,
) -> None:
    try:
        os.environ.update(
            TORCHELASTIC_RUN_ID="test",
            RANK=str(rank),
            LOCAL_RANK=str(rank),
            GROUP_RANK="0",
            WORLD_SIZE=str(processes),
            LOCAL_WORLD_SIZE=str(processes),
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=str(port),
        )
        import torch
        from lightning.fabric.utilities.rank_zero import rank_zero_only

        torch.set_num_threads(1)
        rank_zero_only.rank = rank
        # As bytes: torch would pass tensors as open files of a process that is about to end.
        answers.put((rank, True, pickle.dumps(function(*args))))
    except BaseException:
        answers.put((rank, False, traceback.format_exc()[-4000:]))


def killed(function: Callable[[], Any]) -> None:
    """Call a function in a child process, which must end by SIGKILL.

    Args:
        function: kills its process before it returns.
    """
    child = os.fork()
    if child == 0:
        try:
            function()
        finally:
            os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
