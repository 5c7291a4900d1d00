"""How long the rest of a pipeline will take."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from statistics import median


def estimates(costs: Mapping[str, float | None], measured: Mapping[str, float]) -> dict[str, float]:
    """Seconds of each stage: measured, or its cost on the scale of those that were measured.

    Args:
        costs: relative seconds of each stage; None: not said, then like most.
        measured: seconds of those that are done, or of which it can be told.

    Examples:
        >>> estimates({"a": 2.0, "b": 3.0, "c": None}, {"a": 20.0})
        {'a': 20.0, 'b': 30.0, 'c': 25.0}
    """
    known = {name: cost for name, cost in costs.items() if cost is not None}
    told = [name for name in measured if name in known]
    if told:
        scale = sum(measured[name] for name in told) / sum(known[name] for name in told)
        typical = median(known.values()) * scale
    else:
        scale, typical = 1.0, median([*measured.values(), *known.values()] or [1.0])
    seconds = {name: typical if cost is None else cost * scale for name, cost in costs.items()}
    return {**seconds, **measured}


def time_left(
    running: Mapping[str, float],
    waiting: Mapping[str, tuple[float, Sequence[str]]],
    jobs: int,
) -> float:
    """Seconds until all is done, when a stage starts as soon as inputs and a place are there.

    Args:
        running: seconds that each running stage still needs.
        waiting: seconds and inputs of each stage that has not started, in order.
        jobs: stages that run side by side.

    Examples:
        >>> time_left({"a": 1.0}, {"b": (2.0, ["a"]), "c": (2.0, ["a"]), "d": (1.0, ["a"])}, 2)
        4.0
    """
    ends = [(seconds, name) for name, seconds in running.items()]
    heapq.heapify(ends)
    todo = dict(waiting)
    now = 0.0
    while ends or todo:
        open_names = {name for _, name in ends} | set(todo)
        ready = [name for name, (_, needs) in todo.items() if not open_names & set(needs)]
        for name in ready[: max(0, jobs - len(ends))]:
            heapq.heappush(ends, (now + todo.pop(name)[0], name))
        if not ends:  # what is left waits for something that is not run now
            break
        now = max(now, heapq.heappop(ends)[0])
    return now
