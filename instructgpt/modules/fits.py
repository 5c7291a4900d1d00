"""What has to fit together: stage and data, rows and context, a checkpoint and its tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from instructgpt.models.forward import base_network, virtual_tokens
from instructgpt.models.load import Network, context_length
from instructgpt.types import UserError, require


def check_data(data: Any, expected: type, wanted: str, user: str) -> None:
    """Refuse a data module whose batches are for another stage.

    Args:
        data: of the run, if any.
        expected: type of the batches.
        wanted: data modules that have them.
        user: what is to work with them, for the message.
    """
    if data is None or data.batch_type is not expected:
        given = type(data).__name__ if data is not None else "nothing"
        raise UserError(f"{user} needs --data {wanted}, got {given}")


def check_context(network: nn.Module, tokens: int) -> None:
    """Refuse rows that are longer than the context of a network, without its prefix.

    Args:
        network: that reads them.
        tokens: of the longest row there can be.
    """
    limit = context_length(base_network(network).config)  # type: ignore[arg-type]
    if limit is not None and tokens > limit - virtual_tokens(network):
        raise UserError(
            "data.max_prompt_tokens + max_response_tokens (or a block) must fit into the "
            f"model's context of {limit - virtual_tokens(network)} tokens, got {tokens}"
        )


def check_quantization(network: Network, frozen: bool) -> None:
    """Refuse to pack weights that learn.

    Args:
        network: as asked for.
        frozen: whether there are weights that do not learn: beside an adapter, or a reference.
    """
    rule = "null where every weight learns (--model.trained null) and there is no reference"
    fits = frozen or network.quantization is None
    require(fits, "model.network.quantization", rule, network.quantization)


def check_text_format(theirs: Mapping[str, str], ours: Mapping[str, str]) -> None:
    """Refuse to go on with tokens that mean something else.

    Args:
        theirs: of the checkpoint, fingerprints by name.
        ours: of the data.
    """
    for name, mine in ours.items():
        if (other := theirs.get(name, mine)) != mine:
            raise UserError(
                f"ckpt_path: the checkpoint was trained with another {name} ({other}), "
                f"--data has {mine}"
            )
