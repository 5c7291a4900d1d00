"""Transformers' own continuous batching beside ``generate`` and our slots, in turns.

    python benchmarks/continuous.py                  # writes results/continuous.json
    python benchmarks/continuous.py --device cuda    # writes results/continuous_cuda.json
    python benchmarks/continuous.py --tiny           # to see that all works; writes nothing

The rows are those of the row ``rollout`` of speed.py, whose weights say how long each response is;
what each way has drawn is counted, and must be the same. Then the first prompts are answered alone,
with the same seed: a token that is a function of (seed, phase, sample id) stays what it was.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from speed_data import EOS, PAD, prepare
from speed_rows import TABLE
from transformers import AutoModelForCausalLM, ContinuousBatchingConfig, GenerationConfig

from instructgpt.rollout.drawing import Ends, Request, Sampling
from instructgpt.rollout.sampler import respond

HERE = Path(__file__).resolve().parent
ALONE = 8
"""Prompts that are answered once more, without the others."""
SEED = 5

Way = Callable[[Any, Sequence[list[int]], int], list[list[int]]]


def slots(model: Any, prompts: Sequence[list[int]], most: int) -> list[list[int]]:
    """Ours."""
    requests = [Request(prompt, number, "") for number, prompt in enumerate(prompts)]
    found = respond(model, requests, Ends(most, [EOS]), Sampling(), (SEED, 0))
    return [one.tokens for one in sorted(found)]


def generate(model: Any, prompts: Sequence[list[int]], most: int) -> list[list[int]]:
    """Left-padded batches of 16, which is quicker than 64 at once."""
    torch.manual_seed(SEED)
    how = {"do_sample": True, "top_k": 0, "max_new_tokens": most, "pad_token_id": PAD}
    said: list[list[int]] = []
    for start in range(0, len(prompts), 16):
        some = prompts[start : start + 16]
        width = max(map(len, some))
        tokens = torch.tensor([[PAD] * (width - len(row)) + row for row in some])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in some])
        inputs = {"input_ids": tokens.to(model.device), "attention_mask": mask.to(model.device)}
        with torch.no_grad():
            drawn = model.generate(**inputs, **how)[:, width:].tolist()
        said += [row[: row.index(EOS) + 1] if EOS in row else row for row in drawn]
    return said


def generate_batch(model: Any, prompts: Sequence[list[int]], most: int) -> list[list[int]]:
    """Transformers' continuous batching: paged attention, one generator for all tokens."""
    special = {"eos_token_id": EOS, "pad_token_id": PAD}
    how = GenerationConfig(do_sample=True, top_k=0, max_new_tokens=most, **special)
    # As long a memory as the rows need: what it takes by itself is a share of the whole machine.
    longest = max(map(len, prompts)) + most
    pages = -(-longest // 32) * len(prompts)
    config = ContinuousBatchingConfig(seed=SEED, page_size=32, num_blocks=pages)
    found = model.generate_batch(list(prompts), how, config)
    return [one.generated_tokens for one in found.values()]


WAYS: dict[str, Way] = {"slots": slots, "generate": generate, "generate_batch": generate_batch}


def measure(model: Any, prompts: list[list[int]], most: int, repeats: int) -> dict[str, Any]:
    """Seconds of each way, how much each has drawn, and what stays the same without the others.

    Args:
        model: a causal language model.
        prompts: to answer.
        most: tokens of a response.
        repeats: counted turns, behind one that is not.
    """
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in WAYS}
    said: dict[str, list[list[int]]] = {}
    for _ in range(repeats + 1):
        for name, way in WAYS.items():
            wall, cpu = time.perf_counter(), time.process_time()
            said[name] = way(model, prompts, most)
            spent[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    found = {}
    for name, way in WAYS.items():
        alone = way(model, prompts[:ALONE], most)
        seconds, cpu = zip(*spent[name][1:], strict=True)
        found[name] = {
            "cpu_seconds": round(statistics.median(cpu), 3),
            "cpu_seconds_range": [round(min(cpu), 3), round(max(cpu), 3)],
            "seconds": round(statistics.median(seconds), 3),
            "tokens": sum(map(len, said[name])),
            "same_without_the_others": sum(a == b for a, b in zip(alone, said[name], strict=False))
            / len(alone),
        }
    return found


def main() -> None:
    """Measure, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--repeats", type=int, default=5, help="counted turns")
    parser.add_argument("--runs", type=Path, default=HERE.parent / "runs/speed")
    parser.add_argument("--tiny", action="store_true", help="tiny shapes; writes no results file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    row = next(row for row in TABLE if row.name == "rollout")
    row = row.tiny() if options.tiny else row
    folder = prepare(options.runs, row.shape, row.dtype, row.rows)
    model = AutoModelForCausalLM.from_pretrained(folder / "policy").to(options.device).eval()
    prompts = [one["prompt"] for one in json.loads((folder / "ids.json").read_text())]
    found = measure(model, prompts, row.rows.response.most, options.repeats)
    if len({way["tokens"] for way in found.values()}) > 1:
        raise SystemExit(f"the ways drew different numbers of tokens: {found}")
    print(json.dumps(found, indent=1))
    if not options.tiny:
        name = "continuous.json" if options.device == "cpu" else "continuous_cuda.json"
        (HERE / "results" / name).write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
