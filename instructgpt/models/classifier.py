"""Reward models as sequence classifiers of transformers, which find the end of a row by padding."""

from __future__ import annotations

import copy
from itertools import chain, count
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from instructgpt.models.tokenizer import id_count, only_pads, pad_id


def sequence_classifier(trunk: PreTrainedModel, head: nn.Module) -> PreTrainedModel | None:
    """Return a sequence classifier of transformers with these very weights; None if it has none.

    Args:
        trunk: Transformer without a head.
        head: Linear [d] -> [1].
    """
    if type(trunk.config) not in AutoModelForSequenceClassification._model_mapping:
        return None
    kind: Any = AutoModelForSequenceClassification._model_mapping[type(trunk.config)]
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


def save_classifier(
    classifier: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, place: Path
) -> PreTrainedTokenizerBase:
    """Save a classifier and return the tokenizer to save with it.

    A classifier of transformers takes the last token that is not padding for the end of a row. So
    padding that is missing, EOS or the end of a turn is replaced by a token of its own.

    Args:
        classifier: Of ``sequence_classifier``; its embedding grows where it has no room.
        tokenizer: Its tokenizer, left as it is.
        place: Folder to write into.
    """
    padded = _distinctly_padded(tokenizer)
    embedding: Any = classifier.get_input_embeddings()
    if id_count(padded) > embedding.num_embeddings:
        classifier.resize_token_embeddings(id_count(padded), mean_resizing=False)
    for config in (classifier.config, classifier.config.get_text_config()):
        config.pad_token_id = pad_id(padded)
    classifier.save_pretrained(place)
    return padded


def _distinctly_padded(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """A copy whose padding token never stands in a text, put on the right of it."""
    padded = copy.deepcopy(tokenizer)
    padded.padding_side = "right"  # also where positions are learned, and nobody gives them
    if not only_pads(tokenizer):
        names = chain(["<|pad|>"], (f"<|pad_{number}|>" for number in count(1)))
        taken = tokenizer.get_vocab()
        padded.add_special_tokens({"pad_token": next(n for n in names if n not in taken)})
    return padded
