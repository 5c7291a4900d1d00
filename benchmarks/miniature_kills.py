"""Kill the pipeline at random moments, call it again, and compare with a run that was left alone.

    python benchmarks/miniature_kills.py --kills 10
    python benchmarks/miniature_kills.py --kills 10 --config configs/miniature_quick.yaml

Two uninterrupted runs come first, which must write the same results.json (determinism); then one
that is killed with SIGKILL, each time after a random part of the time that the whole takes. With
--alone an earlier run of the same code and seed takes the place of the first two. What was compared
goes into results/miniature_kills.json.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
START = 6.0  # seconds that a call needs before its first stage works


def start(config: str, seed: int, folder: Path) -> subprocess.Popen[bytes]:
    """Call the pipeline."""
    options = ["--config", config, "--seed", str(seed), "--output", str(folder)]
    return subprocess.Popen(
        [sys.executable, "-m", "instructgpt", "pipeline", *options],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
    )


def finish(config: str, seed: int, folder: Path) -> float:
    """Run the pipeline to its end; seconds."""
    begin = time.monotonic()
    if code := start(config, seed, folder).wait():
        raise SystemExit(f"{folder}: the pipeline ended with code {code}")
    return time.monotonic() - begin


def running(folder: Path) -> str:
    """The stages that are begun and not finished."""
    records = {
        path.parent.name: json.loads(path.read_text()) for path in folder.glob("*/stage.json")
    }
    return ", ".join(sorted(n for n, one in records.items() if one["state"] != "finished"))


def digest(folder: Path) -> str:
    """A name for the results."""
    return hashlib.sha256((folder / "evaluate" / "results.json").read_bytes()).hexdigest()[:16]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="configs/miniature.yaml")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of the pipeline and of the moments")
    parser.add_argument("--alone", type=Path, help="folder of a run that nobody interrupted")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "miniature_kills")
    parser.add_argument("--results", type=Path, default=HERE / "results" / "miniature_kills.json")
    options = parser.parse_args()
    alone, again, killed = (options.runs.resolve() / name for name in ("alone", "again", "killed"))
    if options.runs.exists():
        raise SystemExit(
            f"--runs {options.runs} must not be there yet: finished stages are skipped"
        )
    call = (options.config, options.seed)
    if options.alone:
        record = json.loads((options.alone / "pipeline.json").read_text())
        alone, seconds = options.alone, record["total_seconds"]
    else:
        seconds = finish(*call, alone)
        finish(*call, again)
    rng, moments = random.Random(options.seed), []
    for _ in range(options.kills):
        process = start(*call, killed)
        after = START + rng.uniform(0, 1.8 / options.kills) * seconds  # nearly the whole in all
        try:
            process.wait(after)
            break  # it is done
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
        moments.append({"after_seconds": round(after, 1), "running": running(killed)})
        print(f"killed after {after:.1f} s, while running: {moments[-1]['running']}", flush=True)
    finish(*call, killed)
    found = {"uninterrupted": digest(alone), "killed": digest(killed)}
    if not options.alone:
        found["again"] = digest(again)
    result = {
        "config": options.config,
        "seed": options.seed,
        "seconds_uninterrupted": round(seconds, 1),
        "kills": moments,
        "results": found,
        "same": len(set(found.values())) == 1,
    }
    options.results.parent.mkdir(exist_ok=True)
    options.results.write_text(json.dumps(result, indent=1) + "\n")
    print(
        f"{len(moments)} kills; results {'are' if result['same'] else 'are NOT'} the same: {found}"
    )
    if not result["same"] or len(moments) < options.kills:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
