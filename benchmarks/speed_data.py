"""Rows and models of benchmarks/speed.py: random words, random weights, forced lengths.

How long a response is must not be left to chance, nor to a hook in one of the sides: the weights
say it. Every word belongs to a class; the words of class n are followed by words of class n - 1,
those of class 1 by EOS. So the last word of a prompt says how many tokens are to come, to every
way of sampling there is. It takes a part of the embeddings and some neurons of the first layer;
all others are random.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

PAD, EOS, WORDS = 0, 1, 3
"""Ids: padding, the end, the first word."""
STRENGTH = 10.0  # of a class in the embeddings, whose other numbers are of norm 0.4
PLAIN = {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0}
SPECIAL = {"pad_token_id": PAD, "bos_token_id": EOS, "eos_token_id": EOS}


@dataclass(frozen=True)
class Lengths:
    """A log-normal distribution of lengths in tokens, cut at both ends.

    Args:
        median: of it.
        spread: standard deviation of the logarithm; 0: all the same.
        most: longest.
        least: shortest.
    """

    median: float
    spread: float
    most: int
    least: int = 2

    def draw(self, rng: np.random.Generator, count: int) -> list[int]:
        """Some lengths.

        Args:
            rng: source of chance.
            count: of them.
        """
        drawn = np.exp(rng.normal(np.log(self.median), self.spread, count))
        return drawn.round().clip(self.least, self.most).astype(int).tolist()


@dataclass(frozen=True)
class Rows:
    """Which rows a work reads.

    Args:
        prompts: how many.
        responses: to each prompt, in the data; 0: they are sampled.
        prompt: lengths of prompts.
        response: lengths of responses, EOS included.
        seed: of all of it.
    """

    prompts: int
    responses: int
    prompt: Lengths
    response: Lengths
    seed: int


def gpt2(layers: int, width: int, heads: int, vocabulary: int) -> dict[str, Any]:
    """A shape like GPT-2."""
    size = {"n_layer": layers, "n_embd": width, "n_head": heads, "n_positions": 1024}
    about = {"model_type": "gpt2", "vocab_size": vocabulary, **size, **PLAIN, **SPECIAL}
    return {**about, "initializer_range": 0.02 * min(1.0, (384 / width) ** 0.5)}


def llama(layers: int, width: int, inner: int, heads: int, vocabulary: int) -> dict[str, Any]:
    """A shape like Llama, its embeddings tied."""
    size = {"num_hidden_layers": layers, "hidden_size": width, "intermediate_size": inner}
    heads_ = {"num_attention_heads": heads, "num_key_value_heads": heads}
    about = {"model_type": "llama", "vocab_size": vocabulary, "max_position_embeddings": 1024}
    return {**about, **size, **heads_, "tie_word_embeddings": True, **SPECIAL}


SHAPES = {
    "tiny": gpt2(2, 48, 4, 128),
    "tiny-llama": llama(2, 48, 96, 4, 128),
    "gpt2": gpt2(6, 384, 6, 16_384),
    "gpt2-49k": gpt2(6, 384, 6, 49_152),
    "gpt2-small": gpt2(4, 192, 3, 16_384),
    "gpt2-large": gpt2(7, 640, 10, 16_384),
    "llama": llama(10, 384, 1024, 6, 16_384),
    "124M": gpt2(12, 768, 12, 50_304),
    "1.3B": gpt2(24, 2048, 16, 50_304),
}


def classes(rows: Rows) -> int:
    """How many classes of words there are, EOS not counted."""
    return rows.response.most


def make_rows(rows: Rows, vocabulary: int) -> list[dict[str, Any]]:
    """Prompts, how long an answer each will get, and the responses of the data, all as ids.

    Args:
        rows: which.
        vocabulary: number of ids.
    """
    rng, count = np.random.default_rng(rows.seed), classes(rows)
    prompts = rows.prompt.draw(rng, rows.prompts)
    each = max(1, rows.responses)
    lengths = np.reshape(rows.response.draw(rng, rows.prompts * each), (rows.prompts, each))
    made = []
    for size, sizes in zip(prompts, lengths.tolist(), strict=True):
        prompt = rng.integers(WORDS, vocabulary, size).tolist()
        last = int(rng.integers(0, (vocabulary - WORDS) // count))
        prompt[-1] = WORDS + last * count + sizes[0] - 1
        responses: list[list[int]] = []
        while len(responses) < rows.responses:
            words = rng.integers(WORDS, vocabulary, sizes[len(responses)] - 1).tolist()
            if [*words, EOS] not in responses:
                responses.append([*words, EOS])
        made.append({"prompt": prompt, "answer": sizes[0], "responses": responses})
    return made


def words(ids: Sequence[int]) -> str:
    """Ids as text; EOS is left to whoever reads it."""
    return "".join(f" w{i}" for i in ids if i != EOS)


def write_rows(folder: Path, rows: Rows, vocabulary: int) -> None:
    """Write ``rows.jsonl`` (texts, for us) and ``ids.json`` (the same as ids, for peers)."""
    made = make_rows(rows, vocabulary)
    (folder / "ids.json").write_text(json.dumps(made))
    with (folder / "rows.jsonl").open("w") as file:
        for number, row in enumerate(made):
            texts = [words(response) for response in row["responses"]]
            line: dict[str, Any] = {"id": str(number), "prompt": words(row["prompt"])}
            if rows.responses == 1:
                line["response"] = texts[0]
            elif rows.responses > 1:
                line |= {"responses": texts, "ranking": list(range(1, len(texts) + 1))}
            print(json.dumps(line), file=file)


def make_tokenizer(folder: Path, vocabulary: int) -> None:
    """Words separated by spaces."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    names = ["<pad>", "</s>", "<unk>", *(f"w{i}" for i in range(WORDS, vocabulary))]
    ids = {name: i for i, name in enumerate(names)}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)


def count_down(model: Any, count: int, seed: int) -> None:
    """Let each token say how many are to come.

    Args:
        model: a language model with tied embeddings, like GPT-2 or Llama.
        count: classes of words.
        seed: of the directions of the classes.
    """
    import torch

    table = model.get_input_embeddings().weight
    size, width = table.shape
    generator = torch.Generator().manual_seed(seed)
    with torch.device("cpu"):
        source = torch.randn(width, count + 1, generator=generator)
    source -= source.mean(0)  # what a layer norm leaves
    directions = STRENGTH * torch.linalg.qr(source)[0].T  # [count + 1, width]; 0 is EOS
    found, reads = directions.to(table), directions.to(table) / STRENGTH
    moves = found[:-1] - found[1:]  # from class n to class n - 1
    kinds = 1 + (torch.arange(size, device=table.device) - WORDS) % count
    kinds[EOS] = 0
    reach = width**0.5  # of a normed vector along its class
    with torch.no_grad():
        table += found[kinds] * (kinds >= 0)[:, None]
        table[[PAD, WORDS - 1]] -= found[kinds[[PAD, WORDS - 1]]]
        neurons = slice(0, count)
        if model.config.model_type == "gpt2":
            inner = model.transformer.h[0].mlp
            inner.c_fc.weight[:, neurons] = reads[1:].T
            inner.c_fc.bias[neurons] = -reach / 2
            inner.c_proj.weight[neurons] = moves / (reach / 2)
        else:
            inner = model.model.layers[0].mlp
            inner.gate_proj.weight[neurons] = inner.up_proj.weight[neurons] = reads[1:]
            inner.down_proj.weight[:, neurons] = moves.T / reach**2


def make_models(folder: Path, shape: str, dtype: str, count: int, device: str) -> None:
    """Write a policy and a reward model with random weights.

    Args:
        folder: of both.
        shape: name of it.
        dtype: of the weights.
        count: classes of words.
        device: that draws the weights.
    """
    import torch
    from transformers import (
        AutoConfig,
        AutoModelForCausalLM,
        AutoModelForSequenceClassification,
    )

    about = dict(SHAPES[shape])
    config = AutoConfig.for_model(about.pop("model_type"), num_labels=1, **about)
    torch.manual_seed(0)
    with torch.device(device):
        policy = AutoModelForCausalLM.from_config(config)
    count_down(policy, count, seed=1)
    policy.to(getattr(torch, dtype)).save_pretrained(folder / "policy")
    del policy
    with torch.device(device):
        reward = AutoModelForSequenceClassification.from_config(config)
    reward.to(getattr(torch, dtype)).save_pretrained(folder / "reward")
    for name in ("policy", "reward"):
        make_tokenizer(folder / name, config.vocab_size)


def prepare(folder: Path, shape: str, dtype: str, rows: Rows, device: str = "cpu") -> Path:
    """The folder of models and rows, made unless it is there.

    Args:
        folder: of all of them.
        shape: of the models.
        dtype: of the weights.
        rows: to read.
        device: that draws the weights.
    """
    facts = {"shape": SHAPES[shape], "dtype": dtype, "rows": asdict(rows)}
    made = folder / f"{shape}-{dtype}-{rows.prompts}x{rows.responses}-{rows.response.most}"
    stamp = made / "facts.json"
    if not stamp.exists() or json.loads(stamp.read_text()) != facts:
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir(parents=True)
        make_models(made, shape, dtype, classes(rows), device)
        write_rows(made, rows, SHAPES[shape]["vocab_size"])
        stamp.write_text(json.dumps(facts))
    return made
