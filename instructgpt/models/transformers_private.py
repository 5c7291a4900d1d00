"""All that we take from the inside of transformers (5.23), each with the reason why.

``tests/test_private_members.py`` says what breaks when an upgrade removes one of them.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

from torch import nn
from transformers import (
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)


def attention_name(config: PreTrainedConfig) -> str:
    """The implementation of attention that a model uses; public is only how to choose it.

    Args:
        config: of a model that is built.
    """
    name: str = config._attn_implementation
    return name


def set_attention(config: PreTrainedConfig, name: str) -> None:
    """Choose the implementation of attention for the next call; the public way checks all modules.

    Args:
        config: of a model that is built, changed in place.
        name: of an implementation that transformers knows.
    """
    config._attn_implementation = name


def has_attention(kind: type[PreTrainedModel], name: str) -> bool:
    """Whether an architecture has an implementation of attention, before it is built.

    Transformers would refuse a missing one, some only when they run.

    Args:
        kind: of the model.
        name: of the implementation, as for transformers.
    """
    return name == "eager" or (name == "sdpa" and bool(kind._supports_sdpa))


def takes_attention(kind: type[PreTrainedModel]) -> bool:
    """Whether an architecture looks its attention up where others can be registered.

    Args:
        kind: of the model.
    """
    return bool(kind._supports_attention_backend)


def keeps_states(kind: type[PreTrainedModel]) -> bool:
    """Whether the cache holds states of a recurrence: no config says so for all of them.

    Args:
        kind: of the model.
    """
    return bool(kind._is_stateful)


def keeps_float32(model: PreTrainedModel) -> bool:
    """Whether weights of a network stay in float32 as it is loaded in half precision.

    Args:
        model: of any kind.
    """
    return bool(model._keep_in_fp32_modules or model._keep_in_fp32_modules_strict)


def encodes_plainly(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a tokenizer's ids are those of its backend: some prepare texts themselves.

    Args:
        tokenizer: of any kind.
    """
    kind, plain = type(tokenizer), PreTrainedTokenizerFast
    if not issubclass(kind, plain) or kind.__call__ is not plain.__call__:
        return False
    return bool(kind._encode_plus is plain._encode_plus)


def config_facts(config: PreTrainedConfig) -> dict[str, Any]:
    """A configuration without the place it was loaded from, which ``to_dict`` keeps.

    Args:
        config: of a model.
    """
    return {key: value for key, value in config.to_dict().items() if key != "_name_or_path"}


class OpenPreTrainedModel(PreTrainedModel):
    """What transformers asks of an architecture by private names."""

    _supports_sdpa = True
    _supports_attention_backend = True  # any that is registered
    tied_weights: ClassVar[dict[str, str]] = {}
    """Names of weights that are another one, and of that one."""

    @property
    def _tied_weights_keys(self) -> dict[str, str]:  # type: ignore[override]
        return self.tied_weights

    def _init_weights(self, module: nn.Module) -> None:
        self.start(module)

    @abstractmethod
    def start(self, module: nn.Module) -> None:
        """Give a module that is in no checkpoint its first weights.

        Args:
            module: one of the model's, after its own parts.
        """
