"""Configurations of transformers models: checked before anything is built from them."""

from __future__ import annotations

import dataclasses
import difflib
import warnings
from typing import Any

from transformers import MODEL_MAPPING, PreTrainedConfig, PreTrainedTokenizerBase
from transformers.models.auto.configuration_auto import CONFIG_MAPPING as CONFIG_MAPPING

from instructgpt.models.source import explained
from instructgpt.models.support import check_language_model
from instructgpt.models.tokenizer import eos_id, id_count, pad_id
from instructgpt.models.transformers_private import keeps_states
from instructgpt.types import UserError

ATTENTION_LAYERS = {"full_attention", "sliding_attention", "chunked_attention"}
RESIDUAL_DROPOUT = (
    "resid_pdrop",
    "embd_pdrop",
    "emb_pdrop",
    "dropout",
    "hidden_dropout",
    "hidden_dropout_prob",
    "resid_dropout",
    "residual_dropout",
    "embed_dropout",
    "embedding_dropout",
)
OTHER_DROPOUT = (
    "attn_pdrop",
    "attention_dropout",
    "attention_probs_dropout_prob",
    "activation_dropout",
    "layerdrop",
)
ROPE_KEYS = {"rope_theta", "rope_scaling", "partial_rotary_factor", "rotary_pct", "rotary_emb_base"}


def context_length(config: PreTrainedConfig) -> int | None:
    """How many tokens the model was made for, or None; a prefix takes its share of them."""
    length = getattr(config.get_text_config(), "max_position_embeddings", None)
    return None if length is None else int(length)


def is_recurrent(config: PreTrainedConfig) -> bool:
    """Whether convolutions or recurrence carry state along a row, past any attention mask."""
    config = config.get_text_config()
    kinds = getattr(config, "layer_types", None)
    if kinds is not None and not set(kinds) <= ATTENTION_LAYERS:
        return True
    if type(config) not in MODEL_MAPPING:
        return False
    kind: Any = MODEL_MAPPING[type(config)]
    return keeps_states(kind)


PAPERS_DROPOUT = 0.2
"""Of SFT (arXiv:2203.02155, appendix C.1), and the default there."""


def set_dropout(config: PreTrainedConfig, probability: float) -> None:
    """Set residual dropout (of embeddings and sublayers, arXiv:1706.03762, 5.4), and no other.

    Warns where the architecture has none, as Llama and its like; not of the default, which nobody
    asked for.

    Args:
        config: changed in place; read by the model when it is built.
        probability: in [0, 1).
    """
    if not 0 <= probability < 1:
        raise UserError(f"dropout: must be in [0, 1), got {probability}")
    config = config.get_text_config()
    for name in OTHER_DROPOUT:
        if getattr(config, name, None) is not None:
            setattr(config, name, 0.0)
    fields = [name for name in RESIDUAL_DROPOUT if getattr(config, name, None) is not None]
    if config.model_type == "mpt":  # its code never reads them
        fields = []
    for name in fields:
        setattr(config, name, probability)
    if probability not in (0, PAPERS_DROPOUT) and not fields:
        message = f"{config.model_type} has no residual dropout: dropout {probability} is ignored"
        warnings.warn(message, stacklevel=2)


def new_config(
    architecture: dict[str, Any] | None,
    tokenizer: PreTrainedTokenizerBase | None,
    dropout: float | None,
) -> PreTrainedConfig:
    """The configuration of a model from scratch, with the tokenizer's size and ids.

    Args:
        architecture: as given by the user, ``model_type`` among its keys.
        tokenizer: the model's tokenizer.
        dropout: as for ``set_dropout``; None: as the architecture says.

    Raises:
        UserError: something is missing, misspelt or impossible.
    """
    if architecture is None:
        raise UserError("init_from: must be given, or an architecture to start from scratch")
    if tokenizer is None:
        raise UserError("tokenizer: must be given to start from scratch")
    check_model_type("architecture", architecture)
    kind = CONFIG_MAPPING[architecture["model_type"]]
    if "text_config" in kind.sub_configs:
        raise UserError(
            f"architecture: '{architecture['model_type']}' reads more than text: give the model "
            "of its text alone"
        )
    types = {field.name: str(field.type) for field in dataclasses.fields(kind)}
    fields = set(types) | set(kind.attribute_map)
    known = fields | (ROPE_KEYS if "rope_parameters" in fields else set()) | {"model_type"}
    for key in architecture:
        if key not in known:
            near = difflib.get_close_matches(key, sorted(known), 1)
            hint = f" (did you mean '{near[0]}'?)" if near else ""
            raise UserError(
                f"architecture: key '{key}' is not one of {architecture['model_type']}{hint}"
            )
    least = id_count(tokenizer)
    size = architecture.get("vocab_size", least)
    if not isinstance(size, int) or size < least:
        raise UserError(
            f"architecture: key 'vocab_size' must be >= {least}, the tokenizer's size, got {size}"
        )
    eos = eos_id(tokenizer)
    special = {
        "vocab_size": size,
        "eos_token_id": eos,
        "bos_token_id": eos if tokenizer.bos_token_id is None else tokenizer.bos_token_id,
        # Padding that is EOS would make the embedding of EOS start at 0: said later, in _ready.
        "pad_token_id": None if "None" in types.get("pad_token_id", "None") else pad_id(tokenizer),
    }
    with explained("architecture: wrong value"):
        given = {key: value for key, value in architecture.items() if key != "model_type"}
        config: PreTrainedConfig = kind(**(given | special))
    if dropout is not None:
        set_dropout(config, dropout)
    return config


def check_model_type(place: str, given: dict[str, Any]) -> None:
    """Refuse a configuration of what is no language model, or that transformers does not know.

    Args:
        place: where it was given, for the message.
        given: the configuration.
    """
    name = given.get("model_type")
    if isinstance(name, str) and name in CONFIG_MAPPING:
        check_language_model(place, name)
        return
    near = difflib.get_close_matches(str(name), list(CONFIG_MAPPING.keys()), 1)
    hint = f" (did you mean '{near[0]}'?)" if near else ""
    raise UserError(f"{place}: key 'model_type' must be one transformers knows{hint}, got {name!r}")
