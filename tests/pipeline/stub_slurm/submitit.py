"""Stands for submitit where that is not installed: a job is a thread of states and a process.

It has what the pipeline uses of it. A job waits for a moment, then runs its function in a process
of its own, whose output goes to a file.
"""

import multiprocessing
import os
import time
from pathlib import Path
from types import SimpleNamespace

WAITS = 1.0  # seconds in the queue


def _task(function, arguments, path, answers):
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    answers.put(function(*arguments))


class Job:
    def __init__(self, folder, function, arguments):
        self.job_id = "77"
        self.paths = SimpleNamespace(folder=folder, stdout=folder / "77_0_log.out")
        self.begin, self.cancelled = time.monotonic(), False
        context = multiprocessing.get_context("fork")
        self.answers = context.Queue()
        what = (function, arguments, self.paths.stdout, self.answers)
        self.process = context.Process(target=_task, args=what)
        self.started = False

    @property
    def state(self):
        if self.cancelled:
            return "CANCELLED"
        return "RUNNING" if time.monotonic() - self.begin > WAITS else "PENDING"

    def done(self, force_check=False):
        if self.state == "RUNNING" and not self.started:
            self.started = True
            self.process.start()
        over = self.started and not self.process.is_alive()
        return over or (self.cancelled and not self.started)

    def cancel(self, check=True):
        self.cancelled = True
        if self.started:
            self.process.terminate()

    def results(self):
        if self.cancelled:
            raise RuntimeError("Job 77 was cancelled")
        return [self.answers.get(timeout=5)]


class AutoExecutor:
    def __init__(self, folder, cluster):
        self.folder, self.cluster = Path(folder), cluster
        assert cluster in ("slurm", "local"), cluster

    def update_parameters(self, timeout_min, stderr_to_stdout, **others):
        assert stderr_to_stdout
        if set(others) - {"nodes", "slurm_partition"}:
            raise NameError(f"Unknown argument\n{sorted(others)}")

    def submit(self, function, *arguments):
        return Job(self.folder, function, arguments)
