"""Kill the pipeline at random moments, call it again, and compare with a run that was left alone.

    python benchmarks/miniature_kills.py --kills 10
    python benchmarks/miniature_kills.py --kills 10 --config configs/miniature_quick.yaml

Two uninterrupted runs come first, which must write the same results.json (determinism); then one
that is killed with SIGKILL. The moments are uniform over the seconds of all stages, less the last
tenth of each: a stage, and how long it has been running in that call. With --alone an earlier run
of the same code and seed takes the place of the first two. What was compared goes into
results/miniature_kills.json.
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
POLL_SECONDS = 0.1


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


def states(folder: Path) -> dict[str, str]:
    """What each stage that has begun says about itself."""
    records = {path.parent.name: path for path in folder.glob("*/stage.json")}
    return {name: json.loads(path.read_text())["state"] for name, path in records.items()}


def moments(alone: Path, kills: int, seed: int) -> list[tuple[str, float]]:
    """Stages and seconds into them, uniform over the seconds of all stages, in order of time.

    Args:
        alone: folder of a run that nobody interrupted.
        kills: how many.
        seed: of the draw.
    """
    stages = json.loads((alone / "pipeline.json").read_text())["stages"]
    seconds = {one["name"]: one["seconds"] for one in stages}
    ends = {name: (alone / name / "stage.json").stat().st_mtime for name in seconds}
    rng = random.Random(seed)
    names = rng.choices(list(seconds), list(seconds.values()), k=kills)
    found = [(name, rng.uniform(0, 0.9 * seconds[name])) for name in names]  # not as it ends
    return sorted(found, key=lambda one: ends[one[0]] - seconds[one[0]] + one[1])


def kill(process: subprocess.Popen[bytes], folder: Path, stage: str, after: float) -> list[str]:
    """Kill a pipeline when a stage has run for so long in this call, or has just ended.

    Where an earlier call has finished the stage, any other counts.

    Args:
        process: the pipeline.
        folder: that it writes to.
        stage: to wait for.
        after: seconds.

    Returns:
        The stages that were running; none if the pipeline came to its end.
    """
    names = [stage] if states(folder).get(stage) != "finished" else []
    logs = {log: log.stat().st_size for log in folder.glob("*.log")}
    since = None
    while process.poll() is None:
        time.sleep(POLL_SECONDS)
        begun = [log for log in folder.glob("*.log") if log.stat().st_size > logs.get(log, 0)]
        if since is None and any(not names or log.stem in names for log in begun):
            since = time.monotonic()
        now = states(folder)
        ended = since is not None and names and now.get(stage) == "finished"
        if ended or (since is not None and time.monotonic() - since > after):
            process.send_signal(signal.SIGKILL)
            process.wait()
            return sorted(log.stem for log in begun if now.get(log.stem) == "running") or [stage]
    return []


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
        alone = options.alone
        seconds = json.loads((alone / "pipeline.json").read_text())["total_seconds"]
    else:
        seconds = finish(*call, alone)
        finish(*call, again)
    kills = []
    for stage, after in moments(alone, options.kills, options.seed):
        begin = time.monotonic()
        if not (hit := kill(start(*call, killed), killed, stage, after)):
            break  # it is done
        seconds_run = round(time.monotonic() - begin, 1)
        kills.append({"stage": stage, "after_seconds": seconds_run, "running": hit})
        print(f"killed after {seconds_run} s, while running: {', '.join(hit)}", flush=True)
    finish(*call, killed)
    found = {"uninterrupted": digest(alone), "killed": digest(killed)}
    if not options.alone:
        found["again"] = digest(again)
    result = {
        "config": options.config,
        "seed": options.seed,
        "seconds_uninterrupted": round(seconds, 1),
        "kills": kills,
        "results": found,
        "same": len(set(found.values())) == 1,
    }
    options.results.parent.mkdir(exist_ok=True)
    options.results.write_text(json.dumps(result, indent=1) + "\n")
    print(f"{len(kills)} kills; results {'are' if result['same'] else 'are NOT'} the same: {found}")
    if not result["same"] or len(kills) < options.kills:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
