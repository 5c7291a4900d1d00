"""A stage in a process of its own, started in a fraction of a second by a fork server.

The server imports torch, Lightning and transformers once and forks a child for each stage, which
then looks as if ``python -m instructgpt VERB ...`` had been typed.
"""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from importlib.util import find_spec
from multiprocessing import forkserver, resource_tracker
from pathlib import Path

import torch

from instructgpt.pipeline.launch import StageCall, kill_below
from instructgpt.terminal import note

SERVER = "instructgpt.pipeline.server"
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",  # stages run side by side; results depend on the number of threads
    "TOKENIZERS_PARALLELISM": "false",
    "INSTRUCTGPT_LINE_SECONDS": "2",
    # glibc: keep freed memory, which the next step needs again, instead of faulting its pages in
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
    "MALLOC_MMAP_THRESHOLD_": str(2**25),
    "MALLOC_TOP_PAD_": str(2**26),
}
TAIL = 16384  # bytes of the log that are looked at


STOPS = {signal.SIGINT, signal.SIGTERM}


class Child:
    """A running stage.

    Args:
        call: what is called, with which arguments.
        log: file that its output is appended to.
    """

    def __init__(self, call: StageCall, log: Path) -> None:
        self.log = log
        self.begin = time.monotonic()
        self.signals = 0  # sent so far
        with log.open("ab") as file:
            file.write(f"\n$ {call.shown}\n".encode())
            self.offset = file.tell()
        context = multiprocessing.get_context("forkserver")
        entry, _, preload = call.program
        context.set_forkserver_preload([SERVER, preload] if preload else [SERVER])
        self.process = context.Process(
            target=_work,
            args=(entry, preload, call.arguments, str(log), call.patience, call.threads),
        )
        with _environment():
            _start_server()
            self.process.start()
        self.sentinel = self.process.sentinel

    @property
    def seconds(self) -> float:
        """Since it was started."""
        return time.monotonic() - self.begin

    @property
    def code(self) -> int | None:
        """The exit code, negative for a signal, or None while it runs."""
        return self.process.exitcode

    def send(self, number: int) -> None:
        """Send a signal to the stage and all it started."""
        pid = self.process.pid
        assert pid is not None
        if number == signal.SIGKILL:
            kill_below(pid)
        try:
            os.killpg(pid, number)
        except ProcessLookupError:  # it has not made its group yet, or is gone
            if self.process.exitcode is None:
                with suppress(ProcessLookupError):
                    os.kill(pid, number)

    def close(self) -> None:
        """Leave nothing of it running, nor of what it started."""
        self.send(signal.SIGKILL)
        self.process.join()

    def lines(self) -> list[str]:
        """The last lines of the log."""
        try:
            with self.log.open("rb") as file:
                end = file.seek(0, os.SEEK_END)
                file.seek(max(self.offset, end - TAIL))
                text = file.read().decode("utf-8", "replace")
        except OSError:  # somebody tidied up
            return []
        return [line for line in text.replace("\r", "\n").split("\n") if line.strip()]


def _start_server() -> None:
    """Start the server, if it does not run, so that no signal ends it before it ignores them."""
    resource_tracker.ensure_running()  # would let signals through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _environment() -> Iterator[None]:
    """What the server and all its children inherit, unless the user says otherwise."""
    added = {name: value for name, value in ENVIRONMENT.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


def _work(
    entry: str, preload: str, arguments: list[str], log: str, patience: float, threads: int
) -> None:
    """The life of a child."""
    os.setpgid(0, 0)  # Ctrl-C in the terminal reaches the parent alone, which passes it on
    threading.Thread(target=_end_with_parent, args=(patience,), daemon=True).start()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _redirect(log)
    if preload and preload not in sys.modules:
        note("nothing was imported ahead, this takes seconds more")
    if threads > 1:
        os.environ["OMP_NUM_THREADS"] = str(threads)  # for what it starts
        torch.set_num_threads(threads)  # the server has read that variable already
    module, _, function = entry.partition(":")
    try:
        sys.exit(getattr(import_module(module), function)(_pretend(module, arguments)))
    finally:  # what it started and left behind ends with it
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.killpg(0, signal.SIGTERM)


def _end_with_parent(patience: float) -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    if patience:  # a launcher, or a job that somebody must cancel
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(patience)
    kill_below(os.getpid())
    os.killpg(0, signal.SIGKILL)


def _redirect(log: str) -> None:
    """Send all output to the log, that of handlers made before the fork included.

    The lock on it is held by everything that inherits it: as long as one process of the stage
    lives, nobody begins the stage again.
    """
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    fcntl.flock(file, fcntl.LOCK_EX)
    null = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((null, 0), (file, 1), (file, 2)):
        os.dup2(source, target)
    os.close(file)
    os.close(null)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", errors="replace", line_buffering=True)  # type: ignore[union-attr]


def _pretend(module: str, arguments: Sequence[str]) -> list[str]:
    """Look like ``python -m``: Lightning starts further ranks with this command."""
    spec = find_spec(module)
    assert spec is not None
    sys.argv = [str(spec.origin), *arguments]
    sys.modules["__main__"].__spec__ = spec
    return list(arguments)
