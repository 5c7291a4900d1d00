"""InstructGPT (Ouyang et al. 2022) end to end in PyTorch Lightning: the public names.

``from instructgpt import PPOModule`` loads what that one name needs, ``import instructgpt`` loads
nothing. Shipped algorithms are found by their files: ``PPO`` stands in ``algorithms/ppo.py``. Type
checkers see their types where they are imported from there.
"""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for type checkers and editors; the same names as in the table below
    from instructgpt import functional as functional
    from instructgpt.algorithms.base import RankingAlgorithm as RankingAlgorithm
    from instructgpt.algorithms.base import RolloutAlgorithm as RolloutAlgorithm
    from instructgpt.algorithms.base import UpdateLoss as UpdateLoss
    from instructgpt.algorithms.kl import AdaptiveKL as AdaptiveKL
    from instructgpt.algorithms.kl import FixedKL as FixedKL
    from instructgpt.algorithms.kl import KLController as KLController
    from instructgpt.algorithms.preference import Candidates as Candidates
    from instructgpt.algorithms.preference import PreferenceAlgorithm as PreferenceAlgorithm
    from instructgpt.algorithms.preference import ResponseLogprobs as ResponseLogprobs
    from instructgpt.algorithms.schedule import Constant as Constant
    from instructgpt.algorithms.schedule import Cosine as Cosine
    from instructgpt.algorithms.schedule import Schedule as Schedule
    from instructgpt.callbacks.checkpoint import StageCheckpoint as StageCheckpoint
    from instructgpt.callbacks.export import ExportArtefact as ExportArtefact
    from instructgpt.callbacks.seed import StepSeed as StepSeed
    from instructgpt.data.comparisons import ComparisonDataModule as ComparisonDataModule
    from instructgpt.data.demonstrations import DemonstrationDataModule as DemonstrationDataModule
    from instructgpt.data.prompts import PromptDataModule as PromptDataModule
    from instructgpt.data.row_format import RowFormat as RowFormat
    from instructgpt.data.text import TextDataModule as TextDataModule
    from instructgpt.models.load import Network as Network
    from instructgpt.models.tokenizer import BPE as BPE
    from instructgpt.models.trained import Adapter as Adapter
    from instructgpt.models.trained import LoRA as LoRA
    from instructgpt.models.trained import Prefix as Prefix
    from instructgpt.models.trained import Trained as Trained
    from instructgpt.modules.networks import Value as Value
    from instructgpt.modules.optimizer import PaperAdam as PaperAdam
    from instructgpt.modules.ppo import PPOModule as PPOModule
    from instructgpt.modules.preference import PreferenceModule as PreferenceModule
    from instructgpt.modules.pretraining import Pretraining as Pretraining
    from instructgpt.modules.reward import RewardModule as RewardModule
    from instructgpt.modules.sft import SFTModule as SFTModule
    from instructgpt.rewards.base import RewardFunction as RewardFunction
    from instructgpt.rewards.learned import LearnedReward as LearnedReward
    from instructgpt.rewards.mixture import MixtureReward as MixtureReward
    from instructgpt.rewards.rules import CallableReward as CallableReward
    from instructgpt.rewards.rules import CountReward as CountReward
    from instructgpt.rewards.rules import LengthReward as LengthReward
    from instructgpt.rollout.drawing import Sampling as Sampling
    from instructgpt.rollout.updates import Batches as Batches
    from instructgpt.types import Prompt as Prompt
    from instructgpt.types import Rollout as Rollout
    from instructgpt.types import Sample as Sample
    from instructgpt.types import ScoredRollout as ScoredRollout
    from instructgpt.types import UserError as UserError

_NAMES = {
    "algorithms.base": "RankingAlgorithm RolloutAlgorithm UpdateLoss",
    "algorithms.kl": "AdaptiveKL FixedKL KLController",
    "algorithms.preference": "Candidates PreferenceAlgorithm ResponseLogprobs",
    "algorithms.schedule": "Constant Cosine Schedule",
    "callbacks.checkpoint": "StageCheckpoint",
    "callbacks.export": "ExportArtefact",
    "callbacks.seed": "StepSeed",
    "data.comparisons": "ComparisonDataModule",
    "data.demonstrations": "DemonstrationDataModule",
    "data.prompts": "PromptDataModule",
    "data.row_format": "RowFormat",
    "data.text": "TextDataModule",
    "models.load": "Network",
    "models.tokenizer": "BPE",
    "models.trained": "Adapter LoRA Prefix Trained",
    "modules.networks": "Value",
    "modules.optimizer": "PaperAdam",
    "modules.ppo": "PPOModule",
    "modules.preference": "PreferenceModule",
    "modules.pretraining": "Pretraining",
    "modules.reward": "RewardModule",
    "modules.sft": "SFTModule",
    "rewards.base": "RewardFunction",
    "rewards.learned": "LearnedReward",
    "rewards.mixture": "MixtureReward",
    "rewards.rules": "CallableReward CountReward LengthReward",
    "rollout.drawing": "Sampling",
    "rollout.updates": "Batches",
    "types": "Prompt Rollout Sample ScoredRollout UserError",
}


def _algorithms() -> dict[str, str]:
    """Shipped algorithms with their modules: a class in the file of its name in small letters."""
    found = {}
    for file in sorted(Path(__file__).with_name("algorithms").glob("*.py")):
        for name in re.findall(r"^class (\w+)\(", file.read_text(encoding="utf-8"), re.MULTILINE):
            if name.lower() == file.stem:
                found[name] = f"algorithms.{file.stem}"
    return found


_HOMES = {name: home for home, names in _NAMES.items() for name in names.split()} | _algorithms()

__all__ = ["functional", *_HOMES]


def __getattr__(name: str) -> Any:
    """Load a public name when it is first asked for (PEP 562)."""
    if name == "functional":
        return import_module("instructgpt.functional")
    if name not in _HOMES:
        raise AttributeError(f"module 'instructgpt' has no attribute {name!r}")
    globals()[name] = value = getattr(import_module(f"instructgpt.{_HOMES[name]}"), name)
    return value


def __dir__() -> list[str]:
    """The public names, loaded or not."""
    return sorted({*globals(), *__all__})
