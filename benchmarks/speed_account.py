"""How much work there is: useful FLOP and the fewest bytes of each row, and the machine's peak.

    python speed_account.py DEVICE      # the machine, as JSON

Useful is what has to be computed once: each real token, the prompt of K responses once, the head
only where a token is predicted; twice the weights a token forward, three times that with the
gradients (twice where the weights are frozen), and attention. Bytes are weights that a pass has to
read, and what an optimizer moves; activations are not in it.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from speed_rows import Row, parameters

Part = tuple[float, float]
"""FLOP and bytes."""


def _pairs(start: int, length: int) -> float:
    """Keys that tokens see which continue a text of some length."""
    return start * length + length * (length + 1) / 2


def account(row: Row, made: Sequence[dict[str, Any]], reuses: bool = False) -> dict[str, Part]:
    """Useful FLOP and fewest bytes of a unit, by its parts.

    Args:
        row: of the table.
        made: its prompts and responses.
        reuses: whether log-probabilities of sampling are taken as they are.
    """
    size = parameters(row.shape)
    number = 4 if row.dtype == "float32" else 2
    weights = size["body"] + size["head"]

    def forward(tokens: float, pairs: float, predicted: float) -> float:
        attention = 4 * size["width"] * size["layers"] * pairs
        return 2 * size["body"] * tokens + attention + 2 * size["head"] * predicted

    prompts = [len(one["prompt"]) for one in made]
    if row.kind in {"ppo", "rollout"}:
        answers = [[one["answer"]] for one in made]
    else:
        answers = [[len(response) for response in one["responses"]] for one in made]
    predicted = sum(map(sum, answers))
    tokens = sum(prompts) + predicted
    pairs = sum(
        _pairs(0, prompt) + sum(_pairs(prompt, one) for one in some)
        for prompt, some in zip(prompts, answers, strict=True)
    )
    trained = 2 if row.lora else 3
    read, moved = number * weights, 7 * number * weights * (not row.lora)
    language, scalar = forward(tokens, pairs, predicted), forward(tokens, pairs, 0)
    slots = min(64, len(made))
    steps = max(max(map(max, answers)), predicted / slots)  # each reads all weights
    sampling = (language, steps * read)
    if row.kind == "rollout":
        return {"sample": sampling}
    learning = row.steps * (2 * read + moved)
    if row.kind == "ppo":
        parts = {"sample": sampling, "reference": (language, read), "reward": (scalar, read)}
        scored = scalar if reuses else language + scalar
        parts["policy_and_value"] = (scored, 2 * read)
        return parts | {"update": (trained * (language + scalar), 2 * learning)}
    if row.kind == "dpo":
        return {"reference": (language, read), "update": (trained * language, learning)}
    return {"update": (trained * (scalar if row.kind == "reward" else language), learning)}


def bound(parts: dict[str, Part], machine: dict[str, float]) -> float:
    """The fewest seconds: of each part the more of arithmetic and memory.

    Args:
        parts: an account.
        machine: its peak.
    """
    peak, width = machine["peak_gflops"] * 1e9, machine["gigabytes_per_second"] * 1e9
    return sum(max(flop / peak, bytes_ / width) for flop, bytes_ in parts.values())


def _rate(work: Callable[[], Any], synchronize: Callable[[], None], times: int = 7) -> float:
    """Times a second, the median; CPU time where it works."""
    found = []
    for _ in range(times + 2):
        synchronize()
        start, cpu = time.perf_counter(), time.process_time()
        count = 0
        while time.perf_counter() - start < 0.2:
            work()
            count += 1
            synchronize()
        spent = (
            time.process_time() - cpu if synchronize is _nothing else time.perf_counter() - start
        )
        found.append(count / spent)
    return statistics.median(found[2:])


def _nothing() -> None:
    """A CPU waits for nothing."""


def machine(device: str) -> dict[str, float]:
    """What one core or one GPU can do: matrix products, few rows at a time, and copies.

    Args:
        device: cpu (float32) or cuda (bfloat16).
    """
    import torch

    cuda = device == "cuda"
    wait = torch.cuda.synchronize if cuda else _nothing
    kind = torch.bfloat16 if cuda else torch.float32
    size = 8192 if cuda else 1024

    def product(rows: int, inner: int, columns: int) -> float:
        a = torch.randn(rows, inner, device=device, dtype=kind)
        b = torch.randn(inner, columns, device=device, dtype=kind)
        return _rate(lambda: a @ b, wait) * 2 * rows * inner * columns / 1e9

    found = {"peak_gflops": product(size, size, size)}
    width = 2048 if cuda else 384
    for rows in (1, 4, 16, 64):
        found[f"gflops_of_{rows}_rows"] = product(rows, width, 4 * width)
    source = torch.zeros((1 << 30 if cuda else 1 << 28) // 4, device=device)
    target = torch.zeros_like(source)
    copies = _rate(lambda: target.copy_(source), wait)
    found["gigabytes_per_second"] = copies * 2 * source.numel() * 4 / 1e9
    return {name: round(value, 1) for name, value in found.items()}


if __name__ == "__main__":
    import torch

    torch.set_num_threads(1)
    print(json.dumps(machine(sys.argv[1])))
