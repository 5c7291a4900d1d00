"""`prepare` with its default rules on many rows: time, and memory of all its processes.

    OMP_NUM_THREADS=1 python benchmarks/hygiene_rows.py  # gives results/hygiene_rows.json

Demonstrations are generated from a seed; a tenth are near copies of earlier ones, a hundredth have
an address of mail in them, and there is a user for each hundred. Linux only: memory is that of all
processes of a run, pages they share counted once (PSS).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from data import resident
from generated import Writer

HERE = Path(__file__).resolve().parent
BLOCK = 4096


def write(path: Path, count: int, seed: int) -> None:
    """Generate so many demonstrations."""
    rng, writer = random.Random(seed), Writer(seed)
    known: list[str] = []  # of a block, to be copied
    with path.open("w", encoding="utf-8") as file:
        for start in range(0, count, BLOCK):
            some = min(BLOCK, count - start)
            prompts, responses = writer.texts(24, 300, some), writer.texts(48, 300, some)
            for number in range(some):
                prompt = prompts[number]
                if known and rng.random() < 0.1:
                    prompt = f"{rng.choice(known)} {start + number}"
                if rng.random() < 0.01:
                    prompt += f" Write to person{start + number}@example.com"
                row = {"id": start + number, "prompt": prompt, "response": responses[number]}
                file.write(json.dumps(row | {"user": f"u{rng.randrange(count // 100 + 1)}"}) + "\n")
            known = prompts


def measured(count: int, processes: int, folder: Path) -> dict[str, Any]:
    """Prepare so many rows."""
    source, output = folder / f"{count}.jsonl", folder / f"out-{count}"
    write(source, count, seed=0)
    command = [sys.executable, "-m", "instructgpt", "prepare", f"--input={source}"]
    command += [f"--output={output}", f"--num_proc={processes}"]
    before, start, most = resource.getrusage(resource.RUSAGE_CHILDREN), time.time(), (0, 0)
    with (folder / f"{count}.log").open("w") as log:
        child = subprocess.Popen(command, cwd=HERE.parent, stdout=log, stderr=subprocess.STDOUT)
        process = psutil.Process(child.pid)
        while child.poll() is None:
            now = resident(process)
            most = max(most[0], now[0]), max(most[1], now[1])
            time.sleep(1.0)
    if child.returncode:
        raise SystemExit((folder / f"{count}.log").read_text().strip().splitlines()[-1])
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    report = json.loads((output / "report.json").read_text())
    return {
        "rows": count,
        "megabytes": round(source.stat().st_size / 1e6),
        "rows_written": report["rows"]["written"],
        "dropped": {one["name"]: one["rows"]["dropped"] for one in report["rules"] if one["on"]},
        "seconds": round(time.time() - start, 1),
        "cpu_seconds": round(
            after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1
        ),
        "peak_megabytes": round(most[0] / 1e6),
        "peak_anonymous_megabytes": round(most[1] / 1e6),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--runs", type=Path, help="folder for what is generated")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "hygiene_rows.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.runs) as folder:
        runs = [measured(count, options.processes, Path(folder)) for count in options.rows]
    machine = {"cores": os.cpu_count()}
    results = {"machine": machine, "processes": options.processes, "runs": runs}
    options.output.write_text(json.dumps(results, indent=1) + "\n")
    json.dump(results, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
