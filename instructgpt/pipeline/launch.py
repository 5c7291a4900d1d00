"""What runs a stage: a process here, a launcher such as torchrun or srun, or a job of Slurm.

Neither is part of a stage's fingerprint: processes started in another way do the same, so that a
stage which was begun on a laptop goes on from its checkpoint on a cluster.
"""

from __future__ import annotations

import ctypes
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from instructgpt.pipeline.program import Program
from instructgpt.types import UserError

TORCHRUN = ("torchrun", "torch.distributed.run")
"""Launchers that start Python themselves."""
PR_SET_CHILD_SUBREAPER = 36  # of Linux
JOBS_FOLDER = ".jobs"
PATIENCE = 30.0  # seconds for a launcher to end its processes, when the pipeline is killed


class StageCall(NamedTuple):
    """How a stage is started: by which program, with which arguments, and what a person reads."""

    program: Program
    arguments: list[str]
    shown: str
    patience: float = 0.0  # seconds to end by itself when the pipeline is killed
    threads: int = 1  # more than one: instead of what the environment says


def read_launch(value: Any, place: str) -> list[str]:
    """The words of a ``launch``.

    Args:
        value: as written: text as in a shell, or a list of words.
        place: file, stage and key, for messages.
    """
    if isinstance(value, str):
        try:
            return shlex.split(value)
        except ValueError as error:
            raise UserError(f"{place} must be a command, got {value!r}: {error}") from None
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise UserError(f"{place} must be a command or a list of its words, got {value!r}")
    return value


def read_job(value: Any, place: str) -> dict[str, Any]:
    """What a job is submitted with; nothing for none.

    Args:
        value: as written: parameters of submitit, and ``cluster``.
        place: file, stage and key, for messages.
    """
    if value in (None, ""):
        return {}
    if not isinstance(value, dict):
        raise UserError(f"{place} must be a mapping with timeout_min and others, got {value!r}")
    minutes = value.get("timeout_min", 1) if value else 1
    if isinstance(minutes, bool) or not isinstance(minutes, int | float) or minutes <= 0:
        raise UserError(f"{place}.timeout_min must be minutes > 0, got {minutes!r}")
    if value and "timeout_min" not in value:
        raise UserError(f"{place} must have timeout_min, the limit in minutes (else it is 5)")
    return value


def check_there(launch: list[str], job: dict[str, Any], place: str) -> None:
    """Refuse before anything runs what this machine cannot start.

    Args:
        launch: of a stage.
        job: of the same stage.
        place: the stage, for messages.
    """
    if launch and not job and shutil.which(launch[0]) is None:
        raise UserError(f"{place}.launch must begin with a program that is there, got {launch[0]}")
    if not job:
        return
    if find_spec("submitit") is None:
        raise UserError(f'{place}.slurm needs the extra "slurm": pip install "instructgpt[slurm]"')
    if job.get("cluster", "slurm") == "slurm" and shutil.which("sbatch") is None:
        raise UserError(
            f"{place}.slurm needs sbatch, which is not on this machine; "
            "cluster: local tries it here"
        )


def call_of(
    program: Program, launch: list[str], job: dict[str, Any], jobs: Path, arguments: list[str]
) -> StageCall:
    """How a stage is started.

    Args:
        program: that a stage is.
        launch: words in front of it.
        job: what a job is submitted with; nothing for a process here.
        jobs: folder for what submitit writes of it.
        arguments: of the stage, the verb first.
    """
    if not launch and not job:
        return StageCall(
            program, arguments, shlex.join(["python", "-m", "instructgpt", *arguments])
        )
    module = program.entry.partition(":")[0].removesuffix(".__main__")
    python = [] if any(Path(word).name in TORCHRUN for word in launch) else [sys.executable]
    command = [*launch, *python, "-m", module, *arguments]
    if not job:
        start = program._replace(entry=f"{__name__}:main")
        return StageCall(start, command, shlex.join(command), PATIENCE)
    start = program._replace(entry=f"{__package__}.jobs:main")
    given = json.dumps({"folder": str(jobs), **job})
    return StageCall(start, [given, *command], f"[job] {shlex.join(command)}", PATIENCE)


def main(command: list[str]) -> int:
    """Run a command and give its exit code; asked to stop, ask it to save and stop.

    SIGTERM also for Ctrl-C: torchrun and srun hand it to all their processes.

    Args:
        command: the launcher with all its words.
    """
    _adopt()
    process = subprocess.Popen(command, start_new_session=True)  # signals come through here alone

    def stop(*_: Any) -> None:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, stop)
    code = process.wait()
    kill_below(os.getpid())  # what a launcher that was killed has left behind
    return code if code >= 0 else 128 - code


def _adopt() -> None:
    """Become the parent of what a launcher leaves behind (Linux), to find it."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def kill_below(pid: int) -> None:
    """Kill all that a process has started, in whatever group: torchrun makes one for each rank.

    Where the system does not say who is whose child, nothing.

    Args:
        pid: of the process, which stays.
    """
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError):
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    found = [pid]
    for one in found:  # which grows
        found += [child for child, parent in parents.items() if parent == one]
    for one in found[1:]:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(one, signal.SIGKILL)
