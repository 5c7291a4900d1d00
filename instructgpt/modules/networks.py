"""The networks of step 3: policy, reference, value."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import PreTrainedTokenizerBase

from instructgpt.algorithms.base import RolloutAlgorithm
from instructgpt.models.artefact import Artefact, read_artefact, save_policy, save_scalar
from instructgpt.models.digest import weights_digest
from instructgpt.models.finite import check_finite
from instructgpt.models.forward import base_network, exact_tables
from instructgpt.models.heads import ScalarModel, ValueHead, score_head
from instructgpt.models.load import Network, load_policy, load_scalar
from instructgpt.models.quantized import quantize
from instructgpt.models.source import explained
from instructgpt.models.support import hidden_width
from instructgpt.models.tokenizer import tokenizer_fingerprint
from instructgpt.models.trained import Adapter, Trained, attach
from instructgpt.modules.fits import check_quantization
from instructgpt.rewards.base import RewardFunction
from instructgpt.rewards.learned import LearnedReward
from instructgpt.rollout.ema import WeightAverage
from instructgpt.rollout.scoring import Networks
from instructgpt.types import Diagnosis, Origin, Sample, Tell, UserError, require

VALUE_HEAD = "value_head.safetensors"
"""Beside an exported policy: the value head on its trunk, with which a further run goes on."""
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
        warmup_phases: first rollout phases in which only the value learns (of a shared one its
            head) and the policy stands still, also without pretraining; the paper does not say.
    """

    kind: Literal["separate", "shared"] = "separate"
    init_from: str | None = None
    lr: float = 9e-6
    weight_decay: float = 0.0
    warmup_phases: int = 0

    def __post_init__(self) -> None:
        """Check the fields."""
        require(0 <= self.lr < inf, "model.value.lr", ">= 0", self.lr)
        require(0 <= self.weight_decay < inf, "model.value.weight_decay", ">= 0", self.weight_decay)
        phases = self.warmup_phases
        require(phases >= 0, "model.value.warmup_phases", ">= 0", phases)
        needless = self.kind == "shared" and self.init_from is not None
        rule = "null with value.kind shared"
        require(not needless, "model.value.init_from", rule, self.init_from)


class Frozen:
    """What is not trained, kept where Lightning does not see it.

    It is in no checkpoint, optimizer or wrapper; it comes back from its artefacts.
    """

    def __init__(self, reward: RewardFunction, judge: RewardFunction | None = None) -> None:
        """Hold what scores, and the reference when there is one beside the policy."""
        self.reward, self.judge = reward, judge
        self.reference: nn.Module | None = None

    def prepare_judge(self, *tokens_and_device: Any) -> None:
        """Get the judge ready, as the reward function has been."""
        if self.judge is not None:
            self.judge.prepare(*tokens_and_device)

    def opinions(self, samples: list[Sample]) -> tuple[Tensor, Tensor | None]:
        """What the reward function says of responses, and the judge, if there is one."""
        judged = None if self.judge is None else self.judge.score(samples)
        return self.reward.score(samples), judged

    def to(self, device: torch.device, dtype: torch.dtype) -> None:
        """Move the reference, in the format of the policy: else their KL would not start at 0."""
        if self.reference is not None:
            with exact_tables(self.reference):
                self.reference.to(device, dtype)


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


def load_reference(
    init_from: str, network: Network, tokenizer: PreTrainedTokenizerBase, policy: nn.Module
) -> nn.Module:
    """The policy that training starts from, as it stays; what is not trained is there once.

    Args:
        init_from: what the policy starts from.
        network: number format and kernels; packed where that is asked for.
        tokenizer: of the policy.
        policy: in training, without an adapter.
    """
    if network.quantization is not None:
        warnings.warn(
            f"the reference is held in {network.quantization} (network.quantization): its KL to "
            "the policy is not 0 before the first step",
            stacklevel=2,
        )
    reference = frozen(load_policy(init_from, None, network, tokenizer))
    reference = quantize(reference, network.quantization)  # packed as the policy is: then shared
    for name, weight in policy.named_parameters(remove_duplicate=False):
        if not weight.requires_grad and not isinstance(weight, DTensor):
            place, _, own = name.rpartition(".")
            setattr(reference.get_submodule(place), own, weight)
    return reference


def optimizer_groups(networks: Networks, value: Value) -> list[dict[str, Any]]:
    """Policy and value in one optimizer: two would count every update twice."""
    options: dict[str, dict[str, Any]] = {
        "policy": {},
        "value": {"lr": value.lr, "weight_decay": value.weight_decay},
    }
    trained = {"policy": networks.policy, "value": networks.value}
    return [
        {"params": [p for p in one.parameters() if p.requires_grad], "name": name, **options[name]}
        for name, one in trained.items()
        if one is not None
    ]


def build_policy(
    init_from: str,
    network: Network,
    tokenizer: PreTrainedTokenizerBase,
    trained: Trained | None,
    uses_reference: bool,
) -> tuple[nn.Module, nn.Module | None, Origin]:
    """The policy, the reference it starts as, and what both come from.

    The reference is None with an adapter, as the policy without it is the same, and where none is
    used.
    """
    policy: nn.Module = load_policy(init_from, None, network, tokenizer)
    origin = Origin(init_from, weights_digest(policy))
    policy = without_dropout(attach(policy, trained, network.quantization))
    if isinstance(trained, Adapter) or not uses_reference:
        return policy, None, origin
    return policy, load_reference(init_from, network, tokenizer, policy), origin


def build_value_head(policy: nn.Module, init_from: str) -> tuple[ValueHead, Origin | None]:
    """A head on the policy's trunk, and the file beside the policy it goes on from, if any."""
    output: Any = base_network(policy).get_output_embeddings()
    head, kept = ValueHead(output.weight.shape[1]), Path(init_from, VALUE_HEAD)
    if not kept.is_file():
        return head, None
    with explained(f"init_from: cannot load '{kept}'"):
        head.load_state_dict(load_file(kept))
    check_finite(f"init_from: '{kept}'", head)
    return head, Origin(str(kept), weights_digest(head))


def build_value(
    value_init_from: str | None,
    policy_from: str,
    reward: RewardFunction,
    network: Network,
    tokenizer: PreTrainedTokenizerBase,
    trained: Trained | None,
    tell: Tell,
) -> tuple[ScalarModel, Origin]:
    """A separate value model: from the reward model if there is one (paper, C.4), else a new head.

    Args:
        value_init_from: what the user asked for, if anything.
        policy_from: where the policy comes from; its trunk carries a new head as a last resort.
        reward: the reward function; a learned one is where the paper starts the value from.
        network: number format and kernels.
        tokenizer: of the policy; the value model reads the same tokens.
        trained: what is trained, beside the head; None: everything.
        tell: told of a head that is not the reward model's.

    Returns:
        The value model, and the weights that it starts from, without a new head.

    Raises:
        UserError: ``value_init_from`` does not fit.
    """
    source = value_init_from
    if source is None and isinstance(reward, LearnedReward):
        source = reward.init_from
    artefact = read_artefact(source) if source is not None else None
    misfit = None if artefact is None else _misfit(artefact, tokenizer, trained)
    if misfit is not None:
        rule, has = misfit
        if value_init_from is not None:
            raise UserError(f"model.value.init_from must have {rule}, got {value_init_from}")
        what = f"the reward model {source} has {has}"
        tell(_new_head(what, f"starts from {policy_from} with a new head"))
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
    value, stored = _of_tokens(value, stored, f"{source}", tell)
    start = weights_digest(value if stored else value.trunk)
    if not stored:
        nn.init.zeros_(
            next(value.head.parameters())
        )  # a new critic starts neutral (arXiv:1909.08593)
    value = attach(value, trained, network.quantization)
    without_dropout(value)
    return value, Origin(source or policy_from, start)


def _misfit(
    artefact: Artefact, tokenizer: PreTrainedTokenizerBase, trained: Trained | None
) -> tuple[str, str] | None:
    """Why no value model can be made of an artefact: the rule, and what it has instead."""
    if artefact.tokenizer_hash != tokenizer_fingerprint(tokenizer):
        return "the tokenizer of model.init_from", "another tokenizer than the policy"
    if trained is not None and artefact.adapter == "prefix":
        name = f"--model.trained {type(trained).__name__}"
        return f"no prefix with {name}", f"a prefix, beside which there is no {name}"
    return None


def _new_head(what: str, start: str) -> Diagnosis:
    why = f"the value model {start}, and advantages are noise until it has learned"
    return Diagnosis("value_head", what, why, "--model.value.warmup_phases lets it learn first")


def _of_tokens(
    value: ScalarModel, stored: bool, source: str, tell: Tell
) -> tuple[ScalarModel, bool]:
    """A model that has one value a token, and whether its head is that of a reward model."""
    if value.features is not None:
        what = f"the heads of the reward model {source} read features of whole responses"
        tell(_new_head(what, "starts from its trunk with a new head"))
        return ScalarModel(value.trunk, score_head(hidden_width(value.config)), 0.0, True), False
    return (value.as_one() if value.heads > 1 else value), stored


def build_networks(
    algorithm: RolloutAlgorithm,
    value: Value,
    init_from: str,
    reward: RewardFunction,
    network: Network,
    tokenizer: PreTrainedTokenizerBase,
    trained: Trained | None,
    tell: Tell,
) -> tuple[Networks, nn.Module | None, dict[str, Origin]]:
    """The networks that an algorithm uses, the reference beside them, and where all come from.

    Args:
        algorithm: which networks there are.
        value: the value model, if it uses one.
        init_from: where the policy comes from.
        reward: the reward function, where the value model may start.
        network: number format and kernels.
        tokenizer: of all of them.
        trained: what is trained; with an adapter the reference is the policy without it.
        tell: told of a value head that is new where there is one.
    """
    check_quantization(network, trained is not None or algorithm.uses_reference)
    origins = {}
    policy, beside, origins["model.init_from"] = build_policy(
        init_from, network, tokenizer, trained, algorithm.uses_reference
    )
    critic: ScalarModel | ValueHead | None = None
    if algorithm.uses_value and value.kind == "shared":
        critic, origin = build_value_head(policy, init_from)
        if origin is not None:
            origins["model.value"] = origin
    elif algorithm.uses_value:
        critic, origins["model.value.init_from"] = build_value(
            value.init_from, init_from, reward, network, tokenizer, trained, tell
        )
    reference = (beside or policy) if algorithm.uses_reference else None
    return Networks(policy, reference, critic), beside, origins


def save_networks(
    path: Path,
    networks: Networks,
    average: WeightAverage | None,
    tokenizer: PreTrainedTokenizerBase,
    parents: tuple[str, str],
    about: dict[str, Any],
) -> None:
    """Write the policy, and in its folder ``ema`` (the averaged policy) and the value.

    Args:
        path: folder to create.
        networks: of the stage.
        average: of the policy's weights, if one is kept.
        tokenizer: of all of them.
        parents: where the policy and the value model come from.
        about: stage, template, config and metrics, stored in the artefact.
    """
    parent, value_parent = parents
    save_policy(networks.policy, tokenizer, path, parent=parent, **about)
    about = {**about, "metrics": {}}  # they are the policy's
    if average is not None:
        with average.applied(networks.policy):
            save_policy(networks.policy, tokenizer, path / "ema", parent=parent, **about)
    if isinstance(networks.value, ValueHead):
        save_file(networks.value.state_dict(), path / VALUE_HEAD)
    elif networks.value is not None:
        about["stage"] = "value"
        save_scalar(networks.value, tokenizer, path / "value", parent=value_parent, **about)
