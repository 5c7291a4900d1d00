"""The networks of step 3: policy, reference, value."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from math import inf
from typing import Literal

from torch import nn
from transformers import PreTrainedTokenizerBase

from instructgpt.algorithms.base import require
from instructgpt.models.adapters import Adapter, attach
from instructgpt.models.artefact import read_artefact
from instructgpt.models.digest import weights_digest
from instructgpt.models.heads import ScalarModel
from instructgpt.models.load import Network, load_policy, load_scalar
from instructgpt.models.tokenizer import tokenizer_fingerprint
from instructgpt.rewards.base import RewardFunction
from instructgpt.rewards.learned import LearnedReward
from instructgpt.types import Origin, UserError

CHANCE = ("dropout", "pdrop", "layerdrop", "jitter")
"""Parts of the names under which networks keep probabilities, or widths of noise in training."""


@dataclass(frozen=True)
class Value:
    """The value model of an algorithm that uses one, and how it is trained.

    Args:
        kind: a separate model, or a head that shares the policy's trunk.
        init_from: folder the separate model starts from; the learned reward model by default
            (paper).
        lr: learning rate (paper: 9e-6).
        weight_decay: weight decay.
    """

    kind: Literal["separate", "shared"] = "separate"
    init_from: str | None = None
    lr: float = 9e-6
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        """Check the fields."""
        require(0 <= self.lr < inf, "model.value.lr", ">= 0", self.lr)
        require(0 <= self.weight_decay < inf, "model.value.weight_decay", ">= 0", self.weight_decay)
        needless = self.kind == "shared" and self.init_from is not None
        rule = "null with value.kind shared"
        require(not needless, "model.value.init_from", rule, self.init_from)


class Frozen:
    """Models that are not trained, kept where Lightning does not see them.

    They are in no checkpoint, optimizer or wrapper; they come back from their artefacts.
    """

    def __init__(self, reference: nn.Module | None, reward: RewardFunction) -> None:
        """Hold the reference (None: the policy with its adapter off) and the reward function."""
        self.reference = reference
        self.reward = reward


def without_dropout(network: nn.Module) -> nn.Module:
    """Switch every kind of dropout and noise off, also in training mode.

    With dropout the sampling policy, the reference and the updated policy would differ by chance,
    and the first probability ratio would not be 1. Training mode itself is needed for gradient
    checkpointing.
    """
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name, value in vars(module).items():
            if isinstance(value, float) and any(word in name for word in CHANCE):
                setattr(module, name, 0.0)
    return network


def frozen(network: nn.Module) -> nn.Module:
    """A network in evaluation mode without gradients."""
    return network.requires_grad_(False).eval()


def build_policy(
    init_from: str, network: Network, tokenizer: PreTrainedTokenizerBase, adapter: Adapter | None
) -> tuple[nn.Module, nn.Module | None, Origin]:
    """The policy, the reference it starts as (None with an adapter), and what both come from."""
    policy: nn.Module = load_policy(init_from, None, network, tokenizer)
    origin = Origin(init_from, weights_digest(policy))
    if adapter is not None:
        return without_dropout(attach(policy, adapter)), None, origin
    reference = frozen(load_policy(init_from, None, network, tokenizer))
    return without_dropout(policy), reference, origin


def build_value(
    value_init_from: str | None,
    policy_from: str,
    reward: RewardFunction,
    network: Network,
    tokenizer: PreTrainedTokenizerBase,
    adapter: Adapter | None,
) -> tuple[ScalarModel, Origin]:
    """A separate value model: from the reward model if there is one (paper, C.4), else a new head.

    Args:
        value_init_from: what the user asked for, if anything.
        policy_from: where the policy comes from; its trunk carries a new head as a last resort.
        reward: the reward function; a learned one is where the paper starts the value from.
        network: number format and kernels.
        tokenizer: of the policy; the value model reads the same tokens.
        adapter: train an adapter and the head only.

    Returns:
        The value model, and the weights that it starts from, without a new head.

    Raises:
        UserError: ``value_init_from`` was trained on another tokenizer.
    """
    source = value_init_from
    if source is None and isinstance(reward, LearnedReward):
        source = reward.init_from
    artefact = read_artefact(source) if source is not None else None
    if artefact is not None and artefact.tokenizer_hash != tokenizer_fingerprint(tokenizer):
        if value_init_from is not None:
            raise UserError(
                "model.value.init_from must have the tokenizer of model.init_from, "
                f"got {value_init_from} with another one"
            )
        warnings.warn(
            f"the reward model {source} has another tokenizer than the policy: "
            f"the value model starts from {policy_from} with a new head instead",
            stacklevel=2,
        )
        source = artefact = None
    stored = artefact is not None and artefact.head is not None
    value = load_scalar(
        source or policy_from,
        None,
        network,
        tokenizer,
        head="stored" if stored else "new",
        trainable_offset=True,
    )
    start = weights_digest(value if stored else value.trunk)
    if not stored:
        nn.init.zeros_(
            next(value.head.parameters())
        )  # a new critic starts neutral (arXiv:1909.08593)
    value = attach(value, adapter) if adapter else value
    without_dropout(value)
    return value, Origin(source or policy_from, start)
