"""What is taken from the inside of datatrove."""

from __future__ import annotations

from typing import Any


def run_task(executor: Any, rank: int) -> None:
    """Run one task of an executor in this process, with its log and its mark of completion.

    The executor's own ``run`` starts a manager and a pool of processes that nothing ends when their
    parent is killed, and that wait for ever for a worker that was.

    Args:
        executor: with a pipeline.
        rank: number of the task.
    """
    executor._run_for_rank(rank, local_rank=rank)
