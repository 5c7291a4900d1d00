"""What an architecture can be used for: whether it is a language model, which attention it has."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoModelForCausalLM, PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

from instructgpt.models.source import explained
from instructgpt.models.transformers_private import has_attention
from instructgpt.types import UserError

ENCODERS = {*MODEL_FOR_MASKED_LM_MAPPING_NAMES, "bert-generation"}

UNSUITED = {
    "blt": "reads bytes and not the tokens of a tokenizer",
    "cpmant": "reads its prompt in both directions",
    "gemma4_assistant": "drafts for another model",
    "gemma4_unified_assistant": "drafts for another model",
    "git": "describes images",
    "moshi": "speaks in audio tokens",
    "musicgen": "writes music",
    "musicgen_melody": "writes music",
    "phimoe": "draws its experts by chance in training",
    "recurrent_gemma": "lets its recurrence read padding",
    "rwkv": "lets its recurrence read padding",
    "trocr": "is the decoder of a reader of images",
    "xlnet": "sees what comes after a token",
    "xlstm": "lets its recurrence read padding",
    "youtu": "loses the embedding of its padding whenever transformers loads it",
}
"""Models that AutoModelForCausalLM knows but that cannot be used here, and why."""


def check_language_model(place: str, name: str) -> None:
    """Refuse what does not read from left to right, or not in padded batches.

    Args:
        place: where it was given, for the message.
        name: type of the model, one that transformers knows.
    """
    kind = CONFIG_MAPPING[name]
    reason = UNSUITED.get(name)
    if kind.is_encoder_decoder:
        reason = "is an encoder with a decoder"
    elif name in ENCODERS:
        reason = "is an encoder, which sees what comes after a token"
    elif reason is None and kind not in MODEL_FOR_CAUSAL_LM_MAPPING:
        reason = "is no causal language model"
    if reason is not None:
        raise UserError(
            f"{place}: must be a model that reads text from left to right, '{name}' {reason}"
        )


def attention_of(config: PreTrainedConfig, asked: str | None, remembered: str | None) -> str | None:
    """The implementation of attention to use: what was asked for, where there is one.

    Args:
        config: of the model.
        asked: by the user; None: as the artefact remembers, else sdpa.
        remembered: that the artefact was trained with, if it is one.

    Returns:
        A name for transformers; None for code that comes with a model, which chooses for itself.
    """
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        return asked or remembered
    kind: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    wanted = asked or remembered or "sdpa"
    if has_attention(kind, wanted):
        return wanted
    instead = "sdpa" if has_attention(kind, "sdpa") else "eager"
    missing = f"{config.model_type} has no {wanted} attention"
    if wanted != "sdpa":
        missing = f"attention {wanted}, which the model was trained with, is not used here"
    warnings.warn(f"{missing}: {instead} is used", stacklevel=2)
    return instead


def hidden_width(config: PreTrainedConfig) -> int:
    """The size of the hidden states that a head reads: what the model's own head reads."""
    with explained(f"init_from: cannot build '{config.model_type}'"), torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(config)
    return int(model.get_output_embeddings().weight.shape[1])
