"""Adapters as files: read without trusting them, written without naming places of this machine."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from peft import (
    LoraConfig,
    PeftModel,
    PrefixTuningConfig,
    TaskType,
    get_peft_model,
    set_peft_model_state_dict,
)
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedModel

from instructgpt.models.finite import check_finite
from instructgpt.models.folder import write_text
from instructgpt.models.source import explained
from instructgpt.types import UserError

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
ABOUT = {"peft_version", "base_model_name_or_path", "revision", "inference_mode"}
"""Keys that change nothing about the network."""

LORA = {"r", "lora_alpha", "lora_dropout", "target_modules", "exclude_modules", "fan_in_fan_out"}
LORA |= {"bias", "use_rslora", "use_dora", "lora_bias", "modules_to_save", "layers_to_transform"}
LORA |= {"layers_pattern", "rank_pattern", "alpha_pattern", "init_lora_weights"}
PREFIX = {"num_virtual_tokens", "token_dim", "num_transformer_submodules", "num_attention_heads"}
PREFIX |= {"num_layers", "encoder_hidden_size"}
PLAIN_NAME = re.compile(r"[\w.]+")
HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


def base_of(folder: str | Path) -> str | None:
    """What an adapter names as its base, if anything."""
    base = _read(Path(folder)).get("base_model_name_or_path")
    return base if isinstance(base, str) and base else None


def with_lora(network: PreTrainedModel, folder: str | Path) -> PeftModel:
    """A policy with the LoRA adapter of a folder.

    Args:
        network: what it belongs to.
        folder: with ``adapter_config.json`` and ``adapter_model.safetensors``.

    Raises:
        UserError: it is not LoRA for a policy, asks for what is not known here, or does not fit.
    """
    place, facts = Path(folder) / CONFIG, _read(Path(folder))
    _is(place, facts, "peft_type", "LORA")
    _is(place, facts, "task_type", "CAUSAL_LM")
    _known(place, facts, LORA, LoraConfig())
    for key in ("target_modules", "exclude_modules", "layers_pattern"):
        value = facts.get(key)
        names = [value] if isinstance(value, str) and value != "all-linear" else value
        # A text of another kind would be a pattern, and a pattern can take forever.
        if isinstance(names, list) and not all(_plain(name) for name in names):
            raise UserError(f"{place}: {key} must be names of layers, got {value!r:.60}")
    for key in ("rank_pattern", "alpha_pattern"):
        if not all(map(_plain, facts.get(key) or {})):
            raise UserError(f"{place}: {key} must have names of layers, got {facts[key]!r:.60}")
    weights = _weights(Path(folder))
    ranks = [facts.get("r", 8), *(facts.get("rank_pattern") or {}).values()]
    most = max((min(t.shape) for name, t in weights.items() if "lora_" in name), default=0)
    if not all(isinstance(rank, int) and 0 < rank <= most for rank in ranks):
        raise UserError(f"{place}: r must be the rank of the weights, {most}, got {ranks}")
    with explained(f"{place}: does not fit the model"):
        config = LoraConfig(task_type=TaskType.CAUSAL_LM)
        for key in LORA & facts.keys():
            value = facts[key]
            names = key in ("target_modules", "exclude_modules") and isinstance(value, list)
            setattr(config, key, set(value) if names else value)
        config.init_lora_weights = False
        adapted: PeftModel = get_peft_model(network, config).train()
        result: Any = set_peft_model_state_dict(adapted, weights)
    trained = {name for name, p in adapted.named_parameters() if p.requires_grad}
    if lost := [*result.unexpected_keys, *(trained & set(result.missing_keys))]:
        raise UserError(
            f"{place.with_name(WEIGHTS)}: must hold what {CONFIG} says, see '{lost[0]}'"
        )
    return adapted


def with_prefix(network: PreTrainedModel, folder: str | Path, task: str) -> PeftModel:
    """A network with the prefix of a folder, trainable.

    Args:
        network: what it belongs to.
        folder: with ``adapter_config.json`` and ``adapter_model.safetensors``.
        task: what the network is for, a name of peft.

    Raises:
        UserError: it is no prefix, or does not fit.
    """
    place, facts = Path(folder) / CONFIG, _read(Path(folder))
    _is(place, facts, "peft_type", "PREFIX_TUNING")
    _known(place, facts, PREFIX | {"task_type"}, PrefixTuningConfig())
    weights = _weights(Path(folder))
    rows = weights["prompt_embeddings"].shape[0] if "prompt_embeddings" in weights else 0
    _is(place, facts, "num_virtual_tokens", rows)
    with explained(f"{place}: does not fit the model"):
        config = PrefixTuningConfig(task_type=TaskType(task), num_virtual_tokens=rows)
        adapted: PeftModel = get_peft_model(network, config).train()
        set_peft_model_state_dict(adapted, weights)
    return adapted


def forget_local_base(folder: Path) -> None:
    """Take the base out of a saved adapter unless it is a name on the hub."""
    facts = _read(folder)
    base = facts.get("base_model_name_or_path")
    if base is not None and (Path(base).exists() or not HUB_ID.fullmatch(base)):
        facts["base_model_name_or_path"] = None
        write_text(folder / CONFIG, json.dumps(facts, indent=2, sort_keys=True) + "\n")


def _read(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: must be JSON, {error}") from error
    if not isinstance(facts, dict):
        raise UserError(f"{path}: must be the facts about an adapter, got {type(facts).__name__}")
    return facts


def _is(place: Path, facts: dict[str, Any], key: str, value: object) -> None:
    if facts.get(key) != value:
        raise UserError(f"{place}: {key} must be {value}, got {facts.get(key)!r:.60}")


def _known(place: Path, facts: dict[str, Any], known: set[str], default: Any) -> None:
    """Refuse what is asked for and would not be done."""
    for key in facts.keys() - known - ABOUT - {"peft_type", "task_type"}:
        usual = getattr(default, key, None)
        if facts[key] not in (None, False, {}, [], usual):
            raise UserError(f"{place}: {key} is not known here, got {facts[key]!r:.60}")


def _plain(name: Any) -> bool:
    return isinstance(name, str) and PLAIN_NAME.fullmatch(name) is not None


def _weights(folder: Path) -> dict[str, Tensor]:
    path = folder / WEIGHTS
    if not path.is_file():
        raise UserError(f"{path}: must be there; weights in other formats are not read")
    with explained(f"{path}: cannot be read"):
        weights: dict[str, Tensor] = load_file(path)
    check_finite(str(path), weights)
    return weights
