"""How far a pipeline is and how long the rest takes, from what stages write and took before."""

from __future__ import annotations

import heapq
import re
from collections.abc import Mapping, Sequence
from statistics import median

from instructgpt.pipeline.board import Running, Status
from instructgpt.pipeline.process import Child
from instructgpt.pipeline.spec import Spec, Stage

STEP = re.compile(r"^fit (\d+)/(\d+)(?:.*? (\d+):(\d\d):(\d\d) left)?")
EXAMPLE = "|"  # of the data, in a log: says nothing of how far the stage is
LEAST = 0.05
"""A stage that takes longer than expected is taken to need this share more."""


class Forecast:
    """Keeps what was measured, and tells from it what is left.

    Args:
        spec: the pipeline.
        names: the stages of this call.
        measured: seconds of each stage that is finished; the caller adds to it.
    """

    def __init__(self, spec: Spec, names: list[str], measured: dict[str, float]) -> None:
        self.spec, self.names, self.measured = spec, names, measured
        self._costs = {name: stage.cost for name, stage in spec.stages.items()}
        self._first_steps: dict[str, tuple[float, float]] = {}
        self._told: dict[str, tuple[str, float]] = {}  # the last line of steps, and since when
        self._fraction = 0.0

    def status(self, children: Mapping[str, Child], waiting: list[str], seconds: float) -> Status:
        """How far everything is: what is left against all that there was to do.

        Args:
            children: stages that run.
            waiting: stages that have not begun.
            seconds: of this call so far.
        """
        running, measured = [], dict(self.measured)
        for name, child in children.items():
            lines = child.lines()
            said = [line.strip() for line in lines if not line.lstrip().startswith(EXAMPLE)]
            running.append(Running(name, child.seconds, said[-1] if said else ""))
            rest = self._steps_left(name, child.seconds, lines)
            if rest is not None:
                measured[name] = child.seconds + rest
        costs = estimates(self._costs, measured)
        ends = {r.name: max(costs[r.name] - r.seconds, LEAST * costs[r.name]) for r in running}
        todo = {name: (costs[name], self.spec.stages[name].inputs) for name in waiting}
        rest = sum(ends.values()) + sum(costs[name] for name in waiting)
        past = sum(self.measured.get(name, 0.0) for name in self.names)
        past += sum(stage.seconds for stage in running)
        if past + rest > 0:  # an estimate that grows takes nothing back
            self._fraction = max(self._fraction, past / (past + rest))
        told = bool(measured) or any(cost is not None for cost in self._costs.values())
        places = {name: self.spec.places(name) for name in [*ends, *todo]}
        left = seconds_left(ends, todo, self.spec.jobs, places) if told else None
        return Status(self._fraction if told else 0.0, seconds, left, running)

    def _steps_left(self, name: str, seconds: float, lines: list[str]) -> float | None:
        """Seconds a running stage still needs: as it says, else by how it goes through its steps.

        It knows better, since rollouts take their time between its steps.
        """
        steps = [match for line in lines if (match := STEP.match(line))]
        if not steps or not int(steps[-1][2]):
            return None
        if steps[-1][3]:
            line, since = self._told.get(name, ("", 0.0))
            if line != steps[-1].string:
                line, since = self._told[name] = (steps[-1].string, seconds)
            hours, minutes, rest = map(int, steps[-1].groups()[2:])
            return max(0.0, hours * 3600 + minutes * 60 + rest - (seconds - since))
        fraction = int(steps[-1][1]) / int(steps[-1][2])
        first, since = self._first_steps.setdefault(name, (fraction, seconds))
        if fraction <= first:
            return None
        return (seconds - since) / (fraction - first) * (1 - fraction)


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


def longest_ways(stages: Mapping[str, Stage]) -> dict[str, float]:
    """Cost of each stage with that of the dearest chain of stages that wait for it.

    Args:
        stages: in order; without a cost they count for nothing.
    """
    ways: dict[str, float] = {}
    for name, stage in reversed([*stages.items()]):
        after = [way for other, way in ways.items() if name in stages[other].inputs]
        ways[name] = (stage.cost or 0.0) + max(after, default=0.0)
    return ways


def seconds_left(
    running: Mapping[str, float],
    waiting: Mapping[str, tuple[float, Sequence[str]]],
    jobs: int,
    places: Mapping[str, int] | None = None,
) -> float:
    """Seconds until all is done, when a stage starts as soon as inputs and its places are there.

    Args:
        running: seconds that each running stage still needs.
        waiting: seconds and inputs of each stage that has not started, in order.
        jobs: stages that run side by side.
        places: how many of them each takes; one where it is not said.

    Examples:
        >>> seconds_left({"a": 1.0}, {"b": (2.0, ["a"]), "c": (2.0, ["a"]), "d": (1.0, ["a"])}, 2)
        4.0
        >>> seconds_left({"a": 1.0}, {"b": (2.0, []), "c": (2.0, [])}, 2, {"b": 2})
        5.0
    """
    places = places or {}
    ends = [(seconds, name) for name, seconds in running.items()]
    heapq.heapify(ends)
    todo = dict(waiting)
    now = 0.0
    while ends or todo:
        open_names = {name for _, name in ends} | set(todo)
        ready = [name for name, (_, needs) in todo.items() if not open_names & set(needs)]
        taken = sum(places.get(name, 1) for _, name in ends)
        for name in ready:
            taken += places.get(name, 1)
            if taken > jobs:  # those behind it wait, too, as in the runner
                break
            heapq.heappush(ends, (now + todo.pop(name)[0], name))
        if not ends:  # what is left waits for something that is not run now
            break
        now = max(now, heapq.heappop(ends)[0])
    return now
