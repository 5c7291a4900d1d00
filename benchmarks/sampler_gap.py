"""How far what sampling recorded is from what the training pass says of the same tokens.

    python benchmarks/sampler_gap.py MODEL           # writes results/sampler_gap.json

MODEL is a folder or hub id of a chat model; it answers some questions in float32 and in bfloat16.
For each number format: how much the log-probability of a token differs, the KL per token as PPO
logs it (``ppo/sampler_kl``), and how many first ratios would be outside of the clip range 0.2 if
the updates took what was recorded (``--model.reuse_logprobs true``).
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch

from instructgpt.functional.logprobs import kl_estimate
from instructgpt.models.choice import choose_template
from instructgpt.models.load import Network, load_policy
from instructgpt.models.tokenizer import load_tokenizer
from instructgpt.rollout.drawing import Sampling
from instructgpt.rollout.rows import flatten
from instructgpt.rollout.sampler import sample
from instructgpt.rollout.scoring import response_logprobs
from instructgpt.types import Prompt, PromptBatch

QUESTIONS = (
    "What is the capital of France?",
    "Write a short poem about the sea.",
    "Explain in two sentences why the sky is blue.",
    "Name three animals that can fly and one that cannot.",
)
EACH = 4
"""Responses to each question."""


def measure(source: str, dtype: str, tokens: int) -> dict[str, float]:
    """The gap in a number format.

    Args:
        source: folder or hub id.
        dtype: of the weights.
        tokens: limit of a response.
    """
    tokenizer = load_tokenizer(source)
    template = choose_template("", source, tokenizer, "--template").template
    model = load_policy(source, None, Network(dtype), tokenizer).eval()  # type: ignore[arg-type]
    prompts = [Prompt(q, [{"role": "user", "content": q}], q, {}) for q in QUESTIONS]
    prompts = [prompt for prompt in prompts for _ in range(EACH)]
    rows = [template.encode_prompt(tokenizer, prompt) for prompt in prompts]
    width = max(map(len, rows))
    padded = torch.tensor([[0] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[False] * (width - len(row)) + [True] * len(row) for row in rows])
    batch = PromptBatch(padded, mask, torch.arange(len(rows)), prompts)
    start, stops = time.process_time(), template.stop_ids(tokenizer)
    rollout = sample(model, batch, tokens, stops, Sampling(), seed=0)
    spent = time.process_time() - start
    with torch.no_grad():
        trained = response_logprobs(model, flatten(rollout), 1.0).logprobs
    real = rollout.response_mask
    gap = (trained - rollout.logprobs)[real]
    kl = kl_estimate(rollout.logprobs[real], trained[real], "k3").mean()
    return {
        "tokens": int(real.sum()),
        "cpu_seconds": round(spent, 2),
        "mean": float(gap.abs().mean()),
        "99_of_100": float(gap.abs().quantile(0.99)),
        "most": float(gap.abs().max()),
        "kl_per_token": float(kl),
        "outside_of_the_clip_range": float(((gap.exp() - 1).abs() > 0.2).float().mean()),
    }


def main() -> None:
    """Measure, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="folder or hub id of a chat model")
    parser.add_argument("--tokens", type=int, default=64, help="limit of a response")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = {one: measure(options.model, one, options.tokens) for one in ("float32", "bfloat16")}
    text = json.dumps(found, indent=1) + "\n"
    print(text)
    path = Path(__file__).resolve().parent / "results" / "sampler_gap.json"
    path.write_text(text)


if __name__ == "__main__":
    main()
