"""Small networks that are decoded, and prompts for them."""

import torch
from flat_families import FLAT
from flat_families import PADDED as OWN_ATTENTION
from transformers import AutoConfig, AutoModelForCausalLM

from instructgpt.models.shift_gpt import ShiftGPTConfig
from instructgpt.rollout.drawing import Ends, Request
from instructgpt.rollout.engine import OwnEngine

SMALL = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
}
GPT2 = {"vocab_size": 64, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}
WINDOW = {"sliding_window": 4}
KINDS = {
    "gpt2": GPT2,
    "llama": SMALL,
    "qwen2": SMALL,
    "qwen3": SMALL,
    "gemma2": SMALL | WINDOW,  # with soft-capped scores
    "gemma3_text": SMALL | WINDOW | {"layer_types": ["sliding_attention", "full_attention"]},
    "mistral": SMALL | WINDOW,
    "gpt_neox": SMALL,
    "phi": SMALL,
    "granite": SMALL,
    "cohere": SMALL,
    "cohere2": SMALL | WINDOW,
    "mixtral": SMALL,
}
SMALLER = {"vocab_size": 64, "bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 0}
IN_SLOTS = {name: FLAT[name] | SMALLER for name in ("gpt_bigcode", "opt", "olmo2", "smollm3")}
ALIKE = [*KINDS, *IN_SLOTS, "shift_gpt"]
"""Every architecture that is decoded in slots here."""
PADDED = {
    **{name: FLAT[name] | SMALLER for name in ("gpt_oss", "llama4_text")},  # sinks; chunks
    **{name: options | SMALLER for name, options in OWN_ATTENTION.items()},
}
PROMPTS = [[(7 * i + 3 * j) % 60 + 2 for i in range(n)] for j, n in enumerate((3, 11, 1, 6, 2, 9))]


def build(name):
    torch.manual_seed(0)
    options = {**SMALL, **GPT2} if name == "shift_gpt" else (KINDS | IN_SLOTS | PADDED)[name]
    config = AutoConfig.for_model(name, **options)
    if name == "shift_gpt":
        config = ShiftGPTConfig(vocab_size=64, hidden_size=32, num_attention_heads=4)
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.25)  # so that attention matters
    return model


def respond(model, sampling, prompts=PROMPTS, ends=Ends(8, ()), told=None):  # noqa: B008
    requests = [Request(prompt, number, "") for number, prompt in enumerate(prompts)]
    found = OwnEngine().respond(model, requests, ends, sampling, (5, 0), told)
    return sorted(one for some in found for one in some)
