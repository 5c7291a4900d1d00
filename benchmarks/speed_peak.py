"""What a core or a GPU can do while benchmarks/speed.py works: a matrix product, in turns.

    python speed_peak.py WORK

A share of the peak is told by the peak of the same minutes: other work on the machine, heat and
clocks meet both.
"""

from __future__ import annotations

import json
import sys
import time

import torch
from speed_turns import Turns

SECONDS = 0.5


def main() -> None:
    """Multiply until the driver has seen enough."""
    work = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    cuda = work["device"] == "cuda"
    size, kind = (8192, torch.bfloat16) if cuda else (1024, torch.float32)
    a, b = (torch.randn(size, size, device=work["device"], dtype=kind) for _ in range(2))
    turns = Turns(work["device"])
    while True:
        turns.begin()
        start = time.perf_counter()
        while time.perf_counter() - start < SECONDS:
            a @ b
            turns.count(megaflop=2 * size**3 // 10**6)
            if cuda:
                torch.cuda.synchronize()
        turns.end()


if __name__ == "__main__":
    main()
