"""What of a network is trained: adapters (peft) beside it, or some of its own weights."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from math import inf
from typing import Any, TypeVar

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from instructgpt.models.features import Features, Tokens, check_tokens
from instructgpt.models.forward import base_network
from instructgpt.models.heads import Heads, ScalarModel
from instructgpt.models.layers import last_weights
from instructgpt.models.peft_private import is_adapted
from instructgpt.models.quantized import Quantization, quantize, unpack
from instructgpt.models.source import explained
from instructgpt.types import UserError, require

MYPY = False  # what stands under TYPE_CHECKING is imported by jsonargparse
if MYPY:
    from peft import PeftConfig, PeftModel, TaskType

Model = TypeVar("Model", bound=nn.Module)


@dataclass(frozen=True)
class Trained(ABC):
    """What of a network is trained; the rest stays as it is. Heads of scores always learn."""

    @abstractmethod
    def attach(self, model: Model) -> Model:
        """Freeze a network but for what is trained, and return the model to use instead.

        Args:
            model: a causal language model, or a ScalarModel, which is changed in place.
        """


@dataclass(frozen=True)
class Adapter(Trained):
    """Weights beside those of the network, which can be switched off: then it is as it was."""

    def attach(self, model: Model) -> Model:
        """Freeze a network and put the adapter on it."""
        if isinstance(model, ScalarModel):
            model.trunk = _wrapped(model.trunk, self, "FEATURE_EXTRACTION")
            return model
        return _wrapped(model, self, "CAUSAL_LM")  # type: ignore[return-value]

    @abstractmethod
    def peft_config(self, network: PreTrainedModel, task: TaskType) -> PeftConfig:
        """Peft's configuration for a network."""

    def initialise(self, model: PeftModel) -> None:
        """Set the first values where peft's are not right."""


@dataclass(frozen=True)
class LoRA(Adapter):
    """Low-rank updates of linear layers (Hu et al. 2021, arXiv:2106.09685), 0 at the start.

    Args:
        rank: of each update.
        alpha: the update is scaled by alpha / rank.
        dropout: on what goes into the updates; off in PPO.
        target_modules: names of the layers to update, e.g. [q_proj, v_proj]; default: all linear
            ones but the heads.
    """

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    target_modules: list[str] | None = None

    def __post_init__(self) -> None:
        """Check the values."""
        require(self.rank >= 1, "--model.trained.rank", ">= 1", self.rank)
        require(self.alpha > 0, "--model.trained.alpha", "> 0", self.alpha)
        require(0 <= self.dropout < 1, "--model.trained.dropout", "in [0, 1)", self.dropout)

    def peft_config(self, network: PreTrainedModel, task: TaskType) -> PeftConfig:
        """Peft's configuration for a network."""
        from peft import LoraConfig

        return LoraConfig(
            task_type=task,
            r=self.rank,
            lora_alpha=self.alpha,  # type: ignore[arg-type]  # peft computes alpha / r
            lora_dropout=self.dropout,
            target_modules=self.target_modules or "all-linear",
            fan_in_fan_out=any(isinstance(module, Conv1D) for module in network.modules()),
        )


@dataclass(frozen=True)
class Prefix(Adapter):
    """Learned keys and values in front of every row (Li and Liang 2021, arXiv:2101.00190).

    Args:
        tokens: positions the prefix takes; they count towards the context length.
    """

    tokens: int = 16

    def __post_init__(self) -> None:
        """Check the value."""
        require(self.tokens >= 1, "--model.trained.tokens", ">= 1", self.tokens)

    def peft_config(self, network: PreTrainedModel, task: TaskType) -> PeftConfig:
        """Peft's configuration for a network."""
        if any(getattr(module, "gradient_checkpointing", False) for module in network.modules()):
            raise UserError(
                "--model.trained must not be Prefix with gradient_checkpointing, which drops its "
                "cache"
            )
        if not getattr(network, "takes_prefix", True):
            raise UserError(
                "--model.trained must not be Prefix for a network whose cache holds more than keys "
                f"and values, got {network.config.model_type}"
            )
        window = getattr(network.config.get_text_config(), "sliding_window", None)
        if window:
            raise UserError(
                "--model.trained must not be Prefix for attention within a window, which moves "
                f"past it, got sliding_window {window}"
            )
        from peft import PrefixTuningConfig

        return PrefixTuningConfig(task_type=task, num_virtual_tokens=self.tokens)

    def initialise(self, model: PeftModel) -> None:
        """Start near zero: peft's N(0, 1) drowns what the network has learned."""
        encoder: Any = model.prompt_encoder[model.active_adapter]
        nn.init.normal_(encoder.embedding.weight, std=0.02)


@dataclass(frozen=True)
class LastLayers(Trained):
    """The last layers, the norm after them, and a head that is not also the embedding.

    What is below is computed without gradients. An export is a plain model.

    Args:
        layers: how many of the last are trained.
    """

    layers: int = 2

    def __post_init__(self) -> None:
        """Check the value."""
        require(self.layers >= 1, "--model.trained.layers", ">= 1", self.layers)

    def attach(self, model: Model) -> Model:
        """Freeze all but the last layers."""
        network = model.trunk if isinstance(model, ScalarModel) else model
        _check_plain(network, self)
        network.requires_grad_(False)
        for weight in last_weights(base_network(network), self.layers, "--model.trained.layers"):
            weight.requires_grad_(True)
        return model


@dataclass(frozen=True)
class FrozenTrunk(Trained):
    """The head of a reward model alone, which reads features that are computed once a row.

    The features are states of layers, standardised over the training responses; they are kept for
    later runs (``python -m instructgpt cache``). An epoch then takes seconds. Dropout is off.

    Args:
        layers: whose states are read: 0 is what the first layer reads, i what follows the i-th, -1
            what the network's own head reads. Above the last of them nothing is computed.
        tokens: of a response: the last one, the mean over all, or both. A sequence classifier of
            transformers can hold a head that reads the last token of the last layer; of
            SmolLM2-135M both of two layers were better.
        lr: learning rate of the head, in place of ``--model.optimizer.lr``.
        ridge: half of this times the squared weights is added to the loss, a sum over the prompts;
            null: the best of 100 to 30,000 in five folds of the training prompts. Some hundred
            pairs are learned by heart without. The head has no other weight decay.
    """

    layers: list[int] = field(default_factory=lambda: [-1])
    tokens: list[Tokens] = field(default_factory=lambda: ["last"])
    lr: float = 3e-4
    ridge: float | None = None

    def __post_init__(self) -> None:
        """Check the values."""
        once = bool(self.layers) and len(set(self.layers)) == len(self.layers)
        require(once, "--model.trained.layers", "numbers of layers, each once", self.layers)
        check_tokens(self.tokens, "--model.trained.tokens")
        require(0 <= self.lr < inf, "--model.trained.lr", ">= 0", self.lr)
        require(0 <= (self.ridge or 0) < inf, "--model.trained.ridge", ">= 0", self.ridge)

    def attach(self, model: Model) -> Model:
        """Freeze the trunk; a head that reads something else gives way to one that starts at 0."""
        if not isinstance(model, ScalarModel):
            raise UserError(
                "--model.trained must not be FrozenTrunk for a policy, whose head is not a score"
            )
        _check_plain(model.trunk, self)
        model.trunk.requires_grad_(False)
        features = Features.of(self.layers, self.tokens, model.trunk, "--model.trained.layers")
        if model.features != features:
            model.features = features
            model.head = Heads(1, features.width(model.trunk))
        return model


def attach(
    model: Model, trained: Trained | None, quantization: Quantization | None = None
) -> Model:
    """The model to use instead, of which some is trained and the rest is frozen.

    Args:
        model: a causal language model, or a ScalarModel, which is changed in place; its head stays
            trainable.
        trained: what is; None: everything, and nothing changes.
        quantization: of the linear layers that are frozen.
    """
    return model if trained is None else quantize(trained.attach(model), quantization)


def merged(model: Model) -> Model:
    """A copy with LoRA folded into the weights, unpacked; the given model is left as it is.

    Args:
        model: a causal language model or a ScalarModel. A prefix cannot be folded in: a UserError.
    """
    if isinstance(model, ScalarModel):
        copied = unpack(copy.deepcopy(model))
        copied.trunk = _folded(copied.trunk)
        return copied
    return _folded(unpack(copy.deepcopy(model)))  # type: ignore[return-value]


def _check_plain(model: nn.Module, trained: Trained) -> None:
    if is_adapted(model):
        raise UserError(
            "--model.trained must be null for a model that has an adapter, got "
            f"{type(trained).__name__}"
        )


def _wrapped(model: nn.Module, adapter: Adapter, task: str) -> PeftModel:
    _check_plain(model, adapter)
    from peft import TaskType, get_peft_model
    from peft.tuners.tuners_utils import BaseTunerLayer

    network = base_network(model)
    config = adapter.peft_config(network, TaskType(task))
    kind = network.config.model_type
    with explained(f"--model.trained: {type(adapter).__name__} does not fit '{kind}'"):
        wrapped = get_peft_model(network, config)
    output, embedding = network.get_output_embeddings(), network.get_input_embeddings()
    if network.config.tie_word_embeddings and (
        isinstance(output, BaseTunerLayer) or isinstance(embedding, BaseTunerLayer)
    ):
        raise UserError(
            "--model.trained.target_modules must not name embeddings that share their weights, "
            f"got {adapter}"
        )
    adapter.initialise(wrapped)
    return wrapped.train(model.training)


def _folded(model: nn.Module) -> PreTrainedModel:
    if not is_adapted(model):
        return base_network(model)
    if model.active_peft_config.is_prompt_learning:
        raise UserError("--model.trained: a prefix cannot be merged into the weights")
    folded: PreTrainedModel = model.merge_and_unload()
    return folded
