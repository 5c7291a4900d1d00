"""Models from a folder, a hub id, an artefact of an earlier stage, or from scratch."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from safetensors.torch import load_file
from transformers import (
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

import instructgpt.models.shift_gpt  # noqa: F401  # registers it with transformers
from instructgpt.models.architecture import (
    CONFIG_MAPPING,
    check_model_type,
    new_config,
    set_dropout,
)
from instructgpt.models.architecture import context_length as context_length
from instructgpt.models.artefact import Artefact, read_artefact
from instructgpt.models.checksums import check_files
from instructgpt.models.finite import check_finite
from instructgpt.models.flat_attention import recompute_alike
from instructgpt.models.forward import base_network, set_known_ids
from instructgpt.models.fused import fuse_activations
from instructgpt.models.head_files import read_heads
from instructgpt.models.heads import ScalarModel, score_head
from instructgpt.models.meta_start import start_on_meta
from instructgpt.models.quantized import Quantization
from instructgpt.models.source import (
    ARTEFACT_FILE,
    check_shards,
    explained,
    is_planning,
    located,
)
from instructgpt.models.support import attention_of, check_language_model, hidden_width
from instructgpt.models.tokenizer import id_count, pad_id
from instructgpt.types import UserError, require

MYPY = False  # what stands under TYPE_CHECKING is imported by jsonargparse
if MYPY:
    from peft import PeftModel

AnyNetwork: TypeAlias = "PreTrainedModel | PeftModel"


@dataclass(frozen=True)
class Network:
    """How a network is held and computed.

    Args:
        dtype: of the weights; leave it at float32 with mixed precision (``--trainer.precision
            bf16-mixed``).
        attention: implementation of attention; null takes that of the artefact, else sdpa, and
            eager where the architecture has no other. On CUDA in half precision, sdpa is torch's
            flash attention over segments.
        gradient_checkpointing: whether to recompute activations in the backward pass: less memory,
            about a third slower.
        trust_remote_code: whether code that comes with a hub model may run.
        quantization: of the linear layers that do not learn: all of a reward model that scores,
            those under ``--model.trained``, else those of the reference beside a policy. int8
            (rounded, a scale for each row) or nf4 (4.5 bits, as in QLoRA). They are unpacked for
            each product, and in what is exported; null: as ``dtype`` says.
        max_tokens: of one forward pass; a batch with more is worked through in pieces, which need
            less memory and change nothing else (1024 are as fast as more on a CPU, not on a GPU). A
            longer row is alone; null: no limit.
    """

    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    attention: Literal["sdpa", "eager"] | None = None
    gradient_checkpointing: bool = False
    trust_remote_code: bool = False
    quantization: Quantization | None = None
    max_tokens: int | None = 1024

    def __post_init__(self) -> None:
        """Check the ranges."""
        holds = self.max_tokens is None or self.max_tokens >= 1
        require(holds, "network.max_tokens", "at least 1 or null", self.max_tokens)


def load_policy(
    source: str | None,
    architecture: dict[str, Any] | None,
    network: Network,
    tokenizer: PreTrainedTokenizerBase | None = None,
    dropout: float | None = None,
) -> AnyNetwork:
    """A causal language model in training mode.

    Args:
        source: folder, artefact or hub id; or None with an architecture.
        architecture: configuration of a transformers model to start from scratch, ``model_type``
            among its keys.
        network: how to hold and compute it.
        tokenizer: its tokenizer; needed from scratch, otherwise its size is checked.
        dropout: probability of residual dropout (other dropout is then off); None: as the
            configuration has it.

    Raises:
        UserError: nothing there, weights missing, or a wrong configuration.
    """
    if source is None:
        config = new_config(architecture, tokenizer, dropout)
        model = _from_config(AutoModelForCausalLM, config, network)
        return _ready(model, network, tokenizer)
    _only_one(architecture)
    folder, artefact = _opened(source)
    config = _read_config(folder, source, network, dropout)
    network = _with_attention(network, config, artefact)
    if (config.architectures or [""])[0].endswith("ForSequenceClassification") or (
        artefact is not None and artefact.head is not None
    ):
        raise UserError(f"init_from: must be a policy, '{source}' holds a reward or value model")
    model = _from_pretrained(AutoModelForCausalLM, folder, source, config, network)
    return _with_prefix(_ready(model, network, tokenizer), source, artefact, "CAUSAL_LM")


def load_scalar(
    source: str | None,
    architecture: dict[str, Any] | None,
    network: Network,
    tokenizer: PreTrainedTokenizerBase | None,
    head: Literal["new", "stored"],
    trainable_offset: bool = False,
    dropout: float | None = None,
) -> ScalarModel:
    """A reward or value model in training mode.

    Args:
        source: folder, artefact or hub id; or None with an architecture.
        architecture: configuration of a transformers model to start from scratch, ``model_type``
            among its keys.
        network: how to hold and compute it.
        tokenizer: its tokenizer; needed from scratch, otherwise its size is checked.
        head: "new": a fresh one on the trunk of any model; "stored": that of a reward model, or
            those, with its offset.
        trainable_offset: whether gradients reach the offset.
        dropout: probability of residual dropout (other dropout is then off); None: as the
            configuration has it.

    Raises:
        UserError: nothing there, weights or head missing, or a wrong configuration.
    """
    if source is None:
        if head == "stored":
            raise UserError("init_from: must be given, a model from scratch has no reward head")
        config = new_config(architecture, tokenizer, dropout)
        trunk: AnyNetwork = _ready(_from_config(AutoModel, config, network), network, tokenizer)
        return ScalarModel(trunk, score_head(hidden_width(config)), 0.0, trainable_offset).train()
    _only_one(architecture)
    folder, artefact = _opened(source)
    config = _read_config(folder, source, network, dropout)
    network = _with_attention(network, config, artefact)
    features = None
    if head == "new" or (artefact is not None and artefact.heads is not None):
        network_, module = _from_pretrained(AutoModel, folder, source, config, network), None
    else:
        network_, module = _stored_head(folder, source, artefact, config, network)
    if head == "stored" and artefact is not None and artefact.heads is not None:
        module, features = read_heads(source, artefact.heads, artefact.features)
    offset = artefact.offset if artefact is not None and head == "stored" else None
    trunk = _ready(network_, network, tokenizer)
    trunk = _with_prefix(trunk, source, artefact, "FEATURE_EXTRACTION")
    if features is not None and module is not None:
        features.check(trunk, module, str(Path(source) / ARTEFACT_FILE))
    module = score_head(hidden_width(config)) if module is None else module
    return ScalarModel(trunk, module, offset or 0.0, trainable_offset, features).train()


def _only_one(architecture: dict[str, Any] | None) -> None:
    if architecture is not None:
        raise UserError("architecture: must not be given together with init_from")


def _opened(source: str) -> tuple[Path | str, Artefact | None]:
    """Where the weights are (an artefact with a prefix has them in ``base``), and the artefact."""
    located(source, "init_from")
    artefact = read_artefact(source)
    check_files(source)
    prefixed = artefact is not None and artefact.adapter == "prefix"
    return (Path(source) / "base" if prefixed else source), artefact


def _read_config(
    folder: Path | str, source: str, network: Network, dropout: float | None
) -> PreTrainedConfig:
    if Path(folder).is_dir():
        path = Path(folder) / "config.json"
        if not path.is_file():
            raise UserError(f"init_from: no config.json in '{folder}', so no model")
        with explained(f"init_from: cannot read '{path}'"):
            facts = json.loads(path.read_text())
            if "auto_map" not in facts:
                check_model_type(str(path), facts)
            elif facts.get("model_type") not in CONFIG_MAPPING and not network.trust_remote_code:
                raise UserError(
                    "init_from: needs network.trust_remote_code to run the code that comes with "
                    f"'{source}'"
                )
    with explained(f"init_from: cannot load '{source}'"):
        config: PreTrainedConfig = AutoConfig.from_pretrained(
            folder, trust_remote_code=network.trust_remote_code
        )
    known = config.model_type in CONFIG_MAPPING  # whose ``get`` finds nothing
    if known and type(config) is CONFIG_MAPPING[config.model_type]:
        check_language_model("init_from", config.model_type)
    if dropout is not None:
        set_dropout(config, dropout)
    return config


def _with_attention(
    network: Network, config: PreTrainedConfig, artefact: Artefact | None
) -> Network:
    """The settings with the attention that is used where the user left it open or has none."""
    remembered = artefact.attention if artefact is not None else None
    attention: Any = attention_of(config, network.attention, remembered)
    return replace(network, attention=attention)


def _from_config(factory: Any, config: PreTrainedConfig, network: Network) -> PreTrainedModel:
    network = _with_attention(network, config, None)
    with explained("architecture: cannot build the model"):
        model: PreTrainedModel = factory.from_config(
            config, dtype=getattr(torch, network.dtype), attn_implementation=network.attention
        )
    return model


def _from_pretrained(
    factory: Any, folder: Path | str, source: str, config: PreTrainedConfig, network: Network
) -> PreTrainedModel:
    """The model with every weight, or a UserError; safetensors only. On the meta device no weights.

    A plan is made there (``torch.device("meta")`` as a context): the configuration is enough.
    """
    if is_planning():
        return _from_config(factory, config, network)
    with explained(f"init_from: cannot load '{source}'"):
        check_shards(folder)
        dtype = getattr(torch, network.dtype)
        build = partial(_from_config, factory, config, network)
        empty = start_on_meta(build, folder, source, dtype, _obstacle(config, network))
        if empty is not None:
            return empty
        model, info = factory.from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            attn_implementation=network.attention,
            trust_remote_code=network.trust_remote_code,
            use_safetensors=True,
            output_loading_info=True,
        )
    if missing := sorted(info["missing_keys"]):
        if missing[0].startswith("score."):
            raise UserError(f"init_from: '{source}' holds no reward head ('{missing[0]}')")
        raise UserError(
            f"init_from: weights must all be in '{source}', {len(missing)} are missing, "
            f"e.g. {missing[0]}"
        )
    result: PreTrainedModel = model
    check_finite(f"init_from: '{source}'", result)
    return result


def _obstacle(config: PreTrainedConfig, network: Network) -> str | None:
    """Why a process must have all weights at once, if it must."""
    if network.quantization is not None:
        return "network.quantization packs whole layers"
    if getattr(config, "quantization_config", None) is not None:
        return "its file holds packed weights"
    if network.trust_remote_code:
        return "network.trust_remote_code lets it load itself"
    return None


def _stored_head(
    folder: Path | str,
    source: str,
    artefact: Artefact | None,
    config: PreTrainedConfig,
    network: Network,
) -> tuple[PreTrainedModel, torch.nn.Module]:
    """Trunk and head of a reward model, ours or any with a transformers class."""
    if artefact is not None and artefact.head not in {None, "score"}:
        if artefact.head not in {"head.safetensors", "base/head.safetensors"}:  # nothing outside
            raise UserError(
                f"{Path(source) / ARTEFACT_FILE}: key 'head' must be score, head.safetensors or "
                f"base/head.safetensors, got {artefact.head!r}"
            )
        trunk = _from_pretrained(AutoModel, folder, source, config, network)
        if is_planning():
            return trunk, score_head(hidden_width(config))
        with explained(f"init_from: cannot load the reward head of '{source}'"):
            weights = load_file(Path(source) / str(artefact.head))
            stored = score_head(weights["weight"].shape[1])
            stored.load_state_dict(weights)
        check_finite(f"init_from: '{source}'", stored)
        return trunk, stored
    if type(config) not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
        raise UserError(f"init_from: '{source}' holds no reward head")
    model = _from_pretrained(AutoModelForSequenceClassification, folder, source, config, network)
    head: Any = getattr(model, "score", None)
    if not isinstance(head, torch.nn.Linear) or head.out_features != 1:
        raise UserError(
            f"init_from: '{source}' holds no reward head: must have one linear output, 'score', "
            f"got {config.num_labels} labels"
        )
    return base_network(model.base_model), head


def _ready(
    model: PreTrainedModel, network: Network, tokenizer: PreTrainedTokenizerBase | None
) -> PreTrainedModel:
    """Train mode, fast activations, every embedding trainable, checkpointing, known ids."""
    fuse_activations(model)
    embedding: Any = model.get_input_embeddings()
    # Some models never train the embedding of padding, but padding may be EOS.
    embedding.padding_idx = None
    if tokenizer is not None:
        if embedding.num_embeddings < id_count(tokenizer):
            raise UserError(
                f"tokenizer: '{tokenizer.name_or_path}' has {id_count(tokenizer)} tokens, "
                f"the model knows {embedding.num_embeddings}"
            )
        set_known_ids(model, tokenizer)
        text = model.config.get_text_config()
        if text.pad_token_id is None:
            text.pad_token_id = pad_id(tokenizer)
    if network.gradient_checkpointing:
        with explained("gradient_checkpointing: cannot be used"):
            model.gradient_checkpointing_enable(
                {"use_reentrant": False, "context_fn": recompute_alike(model)}
            )
    model.train()
    return model


def _with_prefix(
    model: PreTrainedModel, source: str, artefact: Artefact | None, task: str
) -> AnyNetwork:
    """The model with the prefix of the artefact, if it has one, trainable."""
    if artefact is None or artefact.adapter != "prefix":
        return model
    from instructgpt.models.adapter_files import with_prefix

    return with_prefix(model, source, task)
