"""Every option of every class with another value, and what shows that it has an effect."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from option_runs import GPT2, Inputs, Louder, Make, options_of

import instructgpt.cli  # noqa: F401  # loads every class
from instructgpt.algorithms.dpo import DPO
from instructgpt.algorithms.ipo import IPO
from instructgpt.algorithms.kl import AdaptiveKL, FixedKL
from instructgpt.algorithms.kwise import KWise
from instructgpt.algorithms.ppo import PPO
from instructgpt.algorithms.raft import RAFT
from instructgpt.algorithms.rloo import RLOO
from instructgpt.algorithms.schedule import Constant, Cosine
from instructgpt.callbacks.checkpoint import StageCheckpoint
from instructgpt.callbacks.doctor import Doctor
from instructgpt.data.comparisons import ComparisonDataModule
from instructgpt.data.demonstrations import DemonstrationDataModule
from instructgpt.data.prompts import PromptDataModule
from instructgpt.data.text import TextDataModule
from instructgpt.models.load import Network
from instructgpt.models.tokenizer import BPE
from instructgpt.models.trained import FrozenTrunk, LastLayers, LoRA, Prefix
from instructgpt.modules.networks import Value
from instructgpt.modules.optimizer import PaperAdam
from instructgpt.modules.ppo import PPOModule
from instructgpt.modules.preference import PreferenceModule
from instructgpt.modules.pretraining import Pretraining
from instructgpt.modules.reward import RewardModule
from instructgpt.modules.sft import SFTModule
from instructgpt.rewards.learned import LearnedReward
from instructgpt.rewards.mixture import MixtureReward
from instructgpt.rewards.rules import CallableReward, CountReward, LengthReward
from instructgpt.rollout.drawing import Sampling
from instructgpt.rollout.updates import Batches


class Place(NamedTuple):
    """Where a path comes from: a function of the session's inputs."""

    find: Callable[[Inputs], Any]


def sft(name=""):
    return Place(lambda inputs: inputs.path(f"sft{name}"))


def reward(name=""):
    return Place(lambda inputs: inputs.path(f"reward{name}"))


def rows(name):
    return Place(lambda inputs: inputs.file(name))


def folder(name):
    return Place(lambda inputs: inputs.path(name))


def tokenizer(name=""):
    return Place(lambda inputs: inputs.path(f"tokenizer{name}"))


@dataclass
class Flip:
    """A value to set, what both runs have beside it, and where the difference must show."""

    value: Any
    own: dict[str, Any] = field(default_factory=dict)  # further options of the same class
    model: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    trainer: dict[str, Any] = field(default_factory=dict)
    see: str = "weights"


COUNT = Make(CountReward, {"text": "e"})
LEARNED = Make(LearnedReward, {"init_from": reward()})
SCRATCH = {"init_from": None, "architecture": GPT2, "tokenizer": tokenizer()}
LENGTH = {"reward": Make(LengthReward, {"target": 3})}  # seldom the same for two responses
TWO = {"responses_per_prompt": 2, "missing_eos_score": None}
FAST = Make(PaperAdam, {"lr": 0.1})
MIXED = {"pretraining": Pretraining(1.0)}
MIX = {"pretraining": rows("text"), "pretraining_block_size": 16}
BLOCK = {"tokenizer": None, "bpe": Make(BPE, {"vocab_size": 280})}


def data_flips(kind: str) -> dict[str, Flip]:
    """What all data modules have."""
    return {
        "train": Flip(rows(f"{kind}_other")),
        "validation": Flip(0.6),
        "format": Flip(Make(Louder, {})),
        "columns": Flip(
            {"text" if kind == "text" else "prompt": "asked"},
            own={"train": rows(f"{kind}_renamed")},
            see="refused",
        ),
        "tokenizer": Flip(tokenizer("_other"), see="refused"),
        "template": Flip("hh", model={"init_from": folder("bare")}),
        "batch_size": Flip(2),
        "max_prompt_tokens": Flip(3),
        "max_response_tokens": Flip(3),
        "on_error": Flip("skip", own={"train": rows(f"{kind}_bad")}, see="refused"),
        "drop_long_prompts": Flip(True, own={"max_prompt_tokens": 5}),
        "cache": Flip(folder("own_cache"), see="work"),
        "num_proc": Flip(2, see="work"),
        "streaming": Flip(True, trainer={"max_steps": 2}),
        "shuffle_buffer": Flip(3, own={"streaming": True}, trainer={"max_steps": 2}),
        "num_workers": Flip(1, see="workers"),
        "seed": Flip(1),
    }


TABLE: dict[type, dict[str, Flip]] = {
    SFTModule: {
        "init_from": Flip(sft("_other")),
        "architecture": Flip({**GPT2, "n_layer": 1}, own=SCRATCH),
        "tokenizer": Flip(tokenizer("_other"), own=SCRATCH),
        "network": Flip(Network(dtype="bfloat16")),
        "trained": Flip(LoRA(rank=2)),
        "optimizer": Flip(Make(PaperAdam, {"lr": 0.02})),
        "schedule": Flip(Constant()),
        "dropout": Flip(0.5),
        "reward": Flip(COUNT, see="metrics"),
        "validation_prompts": Flip(1, see="samples"),
        "sampling": Flip(Sampling(temperature=0.0), see="samples"),
    },
    RewardModule: {
        "init_from": Flip(sft("_other")),
        "architecture": Flip({**GPT2, "n_layer": 1}, own=SCRATCH),
        "tokenizer": Flip(tokenizer("_other"), own=SCRATCH),
        "network": Flip(Network(dtype="bfloat16")),
        "trained": Flip(LoRA(rank=2)),
        "heads": Flip(2),
        "optimizer": Flip(Make(PaperAdam, {"lr": 0.02})),
        "schedule": Flip(Constant()),
        "algorithm": Flip(KWise("all")),
        "dropout": Flip(0.5),
    },
    PreferenceModule: {
        "init_from": Flip(sft("_other")),
        "tokenizer": Flip(tokenizer("_other"), see="refused"),
        "network": Flip(Network(dtype="bfloat16")),
        "trained": Flip(LoRA(rank=2)),
        "optimizer": Flip(Make(PaperAdam, {"lr": 0.02})),
        "schedule": Flip(Constant()),
        "algorithm": Flip(DPO(beta=1.0)),
        "dropout": Flip(0.5),
        "precompute": Flip(True, see="plan"),
        "reward": Flip(COUNT, see="metrics"),
        "validation_prompts": Flip(1, see="samples"),
        "sampling": Flip(Sampling(temperature=0.0), see="samples"),
    },
    PPOModule: {
        "init_from": Flip(sft("_other")),
        "reward": Flip(Make(CountReward, {"text": "a"})),
        "tokenizer": Flip(tokenizer("_other"), see="refused"),
        "network": Flip(Network(dtype="bfloat16")),
        "trained": Flip(LoRA(rank=2)),
        "optimizer": Flip(Make(PaperAdam, {"lr": 0.02})),
        "schedule": Flip(Constant()),
        "algorithm": Flip(PPO(missing_eos_score=-9.0)),
        "kl": Flip(FixedKL(2.0)),
        "batches": Flip(Batches(8, 4)),
        "sampling": Flip(Sampling(temperature=0.7)),
        "value": Flip(Value("shared")),
        "pretraining": Flip(Pretraining(1.0, 1), data=MIX),
        "reuse_logprobs": Flip(True, see="work"),
        "ema_decay": Flip(0.1, see="export"),
        "judge": Flip(COUNT, see="metrics"),
        "seed": Flip(1),
    },
    DemonstrationDataModule: data_flips("demonstrations")
    | {
        "pretraining": Flip(rows("text"), own={"pretraining_block_size": 16}),
        "pretraining_fraction": Flip(0.5, own=MIX),
        "pretraining_block_size": Flip(8, own={**MIX, "pretraining_fraction": 0.5}),
    },
    ComparisonDataModule: data_flips("comparisons")
    | {
        "demonstrations": Flip(rows("demonstrations"), see="artefact"),
        "pairwise": Flip(True),
    },
    PromptDataModule: data_flips("prompts")
    | {
        "streaming": Flip(True, see="refused"),
        "validation_batch_size": Flip(2, see="metrics"),
        "responses": Flip(2, see="predictions"),
        "pretraining": Flip(rows("text_other"), own=MIX, model=MIXED),
        "pretraining_block_size": Flip(8, own=MIX, model=MIXED),
    },
    TextDataModule: data_flips("text")
    | {
        "template": Flip("hh", model={"init_from": folder("bare")}, see="artefact"),
        "block_size": Flip(8),
        "bpe": Flip(Make(BPE, {"vocab_size": 270}), own=BLOCK, model=SCRATCH),
        "max_prompt_tokens": Flip(2, see="samples"),
        "max_response_tokens": Flip(2, see="samples"),
    },
    PPO: {
        "epochs": Flip(2),
        "missing_eos_score": Flip(-3.0),
        "bootstrap_truncated": Flip(True),
        "kl_estimator": Flip("k3", model={"kl": FixedKL(2.0)}),
        "target_kl": Flip(1e-9, own={"epochs": 2}),
        "importance_cap": Flip(1.0),
        "clip_range": Flip(1e-4, own={"epochs": 2}),
        "value_clip_range": Flip(1e-4, own={"epochs": 2}),
        "gamma": Flip(0.5),
        "lam": Flip(0.5),
        "value_coef": Flip(1.0),
        "whiten_advantages": Flip(False),
        "whiten_rewards": Flip(True),
    },
    RLOO: {
        "epochs": Flip(2),
        "missing_eos_score": Flip(-3.0),
        "kl_estimator": Flip("k3", model={"kl": FixedKL(2.0), "optimizer": FAST}),
        "target_kl": Flip(1e-9, own={"epochs": 2}),
        "importance_cap": Flip(1.0),
        "responses_per_prompt": Flip(4),
    },
    RAFT: {
        "epochs": Flip(2),
        "missing_eos_score": Flip(9.0),
        "kl_estimator": Flip("k3", model={"kl": FixedKL(2.0), "optimizer": FAST}),
        "target_kl": Flip(1e-9, own={"epochs": 4}),
        "importance_cap": Flip(1.0),
        "responses_per_prompt": Flip(4),
    },
    KWise: {"divisor": Flip("all")},
    FixedKL: {"kl_coef": Flip(2.0)},
    AdaptiveKL: {
        "initial_kl_coef": Flip(2.0),
        "target": Flip(
            0.01,
            own={"horizon": 8},
            model={"optimizer": Make(PaperAdam, {"lr": 0.1})},  # so that there is a KL
            trainer={"max_epochs": 3},
        ),
        "horizon": Flip(8),
    },
    Cosine: {"floor": Flip(0.9), "warmup": Flip(2)},
    Constant: {"warmup": Flip(2), "start": Flip(0.5, own={"warmup": 2})},
    DPO: {"beta": Flip(1.0), "model": Flip("ranking"), "label_smoothing": Flip(0.3)},
    IPO: {"tau": Flip(1.0)},
    Network: {
        "dtype": Flip("bfloat16"),
        "attention": Flip("eager", see="work"),
        "gradient_checkpointing": Flip(True, see="work"),
        "quantization": Flip("int8", model={"trained": LoRA(rank=2)}),
        "max_tokens": Flip(32, see="work"),
        "trust_remote_code": Flip(True, model={"init_from": folder("coded")}, see="refused"),
    },
    Sampling: {
        "temperature": Flip(0.5),
        "top_p": Flip(0.3),
        "top_k": Flip(2),
        "own_support": Flip(True, own={"top_k": 3}),
        "min_response_tokens": Flip(3),
        "repetition_penalty": Flip(4.0),
        "stop": Flip("e"),
        "engine": Flip("vllm", see="refused"),
        "batch_size": Flip(1, see="work"),
    },
    Batches: {
        "rollout_batch_size": Flip(8),
        "minibatch_size": Flip(4),
        "microbatch_size": Flip(1, see="plan"),
    },
    Value: {
        "kind": Flip("shared"),
        "init_from": Flip(sft("_other")),
        "lr": Flip(0.02),
        "weight_decay": Flip(0.5),
        "warmup_phases": Flip(1),
    },
    Pretraining: {
        "ptx_coef": Flip(1.0, data=MIX),
        "ptx_per_episode": Flip(2, own={"ptx_coef": 1.0}, data=MIX),
    },
    LoRA: {
        "rank": Flip(2),
        "alpha": Flip(64.0),
        "dropout": Flip(0.5),
        "target_modules": Flip(["c_attn"]),
    },
    Prefix: {"tokens": Flip(3)},
    LastLayers: {"layers": Flip(1)},
    FrozenTrunk: {
        "layers": Flip([0]),
        "tokens": Flip(["mean"]),
        "lr": Flip(0.1),
        "ridge": Flip(0.9),
    },
    LearnedReward: {
        "init_from": Flip(reward("_other")),
        "network": Flip(Network(dtype="bfloat16")),
        "combine": Flip("min", own={"init_from": reward("_heads")}),
        "std_coef": Flip(2.0, own={"init_from": reward("_heads"), "combine": "mean_minus_std"}),
    },
    MixtureReward: {
        "rewards": Flip([COUNT, Make(CountReward, {"text": "a"})]),
        "weights": Flip([1.0, -3.0]),
    },
    # a sampled response has several blanks
    CountReward: {"text": Flip("a"), "maximum": Flip(1, own={"text": " "})},
    LengthReward: {"target": Flip(30)},
    CallableReward: {"path": Flip("option_table:shorter")},
    PaperAdam: {
        "lr": Flip(0.03),
        "betas": Flip((0.1, 0.2)),
        "eps": Flip(0.1),
        "weight_decay": Flip(0.5),
    },
    StageCheckpoint: {
        "every_n_steps": Flip(1, see="saved"),
        "every_minutes": Flip(1e-9, see="saved"),
    },
    Doctor: {"overfit": Flip(8, see="refused")},
    BPE: {
        "vocab_size": Flip(270),
        "special_tokens": Flip(["<|end|>", "<|pad|>", "<|user|>"]),
    },
}
for kind in (PromptDataModule, TextDataModule):  # they have not all that the others have
    names = options_of(kind)
    TABLE[kind] = {name: flip for name, flip in TABLE[kind].items() if name in names}


@dataclass
class Host:
    """Where an object of a class is put to be seen, and what it needs to be made."""

    data: type
    argument: str
    own: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    module: type | None = None  # else the first that trains on the data


HOSTS = {
    PPO: Host(PromptDataModule, "algorithm", {"missing_eos_score": None}),
    RLOO: Host(PromptDataModule, "algorithm", TWO, LENGTH),
    RAFT: Host(PromptDataModule, "algorithm", TWO, LENGTH | {"batches": Batches(8, 2)}),
    KWise: Host(ComparisonDataModule, "algorithm"),
    DPO: Host(ComparisonDataModule, "algorithm", module=PreferenceModule),
    IPO: Host(ComparisonDataModule, "algorithm", module=PreferenceModule),
    FixedKL: Host(PromptDataModule, "kl"),
    AdaptiveKL: Host(PromptDataModule, "kl"),
    Cosine: Host(DemonstrationDataModule, "schedule"),
    Constant: Host(DemonstrationDataModule, "schedule"),
    Network: Host(DemonstrationDataModule, "network"),
    Sampling: Host(PromptDataModule, "sampling"),
    Batches: Host(PromptDataModule, "batches", {"rollout_batch_size": 4, "minibatch_size": 2}),
    Value: Host(PromptDataModule, "value", {"lr": 0.01}),
    Pretraining: Host(PromptDataModule, "pretraining"),
    LoRA: Host(DemonstrationDataModule, "trained"),
    Prefix: Host(DemonstrationDataModule, "trained"),
    LastLayers: Host(DemonstrationDataModule, "trained"),
    FrozenTrunk: Host(ComparisonDataModule, "trained"),
    LearnedReward: Host(PromptDataModule, "reward", {"init_from": reward()}),
    MixtureReward: Host(
        PromptDataModule,
        "reward",
        {"rewards": [COUNT, Make(LengthReward, {"target": 2})], "weights": [1.0, 1.0]},
    ),
    CountReward: Host(PromptDataModule, "reward", {"text": "e"}),
    LengthReward: Host(PromptDataModule, "reward", {"target": 2}),
    CallableReward: Host(PromptDataModule, "reward", {"path": "option_table:longer"}),
    PaperAdam: Host(DemonstrationDataModule, "optimizer", {"lr": 0.01}),
    StageCheckpoint: Host(DemonstrationDataModule, "callbacks"),
    Doctor: Host(DemonstrationDataModule, "callbacks"),
    BPE: Host(TextDataModule, "bpe", {"vocab_size": 280}, SCRATCH),
}


def longer(prompts, responses):
    return [float(len(response)) for response in responses]


def shorter(prompts, responses):
    return [-float(len(response)) for response in responses]


KINDS = {
    "export": "export",
    "artefact": "export",
    "predictions": "predictions",
    **dict.fromkeys(("metrics", "samples", "workers"), "validation"),
}
"""What a run does besides training, for what is to be seen; else nothing, which is faster."""
