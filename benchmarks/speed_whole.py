"""What benchmarks/speed.py measures of whole programs: start, miniature, ranks, scaling."""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from speed_account import account
from speed_data import prepare
from speed_rows import SCALING, TABLE, Row
from speed_turns import Worker, in_turns, summary

ONE_STEP = {
    "trainer.max_steps": 1,
    "trainer.accelerator": "cpu",
    "trainer.limit_val_batches": 0,
    "trainer.enable_checkpointing": "false",
    "trainer.enable_progress_bar": "false",
    "export": "false",
}


def _checkouts(options: argparse.Namespace) -> dict[str, Path]:
    """What is measured: the code of today, and an older one if it is given."""
    older = {"before": options.before.resolve()} if options.before else {}
    return {"ours": options.package, **older}


def _compile(checkout: Path) -> None:
    """Write bytecode, which runs may be forbidden to do: each would compile what it imports."""
    command = [sys.executable, "-m", "compileall", "-q", str(checkout / "instructgpt")]
    subprocess.run(command, check=True)


def _run(
    args: Sequence[str], checkout: Path, log: Path, core: int | None, cache: Path | None = None
) -> dict[str, float]:
    """Run a verb in a checkout, and say what it took, its processes included.

    Args:
        args: of the command line.
        checkout: whose package it is.
        log: where it prints.
        core: to stay on; None: all.
        cache: the user's folder of caches; None: as it is.
    """
    command = [sys.executable, "-m", "instructgpt", *args]
    if core is not None:
        command = ["taskset", "-c", str(core), *command]
    environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    if cache is not None:
        environment["XDG_CACHE_HOME"] = str(cache)
    start = time.perf_counter()
    with log.open("w") as file:
        process = subprocess.Popen(
            command, cwd=checkout, env=environment, stdout=file, stderr=subprocess.STDOUT
        )
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        last = (log.read_text().strip().splitlines() or ["it said nothing"])[-1]
        raise SystemExit(f"{' '.join(args[:1])} in {checkout}: {last}")
    spent = usage.ru_utime + usage.ru_stime
    return {"seconds": time.perf_counter() - start, "cpu_seconds": spent}


def start(options: argparse.Namespace) -> dict[str, Any]:
    """``fit --help``, and ``fit`` of one step on rows that are prepared already."""
    aim = {"fit --help": 1.87, "fit": 1.76}  # 3 of 5.6 seconds, and 2.5 of 4.4
    found: dict[str, Any] = {"about": "start of a program", "aim": aim}
    for checkout in _checkouts(options).values():
        _compile(checkout)
    with tempfile.TemporaryDirectory(dir=options.runs) as folder:
        given, cache = {**ONE_STEP, "output": f"{folder}/run"}, Path(folder, "cache")
        step = ["fit", "--config=configs/pretrain.yaml", *(f"--{k}={v}" for k, v in given.items())]
        for name, args in {"fit --help": ["fit", "--help"], "fit": step}.items():
            runs: dict[str, list[dict[str, float]]] = {}
            for number in range(options.repeats + 1):
                for side, checkout in _checkouts(options).items():
                    log = options.runs / f"start-{side}.log"
                    one = _run(args, checkout, log, options.core, cache)
                    if number:  # the first meets cold files, and prepares the rows
                        runs.setdefault(side, []).append(one)
            found[name] = {
                side: {key: round(statistics.median(r[key] for r in some), 3) for key in some[0]}
                for side, some in runs.items()
            }
    return found


def miniature(options: argparse.Namespace) -> dict[str, Any]:
    """The pipeline in miniature on all cores, in turns with the older version."""
    name = "miniature_quick" if options.tiny or options.quick else "miniature"
    found: dict[str, Any] = {"about": "miniature pipeline", "aim": {"speed": 2.0}}
    for side, checkout in _checkouts(options).items():
        _compile(checkout)
        with tempfile.TemporaryDirectory(dir=options.runs) as folder:
            args = ["pipeline", f"--config=configs/{name}.yaml", f"--output={folder}/run"]
            args += ["--seed=31"] if name == "miniature" else []
            spent = _run(args, checkout, options.runs / f"miniature-{side}.log", None)
            results = json.loads(Path(folder, "run/evaluate/results.json").read_text())
        verdicts = {one["id"]: one["verdict"] for one in results["claims"]}
        # Its stages are no children of it, so their CPU seconds are not among those it waited for.
        found[side] = {"seconds": round(spent["seconds"], 1), "claims": verdicts}
    if "before" in found:
        found["speed"] = round(found["before"]["seconds"] / found["ours"]["seconds"], 2)
        pairs = {
            id_: [found["before"]["claims"].get(id_), verdict]
            for id_, verdict in found["ours"]["claims"].items()
        }
        found["claims_that_differ"] = {id_: pair for id_, pair in pairs.items() if len({*pair}) > 1}
    return found


def _worker(row: Row, options: argparse.Namespace, core: int | None, **more: Any) -> Worker:
    folder = prepare(options.runs, row.shape, row.dtype, row.rows)
    log = options.runs / f"{row.kind}-{'-'.join(map(str, more.values()))}-{row.name}.log"
    work = row.work(folder, options.device, **more)
    return Worker(sys.executable, "speed_ours.py", work, log, core, options.package)


def ranks(options: argparse.Namespace) -> dict[str, Any]:
    """A phase of PPO by one process on one core, and by two on two: seconds of the wall."""
    row = TABLE[0].tiny() if options.tiny else TABLE[0]
    workers = [
        _worker(row, options, options.core, devices=1),
        _worker(row, options, None, devices=2),
    ]
    try:
        units = in_turns(workers, options.repeats)
    finally:
        for worker in workers:
            worker.stop()
    one, two = (summary(some) for some in units)
    names = {"1 process": one, "2 processes": two}
    ratio = round(one["seconds"] / two["seconds"], 3)
    return {"about": "two ranks on two cores", **names, "speed": ratio}


def scaling(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of a phase against episodes, length of responses and size of the model."""
    found: dict[str, Any] = {"about": "cost of a PPO phase", "series": {}}
    for axis, rows in SCALING.items():
        points = []
        for row in [one.tiny() for one in rows[:2]] if options.tiny else rows:
            worker = _worker(row, options, options.core)
            try:
                (units,) = in_turns([worker], min(2, options.repeats))
            finally:
                worker.stop()
            folder = prepare(options.runs, row.shape, row.dtype, row.rows)
            made = json.loads((folder / "ids.json").read_text())
            flop = sum(part[0] for part in account(row, made).values())
            point = {"name": row.name, "x": _place(axis, row), "useful_gflop": flop / 1e9}
            points.append(point | summary(units))
        found["series"][axis] = {
            "points": points,
            "slope": slope_of(points, "cpu_seconds"),
            "expected_slope": slope_of(points, "useful_gflop"),
        }
    return found


def _place(axis: str, row: Row) -> float:
    from speed_rows import parameters

    if axis == "parameters":
        size = parameters(row.shape)
        return size["body"] + size["head"]
    return row.rows.prompts if axis == "episodes" else row.rows.response.most


def slope_of(points: Sequence[dict[str, Any]], name: str) -> float | None:
    """Of the line through some points, both axes logarithmic; None where all x are the same.

    Args:
        points: with an ``x`` each.
        name: of the other number.
    """
    x, y = ([math.log(point[key]) for point in points] for key in ("x", name))
    mean_x, mean_y = statistics.mean(x), statistics.mean(y)
    spread = sum((a - mean_x) ** 2 for a in x)
    if not spread:
        return None
    return round(sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / spread, 3)


WHOLE: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "scaling": scaling,
    "ranks": ranks,
    "start": start,
    "miniature": miniature,
}
