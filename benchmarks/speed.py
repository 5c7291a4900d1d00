"""How fast this is beside TRL, ``generate`` and itself: one command, one row or all.

    python benchmarks/speed.py --peers TRL/bin/python --ppo_peer TRL112/bin/python --before CHECKOUT
    python benchmarks/speed.py reward-4 dpo --peers TRL/bin/python      # some rows
    python benchmarks/speed.py --missing …               # go on after an interruption
    python benchmarks/speed.py --report                  # table and plot of what is there
    python benchmarks/speed.py --device cuda             # on a GPU: seconds to minutes a row
    python benchmarks/speed.py --tiny --quick            # seconds a row, to see that all works

Peers live in environments of their own; what is not given is left out, and said:

    python3 -m venv TRL && TRL/bin/pip install trl==1.16.0 torch==2.13.0
    python3 -m venv TRL112 && TRL112/bin/pip install trl==1.12.0 torch==2.13.0 peft   # has PPO

Both sides have the same weights, rows, lengths of responses, optimizer steps and numbers, which is
checked in every run. They work in turns, one unit at a time, on one core; the peer in the quickest
of some settings. CPU seconds are what is compared; memory is all that a process ever held, its
imports too. ``--before`` names a checkout of an older version, for the miniature pipeline.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from speed_account import account, bound
from speed_data import prepare
from speed_report import report
from speed_rows import GPU, TABLE, Row, problems
from speed_turns import Worker, in_turns, ratios, summary
from speed_whole import WHOLE

HERE = Path(__file__).resolve().parent
NAMED = {row.name: row for row in (*TABLE, *GPU)}


PROFILED = 256
"""Most prompts of a unit that is profiled: of more there are too many events."""
PATIENCE = 3.0
"""Times the quickest setting's seconds after which another one is given up."""


def workers(row: Row, folder: Path, options: argparse.Namespace) -> tuple[list[Worker], Any]:
    """What measures the peak, our process, and the peer's in its quickest setting, with that.

    Args:
        row: of the table.
        folder: of its models and rows.
        options: of the command line.
    """
    device = options.device
    peers = {"ppo": options.ppo_peer, "trl": options.peers, "generate": sys.executable}
    place = (options.core, options.package)
    log = options.runs / f"{row.name}-ours.log"
    work = row.work(folder, device)
    peak = Worker(
        sys.executable, "speed_peak.py", {"device": device}, log.with_name("peak.log"), *place
    )
    alive = [peak, Worker(sys.executable, "speed_ours.py", work, log, *place)]
    python = peers.get(row.peer or "")
    if python is None:
        return alive, None
    best: tuple[dict[str, float], Worker, Any] | None = None
    for number, setting in enumerate(row.settings[:1] if options.quick else row.settings):
        log = options.runs / f"{row.name}-peer-{number}.log"
        work = row.work(folder, device, settings=setting)
        worker = Worker(python, "speed_peers.py", work, log, *place)
        name = _time_of(device)
        if len(row.settings) == 1:
            spent: dict[str, float] | None = {name: 0.0}
        else:
            most = None if best is None else 60 + PATIENCE * best[0]["seconds"]  # it starts, too
            spent = worker.unit(most=most)
        if spent is not None and (best is None or spent[name] < best[0][name]):
            if best is not None:
                best[1].stop()
            best = spent, worker, setting
        else:
            worker.stop(20 if spent else 0)
    assert best is not None
    return [*alive, best[1]], best[2]


def _time_of(device: str) -> str:
    return "seconds" if device == "cuda" else "cpu_seconds"


def measure(row: Row, options: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    """A row of the table, and what would make it unfair.

    Args:
        row: of the table.
        options: of the command line.
    """
    folder = prepare(options.runs, row.shape, row.dtype, row.rows, options.device)
    made = json.loads((folder / "ids.json").read_text())
    alive, setting = workers(row, folder, options)
    try:
        peaks, *units = in_turns(alive, options.repeats)
        few = row.rows.prompts <= PROFILED
        profiled = alive[1].unit("profile") if options.profile and few else None
    finally:
        for worker in alive:
            worker.stop()
    sides = [summary(some) for some in units]
    time_of = _time_of(options.device)
    rates = [unit["counts"]["megaflop"] / unit[time_of] / 1e3 for unit in peaks]
    peak = statistics.median(rates)
    found: dict[str, Any] = {"about": row.about, "ours": sides[0]}
    wrong = [line for i, side in enumerate(sides) for line in problems(row, made, side, i > 0)]
    if len(sides) > 1:
        found |= {"peer": {"name": row.peer, "setting": setting, **sides[1]}}
        found["speed"] = ratios(units[1], units[0], time_of)
        memory = sides[0]["peak_megabytes"] / sides[1]["peak_megabytes"]
        found["memory"] = round(memory, 3)
    parts, seconds = account(row, made, sides[0].get("reuses", False)), sides[0][time_of]
    flop, moved = (sum(part[i] for part in parts.values()) for i in range(2))
    found["account"] = {
        "useful_gflop": {name: round(part[0] / 1e9, 3) for name, part in parts.items()},
        "flop_per_byte": round(flop / moved, 1),
        "peak_gflops": round(peak, 1),
        "least_seconds": round(bound(parts, {**options.machine, "peak_gflops": peak}), 4),
        "share_of_peak": round(flop / seconds / peak / 1e9, 4),
    }
    for name, spent in sides[0].get("parts", {}).items():
        if name in parts and spent:
            share = parts[name][0] / spent / peak / 1e9
            found["account"].setdefault("share_by_wall_time", {})[name] = round(share, 4)
    found["per_second"] = round(sides[0]["counts"].get(row.unit, 0) / seconds, 2)
    found["unit"], found["aim"] = (
        row.unit,
        {"speed": row.aim, "memory": row.memory, "share": row.share},
    )
    if profiled:
        found["profile"] = profiled["profile"]
    return found, wrong


def machine(options: argparse.Namespace) -> dict[str, Any]:
    """Peak and bandwidth, measured on the core that works."""
    command = [sys.executable, str(HERE / "speed_account.py"), options.device]
    if options.device == "cpu":
        command = ["taskset", "-c", str(options.core), *command]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1]) | {"name": _name(options.device)}


def _name(device: str) -> str:
    if device == "cuda":
        import torch

        return torch.cuda.get_device_name()
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores"


def asked() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", nargs="*", help=f"of {' '.join([*NAMED, *WHOLE])}; default: all")
    parser.add_argument("--peers", help="an interpreter with trl 1.16.0")
    parser.add_argument("--ppo_peer", help="an interpreter with trl 1.12.0")
    parser.add_argument("--before", type=Path, help="a checkout of an older version")
    parser.add_argument("--package", type=Path, default=HERE.parent, help="the checkout measured")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--core", type=int, default=0, help="the one that works")
    parser.add_argument("--repeats", type=int, default=5, help="counted units of each side")
    parser.add_argument("--minutes", type=float, help="begin no row after so many")
    parser.add_argument("--runs", type=Path, default=HERE.parent / "runs/speed")
    parser.add_argument("--output", type=Path, help="default: results/speed.json, speed_cuda.json")
    parser.add_argument("--tiny", action="store_true", help="tiny shapes; writes no results file")
    parser.add_argument("--quick", action="store_true", help="one unit, one setting")
    parser.add_argument("--profile", action="store_true", help="also the largest costs of a unit")
    parser.add_argument("--missing", action="store_true", help="only rows that have no result")
    parser.add_argument("--report", action="store_true", help="only table and plot")
    options = parser.parse_args()
    kinds = [*NAMED, *WHOLE]
    if unknown := [name for name in options.rows if name not in kinds]:
        parser.error(f"rows must be of {' '.join(kinds)}, got {' '.join(unknown)}")
    if options.device == "cuda":
        options.minutes, options.profile = options.minutes or 7.0, True
        options.repeats = min(options.repeats, 3)
    if options.quick:
        options.repeats = 1
    gpu = [row.name for row in GPU]
    table = [row.name for row in TABLE]
    default = gpu if options.device == "cuda" else table + (gpu if options.tiny else [*WHOLE])
    options.rows = options.rows or default
    name = "speed.json" if options.device == "cpu" else "speed_cuda.json"
    options.output = options.output or HERE / "results" / name
    options.runs, options.package = options.runs.resolve(), options.package.resolve()
    options.runs.mkdir(parents=True, exist_ok=True)
    return options


def main() -> None:
    """Measure rows, each of which is written as soon as it is there."""
    options = asked()
    old = options.output.exists() and not options.tiny
    results = json.loads(options.output.read_text()) if old else {"rows": {}}
    start, unfair = time.monotonic(), []
    if not options.report:
        options.machine = machine(options)
        results["machine"] = options.machine
    rows = [one for one in options.rows if not (options.missing and one in results["rows"])]
    for name in [] if options.report else rows:
        if options.minutes and time.monotonic() - start > 60 * options.minutes:
            print(f"{name}: left out, {options.minutes} minutes are over")
            continue
        try:
            if name in WHOLE:
                found, wrong = WHOLE[name](options), []
            else:
                row = NAMED[name].tiny() if options.tiny else NAMED[name]
                found, wrong = measure(row, options)
        except SystemExit as failure:  # of one side; the other rows can be measured
            unfair.append(f"{name}: {failure}")
            continue
        found["machine"] = options.machine["name"]
        print(name, json.dumps(found), *wrong, sep="\n", flush=True)
        unfair += wrong
        if not wrong:
            results["rows"][name] = found
            if not options.tiny:
                part = options.output.with_suffix(".part")
                part.write_text(json.dumps(results, indent=1) + "\n")
                part.replace(options.output)
    report(results, options)
    if unfair:
        raise SystemExit("\n".join(["no results are kept of:", *unfair]))


if __name__ == "__main__":
    main()
