"""Where the tasks of a preparation run: here, on a Slurm cluster, on a Ray cluster.

datatrove's executors have the marks of finished tasks, the logs, and the clusters. Its local one is
not used: killed, it leaves its manager and the processes of its pool behind, and where the system
kills one of these (out of memory) it waits for ever. Ours keeps all else of it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from instructgpt.data.workers import pool_of
from instructgpt.hygiene.datatrove_private import run_task
from instructgpt.types import UserError

Executor = Literal["local", "slurm", "ray"]
Step = Callable[[Any, int, int], None]


class Job(NamedTuple):
    """Tasks that may run at the same time, once those before are done."""

    name: str
    step: Step
    tasks: int


@dataclass(frozen=True)
class Slurm:
    """What Slurm is told about the jobs of ``--executor slurm``.

    Args:
        partition: where they run; must be given.
        time: limit of one task.
        memory: of one task, in GiB.
        environment: command that activates the Python environment, such as
            ``source venv/bin/activate``.
    """

    partition: str = ""
    time: str = "04:00:00"
    memory: int = 4
    environment: str | None = None


def check_installed() -> None:
    """Refuse to go on without the extra.

    Raises:
        UserError: with what to install.
    """
    try:
        import datatrove.executor.base
    except ImportError as error:
        raise UserError(
            f'prepare needs the extra "data": pip install "instructgpt[data]" ({error})'
        ) from None
    assert datatrove.executor.base


def run_here(job: Job, logs: Path, num_proc: int, tell: Callable[[int], None]) -> None:
    """Run the tasks that are not done on this machine.

    Args:
        job: with the tasks.
        logs: folder of the marks of finished tasks, and of their logs.
        num_proc: processes.
        tell: told the number of each task that is done.

    Raises:
        UserError: of a task, the first in the order of the tasks that have failed.
    """
    executor = _local(job, logs)
    waiting = executor.get_incomplete_ranks()
    for rank in set(range(job.tasks)) - set(waiting):
        tell(rank)
    if not waiting:
        return
    if num_proc == 1 or len(waiting) == 1:
        for rank in waiting:
            _run_task(executor, rank)
            tell(rank)
        return
    _run_pool(executor, waiting, num_proc, tell)


def _run_pool(
    executor: Any, waiting: Sequence[int], num_proc: int, tell: Callable[[int], None]
) -> None:
    pool = pool_of(min(num_proc, len(waiting)))
    try:
        futures = {pool.submit(_run_task, executor, rank): rank for rank in waiting}
        failed: dict[int, UserError] = {}
        for future in as_completed(futures):
            try:
                future.result()
            except UserError as error:
                failed[futures[future]] = error
                # What comes before may have failed as well, and is what is to be told.
                for other, rank in futures.items():
                    if rank > min(failed):
                        other.cancel()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
            else:
                tell(futures[future])
        if failed:
            raise failed[min(failed)]
    except BrokenProcessPool:
        raise UserError(
            "--num_proc: a process was killed, perhaps for want of memory: give fewer; the same "
            "command goes on"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _local(job: Job, logs: Path) -> Any:
    from datatrove.executor.local import LocalPipelineExecutor

    return LocalPipelineExecutor([job.step], job.tasks, 1, str(logs))


def _run_task(executor: Any, rank: int) -> None:
    with open(os.devnull, "w") as nothing, redirect_stderr(nothing):  # it logs to a file as well
        try:
            run_task(executor, rank)
        except UserError as error:  # kinds of it do not travel between processes
            raise UserError(f"{error}") from None


def slurm_executors(jobs: Sequence[Job], logs: Path, slurm: Slurm, workers: int) -> list[Any]:
    """A chain of Slurm jobs, each begun when the one before has done all its tasks.

    Args:
        jobs: in order.
        logs: folder of marks, logs and job scripts.
        slurm: what Slurm is told.
        workers: tasks of a job at the same time, -1 for all.
    """
    from datatrove.executor.slurm import SlurmPipelineExecutor

    chain: list[Any] = []
    for job in jobs:
        chain.append(
            SlurmPipelineExecutor(
                pipeline=[job.step],
                tasks=job.tasks,
                time=slurm.time,
                partition=slurm.partition,
                mem_per_cpu_gb=slurm.memory,
                workers=workers,
                job_name=f"prepare-{job.name}",
                qos="",
                env_command=slurm.environment,
                depends=chain[-1] if chain else None,
                logging_dir=str(logs / job.name),
                requeue=False,
            )
        )
    return chain


def ray_executor(job: Job, logs: Path, workers: int) -> Any:
    """What runs a job on the Ray cluster that this process is connected to.

    Args:
        job: with the tasks.
        logs: folder of marks and logs.
        workers: tasks at the same time, -1 for all.
    """
    from datatrove.executor.ray import RayPipelineExecutor

    return RayPipelineExecutor(
        pipeline=[job.step], tasks=job.tasks, workers=workers, logging_dir=str(logs / job.name)
    )


@contextmanager
def on_ray() -> Iterator[None]:
    """Be connected to a Ray cluster: that of ``ray start``, else one on this machine."""
    try:
        import ray
    except ImportError:
        raise UserError("--executor ray needs ray: pip install ray") from None
    ray.init(ignore_reinit_error=True)
    try:
        yield
    finally:
        ray.shutdown()
