"""A stage as a job of Slurm, through submitit: handed over, watched and cancelled from here.

This process stays while the job waits and runs. It writes the job's states and what its first task
prints to its own output, so that the log of the stage is where it is for any other.
"""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from instructgpt.errors import WRONG_INPUT, collapse
from instructgpt.pipeline.launch import main as run_command
from instructgpt.terminal import say

POLL_SECONDS = 0.5
OVER = "no longer queued"
ASK_SECONDS = 15.0  # between questions to Slurm, which all users share


def main(arguments: list[str]) -> int:
    """Submit a job, wait for its end, and give its exit code.

    Args:
        arguments: parameters of submitit as JSON, then the command of each task.
    """
    settings, command = json.loads(arguments[0]), arguments[1:]
    try:
        job = submit(settings, command)
    except Exception as error:  # of sbatch, or of a parameter: submitit raises many kinds
        say(f"instructgpt: error: slurm: {collapse(str(error))}", error=True)
        return WRONG_INPUT
    asked: list[int] = []

    def stop(*_: Any) -> None:
        if not asked:
            asked.append(1)
            say(f"job {job.job_id}: cancelled")
            job.cancel(check=False)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    say(f"job {job.job_id}: submitted; its files are in {job.paths.folder}")
    follow(job, lambda: bool(asked))
    return exit_code(job)


def submit(settings: dict[str, Any], command: list[str]) -> Any:
    """The job of submitit that runs a command in each of its tasks.

    Args:
        settings: parameters of submitit, with ``folder`` and perhaps ``cluster``.
        command: with all its words.
    """
    import submitit

    parameters = dict(settings)
    folder, cluster = parameters.pop("folder"), parameters.pop("cluster", "slurm")
    Path(folder).mkdir(parents=True, exist_ok=True)
    executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
    executor.update_parameters(**{"stderr_to_stdout": True, **parameters})
    return executor.submit(run_command, command)


def follow(job: Any, cancelled: Callable[[], bool]) -> None:
    """Print what the first task prints, and each new state, until the job is over.

    Args:
        job: of submitit.
        cancelled: it was, so that Slurm is asked more often.
    """
    path, place, state, asked = Path(job.paths.stdout), 0, "", -ASK_SECONDS
    logging.getLogger("submitit").setLevel(logging.ERROR)  # warnings each time that sacct fails
    while True:
        done = job.done(force_check=cancelled()) or state == OVER
        place += _print_from(path, place)
        if done:
            return
        if time.monotonic() - asked > ASK_SECONDS:
            asked = time.monotonic()
            if (now := state_of(job)) != state:
                state = now
                say(f"job {job.job_id}: {state}")
        time.sleep(POLL_SECONDS)


def state_of(job: Any) -> str:
    """What Slurm says of a job: by sacct, which submitit asks, or on clusters without it by squeue.

    Args:
        job: of submitit.
    """
    state = str(job.state)
    if state != "UNKNOWN":
        return state
    command = ["squeue", "--noheader", "--format=%T", f"--jobs={job.job_id}"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True)
    except OSError:
        return state
    if answer.returncode == 0 or "Invalid job id" in answer.stderr:  # else it cannot be reached
        return answer.stdout.partition("\n")[0].strip() or OVER
    return state


def _print_from(path: Path, place: int) -> int:
    """Print the rest of a file; how much that was."""
    if not path.is_file():
        return 0
    with path.open("rb") as file:
        file.seek(place)
        text = file.read()
    sys.stdout.write(text.decode("utf-8", "replace"))
    sys.stdout.flush()
    return len(text)


def exit_code(job: Any) -> int:
    """The first that is not 0 among those of the tasks; 1 where one ended without any.

    Args:
        job: that is over.
    """
    if not job.done():  # its results would be waited for
        say(f"job {job.job_id}: {OVER}, and has left no result", error=True)
        return 1
    try:
        codes = [int(code) for code in job.results()]
    except Exception as error:  # killed, out of time, or submitit's own
        first = str(error).strip().splitlines()[:1]
        say(f"job {job.job_id}: {job.state}: {''.join(first)}", error=True)
        return 1
    return next((code for code in codes if code), 0)
