"""Memory of each process until training starts, where `fsdp2` spreads networks of 124 M weights.

    python benchmarks/start_memory.py     # two processes on this machine; minutes of one core

What is compared is the resident memory of a process at its peak, between the first hook of a fit
and the one before the first step, without what it held before (Python, libraries, rows): as it is,
and with networks that every process first builds whole. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from memory import BARE, Shape, make, stage

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "start_memory.json"
PROCESSES = 2
SHAPES = {
    "sft": Shape("SFT: a policy", "sft", "124M", 1),
    "ppo": Shape("PPO: policy, reference, reward and value model, average", "ppo", "124M", 2),
}
MIB = 2**20


class StartedError(Exception):
    """The fit is where its first step would be."""


def resident(name: str) -> int:
    """Bytes of this process, as Linux counts them."""
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def measure(folder: Path, name: str, whole: bool) -> None:
    """Start a fit in one of the processes, and print what it needed."""
    import torch
    from lightning.pytorch import Callback, LightningModule, Trainer

    import instructgpt.modules.base
    import instructgpt.modules.sharding  # knows fsdp2

    class Peak(Callback):
        """Counts from the first hook on."""

        def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
            """Begin to count."""
            Path("/proc/self/clear_refs").write_text("5")
            self.before = resident("VmRSS")

        def on_fit_start(self, trainer: Trainer, pl_module: Any) -> None:
            """Print, and end."""
            used = resident("VmHWM") - self.before
            held = resident("VmRSS") - self.before
            networks = [pl_module, *pl_module.frozen_networks()]
            sizes = [p.numel() * p.element_size() for one in networks for p in one.parameters()]
            found = {"weights": sum(sizes), "largest": max(sizes), "peak": used, "after": held}
            print(json.dumps(found), flush=True)
            raise StartedError

    torch.set_num_threads(1)
    if whole:
        instructgpt.modules.base.without_weights = lambda *_: nullcontext()  # type: ignore[assignment]
    module, data = stage(folder, SHAPES[name])
    trainer = Trainer(
        accelerator="cpu",
        devices=PROCESSES,
        strategy="fsdp2",
        callbacks=[Peak()],
        max_epochs=1,
        num_sanity_val_steps=0,
        default_root_dir=folder,
        **BARE,
    )
    try:
        trainer.fit(module, data)
    except StartedError:
        os._exit(0)  # what was begun is of no use


def both(folder: Path, name: str, port: int, whole: bool) -> list[dict[str, float]]:
    """What each of the processes needed, in MiB."""
    begun = []
    for rank in range(PROCESSES):
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        environment |= {"TORCHELASTIC_RUN_ID": "start", "RANK": f"{rank}", "LOCAL_RANK": f"{rank}"}
        environment |= {"WORLD_SIZE": f"{PROCESSES}", "LOCAL_WORLD_SIZE": f"{PROCESSES}"}
        environment |= {"GROUP_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": f"{port}"}
        command = [sys.executable, __file__, "--measure", name, "--folder", str(folder)]
        command += ["--whole"] if whole else []
        begun.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True))
    found = []
    for one in begun:
        out, _ = one.communicate()
        if one.returncode:
            raise SystemExit(f"{name} ended with {one.returncode}")
        found.append(json.loads(out.strip().splitlines()[-1]))
    return [{part: round(size / MIB, 1) for part, size in one.items()} for one in found]


def main() -> None:
    """Measure both ways of all shapes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--port", type=int, default=29_517)
    for hidden in ("--measure", "--folder", "--make"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    parser.add_argument("--whole", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.make:
        make(Path(options.folder), SHAPES[options.make])
    elif options.measure:
        measure(Path(options.folder), options.measure, options.whole)
    else:
        known = {}
        for name, shape in SHAPES.items():
            with tempfile.TemporaryDirectory() as folder:
                command = [sys.executable, __file__, "--make", name, "--folder", folder]
                subprocess.run(command, check=True)
                own = both(Path(folder), name, options.port, whole=False)
                whole = both(Path(folder), name, options.port + 1, whole=True)
            known[name] = {"about": shape.about, "processes": own, "whole": whole}
            print(f"{name}: {own}; whole: {whole}")
        versions = {"python": platform.python_version(), "machine": platform.machine()}
        text = json.dumps({**versions, "shapes": known}, indent=1)
        RESULTS.write_text(text + "\n")


if __name__ == "__main__":
    main()
