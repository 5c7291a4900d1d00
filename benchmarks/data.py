"""Data at size: how fast rows are prepared, how much memory it takes, how soon a run starts.

    OMP_NUM_THREADS=1 python benchmarks/data.py                  # what results/data.json holds
    OMP_NUM_THREADS=1 python benchmarks/data.py --quick          # seconds, to see that it works

Text and demonstrations are generated from a seed. Speed: our preparation, ``datasets.map`` with
the bare tokenizer, and with ``--peers PYTHON`` (an interpreter with trl and litdata) theirs, in
turns on the same files and cores. Memory and start: two runs of ``fit`` on a larger set, one that
prepares it and one that finds it in the cache, for a few steps of a tiny model. Linux only: memory
is that of all processes of a run, pages they share counted once (PSS).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from generated import make_tokenizer, write_demonstrations, write_text
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

HERE = Path(__file__).resolve().parent
KINDS = ("text", "demonstrations")
PEERS = {"text": ("trl", "litdata"), "demonstrations": ("trl",)}
MODEL = "{model_type: gpt2, n_layer: 1, n_embd: 32, n_head: 2, n_positions: 1024}"
STEPS = 5


def write(kind: str, folder: Path, size: int, seed: int) -> None:
    """Generate a set unless it is there: so many bytes of text, or so many demonstrations."""
    if not folder.exists():
        unfinished = folder.with_name(f"{folder.name}.partial")
        shutil.rmtree(unfinished, ignore_errors=True)
        (write_text if kind == "text" else write_demonstrations)(unfinished, size, seed)
        unfinished.rename(folder)


# -- speed


def once(python: str, way: str, kind: str, folder: Path, processes: int) -> dict[str, float]:
    """Prepare a set in one way and return tokens, seconds and CPU seconds."""
    command = [python, HERE / "data_work.py", way, kind, folder, folder.parent / "tokenizer"]
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [*map(str, command), str(processes)], env=environment, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"{way}, {kind}: {done.stderr.strip().splitlines()[-1]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def speed(kind: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Medians of alternating runs of each way, and ours relative to the others."""
    ways = [("ours", sys.executable), ("datasets", sys.executable)]
    ways += [(way, options.peers) for way in PEERS[kind] if options.peers]
    runs: dict[str, list[dict[str, float]]] = {way: [] for way, _ in ways}
    for _ in range(options.repeats):
        for way, python in ways:
            runs[way].append(once(python, way, kind, folder, options.processes))
    table: dict[str, Any] = {
        way: {name: round(statistics.median(run[name] for run in some), 2) for name in some[0]}
        for way, some in runs.items()
    }
    for way, found in table.items():
        if way != "ours":
            for name in ("seconds", "cpu_seconds"):
                paired = zip(runs[way], runs["ours"], strict=True)
                ratios = [theirs[name] / ours[name] for theirs, ours in paired]
                found[f"our_speed_by_{name}"] = round(statistics.median(ratios), 2)
    size = sum(file.stat().st_size for file in folder.iterdir())
    return {"megabytes": round(size / 1e6, 1), **table}


# -- memory and start


def resident(process: psutil.Process) -> tuple[int, int]:
    """Bytes of a process and its children: all that is resident, and what of it is anonymous."""
    total = anonymous = 0
    for one in [process, *process.children(recursive=True)]:
        try:
            lines = Path(f"/proc/{one.pid}/smaps_rollup").read_text().splitlines()[1:]
        except OSError:  # it has ended
            continue
        sizes = {line.partition(":")[0]: line.split()[1] for line in lines}
        total += 1024 * int(sizes.get("Pss", 0))
        anonymous += 1024 * int(sizes.get("Pss_Anon", 0))
    return total, anonymous


def fit(kind: str, folder: Path, run: Path, cache: Path, processes: int) -> dict[str, float]:
    """Run ``fit`` for a few steps, and return memory at its peak and seconds to the first step."""
    shutil.rmtree(run, ignore_errors=True)
    stage = "pretrain" if kind == "text" else "sft"
    given = {
        "data.train": folder,
        "data.cache": cache,
        "data.num_proc": processes,
        "data.validation": 0.001,
        "data.template": "plain",
        "model.tokenizer": folder.parent / "tokenizer",
        "model.architecture": MODEL,
        "model.init_from": "null",
        "output": run,
        "trainer.max_epochs": 1,
        "trainer.max_steps": STEPS,
        "trainer.limit_val_batches": 2,
        "trainer.log_every_n_steps": 1,
        "trainer.accelerator": "cpu",
        "trainer.devices": 1,
        "trainer.enable_progress_bar": "false",
    }
    given |= {"data.bpe": "null"} if kind == "text" else {"data.max_prompt_tokens": 512}
    command = [sys.executable, "-m", "instructgpt", "fit", f"--config=configs/{stage}.yaml"]
    command += [f"--{name}={value}" for name, value in given.items()]
    start, most = time.time(), (0, 0)
    log = run.with_suffix(".log")
    with log.open("w") as file:
        child = subprocess.Popen(command, cwd=HERE.parent, stdout=file, stderr=subprocess.STDOUT)
        process = psutil.Process(child.pid)
        while child.poll() is None:
            now = resident(process)
            most = max(most[0], now[0]), max(most[1], now[1])
            time.sleep(0.1)
    if child.returncode:
        raise SystemExit(f"{stage}: {log.read_text().strip().splitlines()[-1]}")
    events = EventAccumulator(str(run)).Reload()
    steps = [step.wall_time for name in events.Tags()["scalars"] for step in events.Scalars(name)]
    return {
        "peak_megabytes": round(most[0] / 1e6),
        "peak_anonymous_megabytes": round(most[1] / 1e6),
        "seconds_to_first_step": round(min(steps) - start, 1),
    }


def size_and_start(kind: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """A run that prepares a set, and a second one that finds it prepared."""
    with tempfile.TemporaryDirectory(dir=options.runs) as cache:
        first, second = (
            fit(kind, folder, options.runs / f"{kind}-{name}", Path(cache), options.processes)
            for name in ("first", "second")
        )
        stored = sum(file.stat().st_size for file in Path(cache).rglob("*") if file.is_file())
    return {
        "megabytes": round(sum(file.stat().st_size for file in folder.iterdir()) / 1e6),
        "cache_megabytes": round(stored / 1e6),
        "first_run": first,
        "second_run": second,
    }


def main() -> None:
    """Generate what is missing, measure, and write the results file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--speed_megabytes", type=float, default=64, help="of text")
    parser.add_argument("--speed_rows", type=int, default=100_000, help="demonstrations")
    parser.add_argument("--megabytes", type=float, default=2000, help="of text, for memory")
    parser.add_argument("--rows", type=int, default=2_000_000, help="for memory")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--peers", help="an interpreter with trl and litdata")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--runs", type=Path, default=HERE.parent / "runs/data")
    parser.add_argument("--output", type=Path, default=HERE / "results/data.json")
    parser.add_argument("--only", choices=("speed", "memory"), help="keep the other's results")
    parser.add_argument("--quick", action="store_true", help="1 MB, one run each")
    options = parser.parse_args()
    if options.quick:
        options.speed_megabytes = options.megabytes = 1
        options.speed_rows = options.rows = 1000
        options.repeats = 1
    options.runs = options.runs.resolve()
    options.runs.mkdir(parents=True, exist_ok=True)
    if not (options.runs / "tokenizer").exists():
        make_tokenizer(options.runs / "tokenizer", options.seed)
    results = json.loads(options.output.read_text()) if options.output.exists() else {}
    results["machine"] = f"{platform.machine()}, {options.processes} processes"
    sizes = {
        "speed": (int(options.speed_megabytes * 1e6), options.speed_rows),
        "memory": (int(options.megabytes * 1e6), options.rows),
    }
    for part, measure in {"speed": speed, "memory": size_and_start}.items():
        for kind, size in zip(KINDS, sizes[part], strict=True):
            if options.only in (None, part):
                folder = options.runs / f"{kind}-{size}"
                write(kind, folder, size, options.seed)
                results.setdefault(part, {})[kind] = measure(kind, folder, options)
                options.output.write_text(json.dumps(results, indent=1) + "\n")
    print(f"wrote {options.output}")


if __name__ == "__main__":
    main()
