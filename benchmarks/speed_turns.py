"""Units of work in turns: two processes that stay alive, of which one works at a time.

A worker is a process that has loaded its models and trains on. At the borders of a unit (a phase,
an epoch) it waits until the driver says ``go``; then it works, and says what that took and what it
did. So neither side pays for the start of the other, and noise of the machine meets both.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import select
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent


class Turns:
    """The worker's side.

    Args:
        device: what the work runs on.
    """

    def __init__(self, device: str) -> None:
        self.cuda = device == "cuda"
        number = os.environ.get("SPEED_PIPE")
        alone = os.environ.get("LOCAL_RANK", "0") == "0"  # other ranks follow the first
        self.pipe = os.fdopen(int(number), "w") if number and alone else None
        self.counts: dict[str, Any] = {}
        self.parts: dict[str, float] = {}
        self.profile: Any = None
        self.start = self.cpu = 0.0

    def count(self, **numbers: Any) -> None:
        """Add to what the unit has done; tensors are read when it ends."""
        for name, number in numbers.items():
            self.counts[name] = self.counts.get(name, 0) + number

    def begin(self) -> None:
        """Wait for the turn."""
        import torch

        self._synchronize()
        order = sys.stdin.readline().strip() if self.pipe else "go"
        if not order:  # the driver has seen enough
            os._exit(0)
        self.counts, self.parts = {}, {}
        if order == "profile":
            kinds = [torch.profiler.ProfilerActivity.CPU]
            kinds += [torch.profiler.ProfilerActivity.CUDA] if self.cuda else []
            self.profile = torch.profiler.profile(activities=kinds)
            self.profile.__enter__()
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
        self.start, self.cpu = time.perf_counter(), time.process_time()

    def end(self, **fixed: Any) -> None:
        """Say what the unit took.

        Args:
            **fixed: what else is to be said.
        """
        import torch

        self._synchronize()
        seconds, cpu = time.perf_counter() - self.start, time.process_time() - self.cpu
        peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        peak = torch.cuda.max_memory_allocated() if self.cuda else peak
        found = {"seconds": seconds, "cpu_seconds": cpu, "peak_bytes": peak, "parts": self.parts}
        found["counts"] = {name: int(number) for name, number in self.counts.items()}
        if self.profile is not None:
            self.profile.__exit__(None, None, None)
            found["profile"] = _costs(self.profile, self.cuda)
            self.profile = None
        if self.cuda:  # the other side is to find room
            torch.cuda.empty_cache()
        if self.pipe:
            print(json.dumps(found | fixed), file=self.pipe, flush=True)

    def _synchronize(self) -> None:
        if self.cuda:
            import torch

            torch.cuda.synchronize()


def _costs(profile: Any, cuda: bool) -> dict[str, float]:
    """Shares of the ten largest costs of a profiled unit."""
    name = "self_device_time_total" if cuda else "self_cpu_time_total"
    events = sorted(profile.key_averages(), key=lambda event: -getattr(event, name))
    whole = sum(getattr(event, name) for event in events)
    found = {event.key[:80]: round(getattr(event, name) / whole, 4) for event in events[:10]}
    return {"seconds of all": round(whole / 1e6, 4), **found}


def watch(turns: Turns, model: Any, pad: int) -> None:
    """Count optimizer steps, and the tokens that a network trains on.

    Args:
        turns: to tell.
        model: a transformers model.
        pad: id of padding.
    """
    from torch.optim.optimizer import register_optimizer_step_post_hook

    def seen(module: Any, inputs: Any) -> None:
        import torch

        if module.training and torch.is_grad_enabled():
            turns.count(tokens=(inputs[0] != pad).sum())

    register_optimizer_step_post_hook(lambda *_: turns.count(steps=1))
    model.get_input_embeddings().register_forward_pre_hook(seen)


def without_collector() -> None:
    """TRL collects garbage in every phase; at these sizes that is seconds, which it is spared."""
    gc.collect = lambda *_: 0  # type: ignore[assignment]


class Worker:
    """The driver's side.

    Args:
        python: the interpreter.
        script: of this folder.
        work: what to do, for the script.
        log: where it prints.
        core: to stay on; None leaves it free.
        package: folder that ``instructgpt`` is imported from.
    """

    def __init__(
        self,
        python: str,
        script: str,
        work: dict[str, Any],
        log: Path,
        core: int | None,
        package: Path,
    ) -> None:
        reader, writer = os.pipe()
        threads = str(work.get("threads", 1))
        given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
        paths = os.pathsep.join([str(package), str(HERE), *filter(None, given)])
        environment = {**os.environ, "PYTHONPATH": paths, "SPEED_PIPE": str(writer)}
        environment |= {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
        environment |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        command = [python, str(HERE / script), json.dumps(work)]
        if core is not None and work.get("devices", 1) == 1 and work["device"] == "cpu":
            command = ["taskset", "-c", str(core), *command]
        self.log, self.name = log, script
        with log.open("w") as file:
            self.process = subprocess.Popen(
                command,
                cwd=log.parent,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=subprocess.STDOUT,
                pass_fds=[writer],
                text=True,
            )
        os.close(writer)
        self.pipe = os.fdopen(reader)

    def unit(self, order: str = "go", most: float | None = None) -> dict[str, Any] | None:
        """Let it do one unit.

        Args:
            order: ``go``, or ``profile`` to have its costs with it.
            most: seconds to wait; then it is None.
        """
        assert self.process.stdin is not None
        try:
            print(order, file=self.process.stdin, flush=True)
        except BrokenPipeError:
            self._failed()
        if most is not None and not select.select([self.pipe], [], [], most)[0]:
            return None
        line = self.pipe.readline()
        if not line:
            self._failed()
        found: dict[str, Any] = json.loads(line)
        return found

    def _failed(self) -> None:
        self.process.wait()
        last = (self.log.read_text().strip().splitlines() or ["it said nothing"])[-1]
        raise SystemExit(f"{self.name} ended ({self.log}): {last}")

    def stop(self, patience: float = 20) -> None:
        """End it.

        Args:
            patience: seconds until it is killed.
        """
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.pipe.close()


def in_turns(workers: Sequence[Worker], repeats: int) -> list[list[dict[str, Any]]]:
    """Units of each worker, A B A B; the first of each warms up and is not counted.

    Args:
        workers: alive.
        repeats: counted units of each.
    """
    units: list[list[dict[str, Any]]] = [[] for _ in workers]
    for number in range(repeats + 1):
        for worker, some in zip(workers, units, strict=True):
            found = worker.unit()
            assert found is not None
            if number:
                some.append(found)
    return units


def summary(units: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Medians and ranges of some units, and what each of them did."""
    found: dict[str, Any] = {"n": len(units)}
    for name in ("cpu_seconds", "seconds"):
        values = [unit[name] for unit in units]
        found[name] = round(statistics.median(values), 4)
        found[f"{name}_range"] = [round(min(values), 4), round(max(values), 4)]
    found["peak_megabytes"] = round(max(unit["peak_bytes"] for unit in units) / 1e6, 1)
    found["counts"] = units[-1]["counts"]
    found["dtype"] = units[-1].get("dtype")
    if "reuses" in units[-1]:
        found["reuses"] = units[-1]["reuses"]
    if parts := units[-1]["parts"]:
        names = parts.keys()
        found["parts"] = {
            name: round(statistics.median(unit["parts"].get(name, 0.0) for unit in units), 4)
            for name in names
        }
    return found


def ratios(theirs: Sequence[dict[str, Any]], ours: Sequence[dict[str, Any]], name: str) -> Any:
    """Median and range of theirs over ours, unit by unit.

    Args:
        theirs: units.
        ours: units, as many.
        name: of the measure.
    """
    found = [a[name] / b[name] for a, b in zip(theirs, ours, strict=True)]
    return [round(value, 3) for value in (statistics.median(found), min(found), max(found))]
