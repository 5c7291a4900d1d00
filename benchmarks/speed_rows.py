"""The rows of the table of benchmarks/speed.py: what is done, against whom, with what aim."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from math import comb
from pathlib import Path
from typing import Any

from speed_data import SHAPES, Lengths, Rows

# The paper's lengths over 4 (its tables 9 and 11). Of 400 seeds the median draw has 5.5 times as
# many positions, when padded, as tokens; this one has 4.2, so padding is not overstated.
PROMPT, RESPONSE, SEED = Lengths(16, 1.354, 250), Lengths(14, 0.9, 64), 328
ASKED, SHOWN = Lengths(71, 0.855, 448), Lengths(4.5, 1.22, 64)
# For a GPU: the paper's own.
LONG_PROMPT, LONG_RESPONSE = Lengths(64, 1.354, 500), Lengths(56, 0.9, 256)
TINY_PROMPT, TINY_RESPONSE = Lengths(6, 0.5, 12), Lengths(4, 0.5, 8)

MICRO = tuple({"micro": micro} for micro in (1, 2, 4, 16))
SFT = tuple(
    {"packing": packing, "micro": micro}
    for packing, micros in ((True, (1, 2)), (False, (1, 8)))
    for micro in micros
)


@dataclass(frozen=True)
class Row:
    """One row of the table.

    Args:
        name: on the command line.
        about: in the table.
        kind: of work: ppo, rollout, reward, dpo, sft.
        shape: of the models.
        rows: that are read.
        unit: what is counted as done: sampled, comparisons, targets.
        step: rows of an optimizer step.
        steps: of a unit.
        peer: who it is compared with: ppo (TRL 1.12), trl (1.16), generate, or None.
        settings: of the peer, of which the quickest is taken.
        lora: whether adapters are trained.
        dtype: of the weights.
        aim: how many times as fast, at least.
        memory: of the peer's, at most.
        share: of the machine's peak, at least.
        graphs: whether our steps of decoding are CUDA graphs.
        ragged: whether a row that is decoded may be read only as far as it goes.
    """

    name: str
    about: str
    kind: str
    shape: str
    rows: Rows
    unit: str
    step: int = 0
    steps: int = 1
    peer: str | None = None
    settings: tuple[dict[str, Any], ...] = ({},)
    lora: bool = False
    dtype: str = "float32"
    aim: float | None = None
    memory: float | None = None
    share: float | None = None
    graphs: bool = True
    ragged: bool = True

    def tiny(self) -> Row:
        """The same in milliseconds; the settings are one, as nothing is to be found out."""
        shape = "tiny-llama" if self.shape == "llama" else "tiny"
        count = min(self.rows.prompts, 8)
        rows = replace(self.rows, prompts=count, prompt=TINY_PROMPT, response=TINY_RESPONSE)
        steps = min(self.steps, 2)
        size = {"step": count // steps, "steps": steps} if self.step else {}
        setting = {name: min(value, 4) for name, value in self.settings[0].items()}
        return replace(self, shape=shape, rows=rows, settings=(setting,), dtype="float32", **size)

    def work(self, folder: Path, device: str, **more: Any) -> dict[str, Any]:
        """What a worker is told.

        Args:
            folder: of models and rows.
            device: to work on.
            **more: beside it.
        """
        about = {"kind": self.kind, "folder": str(folder), "rows": asdict(self.rows)}
        about |= {"step": self.step, "steps": self.steps, "lora": self.lora}
        about |= {"graphs": self.graphs, "ragged": self.ragged}
        return {**about, "dtype": self.dtype, "device": device, **more}


def _prompts(count: int) -> Rows:
    return Rows(count, 0, PROMPT, RESPONSE, SEED)


def _ranked(count: int, responses: int) -> Rows:
    return Rows(count, responses, PROMPT, RESPONSE, SEED)


def _phase(name: str, about: str, shape: str, count: int, **more: Any) -> Row:
    """A phase of PPO with optimizer steps of 16 episodes."""
    size = {"unit": "sampled", "step": 16, "steps": count // 16}
    forward = tuple({"forward": forward} for forward in (count, 16))
    peer: dict[str, Any] = {"peer": "ppo", "settings": forward}
    return Row(name, about, "ppo", shape, _prompts(count), **size, **(peer | more))


def _rollout(name: str, about: str, shape: str, rows: Rows, **more: Any) -> Row:
    sizes = tuple({"micro": size} for size in (64, 16, 8))
    return Row(
        name, about, "rollout", shape, rows, "sampled", peer="generate", settings=sizes, **more
    )


def _sft(name: str, about: str, shape: str, **more: Any) -> Row:
    rows = Rows(64, 1, ASKED, SHOWN, SEED)
    size = {"unit": "targets", "step": 64, "peer": "trl", "settings": SFT}
    return Row(name, about, "sft", shape, rows, **size, **more)


TABLE = (
    _phase(
        "ppo", "PPO phase, GPT-2-like, 64 episodes", "gpt2", 64, aim=4.5, memory=0.35, share=0.65
    ),
    _phase("ppo-llama", "PPO phase, Llama-like, 32 episodes", "llama", 32, aim=3.2, memory=0.45),
    _phase(
        "ppo-lora", "PPO phase with LoRA, 64 episodes", "gpt2", 64, lora=True, aim=4.0, memory=0.35
    ),
    _rollout("rollout", "rollout, 64 prompts", "gpt2", _prompts(64), aim=3.6),
    _rollout("refill", "rollout, 256 prompts in 64 slots", "gpt2", _prompts(256), aim=5.0),
    Row(
        *("reward-4", "reward model, K = 4", "reward", "gpt2", _ranked(16, 4), "comparisons"),
        **{"step": 8, "steps": 2, "peer": "trl", "settings": MICRO, "aim": 10.0, "memory": 0.7},
        share=0.7,
    ),
    Row(
        *("reward-9", "reward model, K = 9", "reward", "gpt2", _ranked(4, 9), "comparisons"),
        **{"step": 4, "steps": 1, "peer": "trl", "settings": MICRO, "aim": 16.0, "memory": 0.7},
        share=0.7,
    ),
    Row(
        *("dpo", "DPO, pairs", "dpo", "gpt2", _ranked(32, 2), "comparisons"),
        **{"step": 16, "steps": 2, "peer": "trl", "settings": MICRO, "aim": 1.8, "memory": 0.7},
    ),
    _sft("sft-16k", "SFT, vocabulary of 16k", "gpt2", aim=1.9, memory=0.6, share=0.7),
    _sft("sft-49k", "SFT, vocabulary of 49k", "gpt2-49k", aim=2.2, memory=0.6, share=0.7),
)


def _on_gpu(size: str) -> tuple[Row, ...]:
    """Rollouts, also without graphs or as wide as the longest, and phases of PPO."""
    rows = Rows(64, 0, LONG_PROMPT, LONG_RESPONSE, SEED)
    rollout = _rollout(f"gpu-rollout-{size}", f"rollout, {size}", size, rows, aim=10.0)
    alone = {"peer": None, "settings": ({},), "aim": None}
    eager = {"name": f"gpu-eager-{size}", "about": f"the same without CUDA graphs, {size}"}
    wide = {"name": f"gpu-wide-{size}", "about": f"rollout, rows as wide as the longest, {size}"}
    phase = replace(_phase(f"gpu-ppo-{size}", f"PPO phase, {size}", size, 64), rows=rows)
    paper = {"name": f"gpu-paper-{size}", "about": f"PPO phase of 512 episodes, {size}"}
    made = (
        rollout,
        replace(rollout, **eager, **alone, graphs=False),
        replace(rollout, **wide, **alone, ragged=False),
        phase,
        replace(phase, **paper, **alone, rows=replace(rows, prompts=512), step=64, steps=8),
    )
    return tuple(replace(row, dtype="bfloat16", settings=row.settings[:1]) for row in made)


GPU = (*_on_gpu("1.3B"), *_on_gpu("124M"))


def _scaled(name: str, shape: str, count: int, prompt: Lengths, response: Lengths) -> Row:
    rows = Rows(count, 0, prompt, response, SEED)
    size = {"unit": "sampled", "step": min(16, count), "steps": max(1, count // 16)}
    return Row(name, name, "ppo", shape, rows, **size)


def _same(length: int) -> Lengths:
    return Lengths(length, 0.0, length)


SCALING: dict[str, Sequence[Row]] = {
    "episodes": [_scaled(f"{n}", "gpt2", n, PROMPT, RESPONSE) for n in (16, 32, 64, 128)],
    "response tokens": [
        _scaled(f"{n}", "gpt2", 16, _same(32), _same(n)) for n in (16, 32, 64, 128)
    ],
    "parameters": [
        _scaled(shape, shape, 16, PROMPT, RESPONSE)
        for shape in ("gpt2-small", "gpt2", "gpt2-large")
    ],
}


def expected(row: Row, made: Sequence[dict[str, Any]], peer: bool) -> dict[str, int]:
    """What a unit must have done: the same on both sides.

    Args:
        row: of the table.
        made: its prompts and responses.
        peer: whether of the peer, which knows no shared prompts.
    """
    prompts = [len(one["prompt"]) for one in made]
    lengths = [[len(response) for response in one["responses"]] for one in made]
    if row.kind in {"ppo", "rollout"}:
        sampled = sum(one["answer"] for one in made)
        must = {"sampled": sampled, "finished": len(made)}
        if row.kind == "rollout":
            return must
        return must | {"steps": row.steps, "tokens": sum(prompts) + sampled}
    must = {"steps": row.steps}
    if row.kind == "sft":
        targets = sum(map(sum, lengths))
        return must | {"targets": targets, "tokens": sum(prompts) + targets}
    must["comparisons"] = sum(comb(len(some), 2) for some in lengths)
    once = sum(prompts) + sum(map(sum, lengths))
    # Every response is in K - 1 pairs, each time behind its prompt.
    pairs = sum(
        (len(some) - 1) * (p * len(some) + sum(some))
        for p, some in zip(prompts, lengths, strict=True)
    )
    return must | {"tokens": pairs if peer else once}


def problems(
    row: Row, made: Sequence[dict[str, Any]], found: dict[str, Any], peer: bool
) -> list[str]:
    """In what a side did other work than it should.

    Args:
        row: of the table.
        made: its prompts and responses.
        found: a summary of the side's units.
        peer: which side.
    """
    side, wrong = "the peer" if peer else "ours", []
    for name, must in expected(row, made, peer).items():
        number = found["counts"].get(name, 0)
        if number != must:
            wrong.append(f"{row.name}, {side}: {name} must be {must}, got {number}")
    if found["dtype"] != row.dtype:
        wrong.append(f"{row.name}, {side}: dtype must be {row.dtype}, got {found['dtype']}")
    return wrong


def parameters(shape: str) -> dict[str, int]:
    """Weights of a shape: of its layers, and of its embeddings, which are its head too."""
    about = SHAPES[shape]
    if about["model_type"] == "gpt2":
        width, layers = about["n_embd"], about["n_layer"]
        body = 12 * width * width * layers
    else:
        width, layers = about["hidden_size"], about["num_hidden_layers"]
        body = (4 * width * width + 3 * width * about["intermediate_size"]) * layers
    return {"body": body, "head": about["vocab_size"] * width, "width": width, "layers": layers}
