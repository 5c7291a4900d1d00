"""The paper in miniature on several seeds: which claims hold, how long it takes, how much memory.

    python benchmarks/miniature.py --seeds 1 2 3
    python benchmarks/miniature.py --seeds 1 2 3 --big    # and a six times larger GPT

Each seed has its own world, labelers, models and prompts. Seeds 0, 11, 12, 21 to 23 and 100 to 102
were looked at while the recipe was made; 31 to 33 judged an earlier one. Finished stages are kept,
so that --big goes on from where the first call ended. Everything measured goes into
results/miniature.json; the claims are printed as a table in Markdown.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from instructgpt.evaluation.records import to_json
from instructgpt.evaluation.results import read_results

HERE = Path(__file__).parent
ROOT = HERE.parent


class Memory(threading.Thread):
    """Watches the memory of a process and its descendants, pages that several share counted once.

    Args:
        pid: of the process.
    """

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.process, self.peak = psutil.Process(pid), 0

    def run(self) -> None:
        """Look twice a second until the process is gone."""
        with suppress(psutil.NoSuchProcess):
            while self.process.status() != psutil.STATUS_ZOMBIE:
                total = 0
                for one in (self.process, *self.process.children(recursive=True)):
                    with suppress(psutil.NoSuchProcess):
                        total += one.memory_full_info().pss
                self.peak = max(self.peak, total)
                time.sleep(0.5)


def run(config: str, seed: int, folder: Path) -> tuple[float, int]:
    """Run the pipeline; wall seconds and peak bytes of memory."""
    command = [sys.executable, "-m", "instructgpt", "pipeline", "--config", config]
    begin = time.monotonic()
    process = subprocess.Popen(
        [*command, "--seed", str(seed), "--output", str(folder)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    memory = Memory(process.pid)
    memory.start()
    if process.wait():
        raise SystemExit(f"seed {seed}: the pipeline ended with code {process.returncode}")
    memory.join(2)
    return time.monotonic() - begin, memory.peak


def findings(folder: Path) -> dict[str, Any]:
    """What a run found: its claims, and the numbers behind them."""
    results = read_results(folder / "evaluate" / "results.json")
    found = {
        "claims": results.claims,
        "win_rates": [row for row in results.win_rates if row.judge != "reward_model"],
        "over_optimisation": results.over_optimisation,
        "utility": results.utility,
        "metadata": results.metadata,
        "agreement": results.agreement,
        "closed_domain": results.closed_domain,
        "truthfulness": results.truthfulness,
        "toxicity": results.toxicity,
        "nlp": results.nlp,
        "reward_model": results.reward_model,
    }
    return to_json(found)


def table(runs: dict[str, Any]) -> list[dict[str, Any]]:
    """One row a claim: what was measured on each seed, and on how many it holds."""
    rows: dict[str, dict[str, Any]] = {}
    for seed, found in runs.items():
        for claim in found["claims"]:
            new = {key: claim[key] for key in ("claim", "paper", "rule", "own")} | {
                "here": {},
                "holds": 0,
            }
            row = rows.setdefault(claim["id"], {"id": claim["id"], **new, "judged": 0})
            row["here"][seed] = claim["here"]
            row["holds"] += claim["verdict"] == "holds"
            row["judged"] += claim["verdict"] != "not judged"
    return list(rows.values())


def markdown(rows: list[dict[str, Any]]) -> str:
    """All claims as a table in Markdown, the seeds of a row side by side."""
    seeds = " / ".join(rows[0]["here"])
    lines = [f"| claim | the paper | here, seeds {seeds} | holds |", "| --- | --- | --- | --- |"]
    for row in rows:
        here = " / ".join(row["here"].values())
        holds = f"{row['holds']} of {row['judged']}" if row["judged"] else "not judged"
        lines.append(f"| {row['claim']} | {row['paper']} | {here} | {holds} |")
    return "\n".join(lines)


def write(path: Path, config: str, runs: dict[str, Any]) -> None:
    """Write what was measured so far."""
    machine = {"system": platform.platform(), "cores": os.cpu_count(), "torch_threads": 1}
    result = {"machine": machine, "config": config, "claims": table(runs), "runs": runs}
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--big", action="store_true", help="also a six times larger GPT")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "miniature_seeds")
    parser.add_argument("--results", type=Path, default=HERE / "results" / "miniature.json")
    options = parser.parse_args()
    config = "configs/miniature_big.yaml" if options.big else "configs/miniature.yaml"
    written = json.loads(options.results.read_text()) if options.results.is_file() else {}
    runs = written.get("runs", {})
    for seed in options.seeds:
        folder = options.runs.resolve() / str(seed)
        fresh = not folder.exists()
        seconds, peak = run(config, seed, folder)
        stages = json.loads((folder / "pipeline.json").read_text())["stages"]
        cost = {"stages": {one["name"]: one["seconds"] for one in stages}}
        if fresh and not options.big:
            cost |= {"wall_seconds": round(seconds, 1), "peak_mib": round(peak / 2**20)}
        before = runs.get(str(seed), {})
        runs[str(seed)] = before | findings(folder) | {"cost": before.get("cost", {}) | cost}
        write(options.results, config, runs)  # the next seed may fail
    print(markdown(table(runs)))


if __name__ == "__main__":
    main()
