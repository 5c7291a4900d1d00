"""Reward models as sequence classifiers of transformers, which find the end of a row by padding."""

from __future__ import annotations

import copy
from itertools import chain, count
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from instructgpt.models.tokenizer import id_count, only_pads, pad_id


def sequence_classifier(trunk: PreTrainedModel, head: nn.Module) -> PreTrainedModel | None:
    """A sequence classifier of transformers with these very weights; None if it has none.

    Args:
        trunk: transformer without a head.
        head: linear [d] -> [1].
    """
    if type(trunk.config) not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
        return None
    kind: Any = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[type(trunk.config)]
    config = copy.deepcopy(trunk.config)
    config.num_labels = 1
    with torch.device("meta"):
        classifier: PreTrainedModel = kind(config)
    weights = {
        f"{kind.base_model_prefix}.{name}": value for name, value in trunk.state_dict().items()
    }
    weights |= {f"score.{name}": value.to(trunk.dtype) for name, value in head.state_dict().items()}
    if set(weights) != set(classifier.state_dict()):
        return None
    classifier.load_state_dict(weights, assign=True)
    return classifier


def distinctly_padded(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase | None:
    """A copy of a tokenizer whose padding token never stands in a text; None if impossible.

    A classifier of transformers takes the last token that is not padding for the end of a row. So
    padding that is missing, EOS or the end of a turn is replaced by a token of its own.

    Args:
        tokenizer: left as it is.
    """
    padded = copy.deepcopy(tokenizer)
    padded.padding_side = "right"  # also where positions are learned, and nobody gives them
    if only_pads(tokenizer):
        return padded
    taken = tokenizer.get_vocab()
    names = chain(["<|pad|>"], (f"<|pad_{number}|>" for number in count(1)))
    padded.add_special_tokens({"pad_token": next(name for name in names if name not in taken)})
    # Where ids have gaps, tokenizers gives the new token the id of another one.
    return None if padded.pad_token_id in taken.values() else padded


def save_classifier(
    classifier: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, place: Path
) -> None:
    """Save a classifier; its embedding grows where it has no room for the padding token.

    Args:
        classifier: of ``sequence_classifier``.
        tokenizer: of ``distinctly_padded``.
        place: folder to write into.
    """
    embedding: Any = classifier.get_input_embeddings()
    if id_count(tokenizer) > embedding.num_embeddings:
        classifier.resize_token_embeddings(id_count(tokenizer), mean_resizing=False)
    for config in (classifier.config, classifier.config.get_text_config()):
        config.pad_token_id = pad_id(tokenizer)
    classifier.save_pretrained(place)
