"""Artefacts: what a stage hands on, a Hugging Face folder plus ``instructgpt.json``."""

from __future__ import annotations

import copy
import json
import math
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from types import UnionType
from typing import Any, NamedTuple, get_args, get_origin, get_type_hints

from safetensors.torch import save_file
from torch import nn
from transformers import (
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from instructgpt.models.card import CARD, base_name, model_card
from instructgpt.models.card_code import rendering
from instructgpt.models.checksums import KEY, list_files
from instructgpt.models.classifier import (
    distinctly_padded,
    save_classifier,
    sequence_classifier,
)
from instructgpt.models.finite import check_finite
from instructgpt.models.folder import replacing
from instructgpt.models.forward import base_network, unknown_ids
from instructgpt.models.head_files import HEADS, save_heads
from instructgpt.models.heads import Heads, ScalarModel
from instructgpt.models.peft_private import is_adapted
from instructgpt.models.quantized import is_quantized, unpack
from instructgpt.models.source import ARTEFACT_FILE, FORMAT, quietly, read_facts
from instructgpt.models.template import Template
from instructgpt.models.tokenizer import (
    eos_id,
    pad_id,
    tokenizer_fingerprint,
)
from instructgpt.models.trained import merged
from instructgpt.models.transformers_private import attention_name
from instructgpt.terminal import say
from instructgpt.types import RunFailedError, UserError

CLASSIFIER = "AutoModelForSequenceClassification"


class Artefact(NamedTuple):
    """What a folder says about itself, beside its weights: as much of it as a stage reads."""

    path: str
    stage: str  # sft, reward, preference, ppo, value
    template: str  # by name, or the pattern itself
    template_hash: str
    tokenizer_hash: str
    head: (
        str | None
    )  # "score": among the weights; or a file with it; None: a policy, which says no scores
    offset: (
        float | None
    )  # to subtract from scores, so that demonstrations are at 0; None: never measured
    heads: str | None  # file of several heads, or of some on features; None: one on the last state
    features: dict[str, Any] | None  # layers and tokens that the heads in the file read
    parent: str | None  # what the stage started from
    parent_digest: str | None  # of its weights, whatever it is called; of a reward model
    adapter: (
        str | None
    )  # "lora": folded into the weights, also in ``adapter``; "prefix": on ``base``
    attention: str | None  # implementation it was trained with
    base: str | None  # what the first stage started from: a hub id, or a path
    data: list[Any] | None  # what it was trained and measured on: name, use, rows
    config: dict[str, Any]
    metrics: dict[str, Any]


def read_artefact(path: str | Path) -> Artefact | None:
    """Read what a folder says about itself; None for hub ids and plain Hugging Face folders.

    Args:
        path: folder or hub id.

    Raises:
        UserError: the file is there, but not as it is written here.
    """
    file = Path(path) / ARTEFACT_FILE
    if not file.is_file():
        return None
    facts = read_facts(file)
    values: dict[str, Any] = {"path": str(path)}
    for key, hint in get_type_hints(Artefact).items():
        if key == "path":
            continue
        value = facts.get(key)  # optional keys may be absent
        allowed = _allowed(hint)
        if not isinstance(value, allowed) or isinstance(value, bool):
            names = " or ".join(kind.__name__ for kind in allowed)
            raise UserError(f"{file}: key '{key}' must be {names}, got {value!r}")
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"{file}: key '{key}' must be finite, got {value}")
        values[key] = value
    return Artefact(**values)


def check_artefact(
    artefact: Artefact, tokenizer: PreTrainedTokenizerBase, template: Template
) -> None:
    """Refuse to go on with another tokenizer or template than an artefact was trained with.

    Args:
        artefact: what the next stage starts from.
        tokenizer: that of the data.
        template: that of the data.
    """
    fingerprint = tokenizer_fingerprint(tokenizer)
    if fingerprint != artefact.tokenizer_hash:
        raise UserError(
            f"tokenizer: must be that of '{artefact.path}' ({artefact.tokenizer_hash}), got "
            f"'{tokenizer.name_or_path}' ({fingerprint})"
        )
    check_template(artefact, tokenizer, template)


def check_template(
    artefact: Artefact, tokenizer: PreTrainedTokenizerBase, template: Template
) -> None:
    """Refuse to write prompts differently than an artefact was trained with.

    Args:
        artefact: what reads the prompts.
        tokenizer: its own, or the same.
        template: how they are going to be written.
    """
    if artefact.stage == "pretrain":  # plain text was not put into any template
        return
    if template.fingerprint(tokenizer) != artefact.template_hash:
        changed = f"got {template.name!r}"
        if template.name == artefact.template:
            changed = "but what it writes has changed since (the chat template, or the end token)"
        raise UserError(
            f"template: must be {artefact.template!r}, with which '{artefact.path}' was trained, "
            f"{changed}"
        )


def save_policy(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    path: str | Path,
    *,
    stage: str,
    template: Template,
    parent: str | None,
    config: dict[str, Any],
    metrics: dict[str, Any],
    data: Sequence[dict[str, Any]] = (),
) -> None:
    """Write a policy: weights, tokenizer, generation settings and facts; all of it, or nothing.

    Args:
        model: a causal language model. LoRA is folded into the weights and kept in ``adapter`` too;
            with a prefix the weights are in ``base``, and our loader and peft read the folder, but
            not AutoModelForCausalLM.
        tokenizer: its tokenizer.
        path: folder to make; an artefact that is there already is replaced.
        stage: sft, preference or ppo.
        template: how prompts are written.
        parent: what the stage started from.
        config: of the run.
        metrics: final ones.
        data: what the stage was trained and measured on, for the model card.

    Raises:
        RunFailedError: a weight is not finite.
        UserError: something else is at ``path``.
    """
    check_finite(f"'{path}' is not written", model, RunFailedError)
    with replacing(Path(path), ARTEFACT_FILE) as folder, quietly():
        network, place, adapter = _without_adapter(model, folder, "AutoModelForCausalLM")
        stops = template.stop_ids(tokenizer)
        kept, network.generation_config = (
            network.generation_config,
            GenerationConfig(
                bos_token_id=network.config.get_text_config().bos_token_id,
                eos_token_id=stops if len(stops) > 1 else stops[0],
                pad_token_id=pad_id(tokenizer),
                suppress_tokens=unknown_ids(network) or None,
            ),
        )
        network.save_pretrained(place)
        network.generation_config = kept
        own: dict[str, Any] = {"stage": stage, "parent": parent, "config": config, "data": data}
        own |= {"metrics": metrics, "adapter": adapter, "attention": attention_name(network.config)}
        _finish(folder, tokenizer, template, own)


def save_scalar(
    model: ScalarModel,
    tokenizer: PreTrainedTokenizerBase,
    path: str | Path,
    *,
    stage: str,
    template: Template,
    parent: str | None,
    config: dict[str, Any],
    metrics: dict[str, Any],
    data: Sequence[dict[str, Any]] = (),
    parent_digest: str | None = None,
) -> None:
    """Write a reward or value model; all of it, or nothing.

    Where transformers has a sequence classifier for the architecture, the folder is one, with one
    label. Such a classifier finds the end of a row by the padding id, so padding that is missing,
    EOS or the end of a turn is replaced by a token of its own in what is saved. Elsewhere the head
    lies beside the trunk in ``head.safetensors``, and a warning says so.

    Args:
        model: a ScalarModel, with an adapter or without; adapters are kept as by ``save_policy``.
        tokenizer: its tokenizer.
        path: folder to make; an artefact that is there already is replaced.
        stage: reward or value.
        template: how prompts are written.
        parent: what the stage started from.
        config: of the run.
        metrics: final ones.
        data: what the stage was trained and measured on, for the model card.
        parent_digest: of the weights that it started from, where that is known.

    Raises:
        RunFailedError: a weight is not finite.
        UserError: something else is at ``path``.
    """
    check_finite(f"'{path}' is not written", model, RunFailedError)
    with replacing(Path(path), ARTEFACT_FILE) as folder, quietly():
        reader = CLASSIFIER if stage == "reward" else None
        trunk, place, adapter = _without_adapter(model.trunk, folder, reader)
        heads, one = _heads(model, trunk, folder)
        classifier = None if one is None else sequence_classifier(trunk, one)
        padded = distinctly_padded(tokenizer)
        if classifier is None or padded is None:
            head_at = HEADS if heads else _save_beside(model.head, place, folder)
            trunk.save_pretrained(place)
            if stage == "reward" and adapter != "prefix":
                _say_no_classifier(trunk.config.model_type, one, classifier, head_at)
        else:
            save_classifier(classifier, padded, place)
            tokenizer, head_at = padded, "score"
            if model.heads > 1:
                say(f"the exported classifier is the mean of {model.heads} heads, all in {HEADS}")
        own: dict[str, Any] = {"stage": stage, "parent": parent, "config": config, "data": data}
        # Exactly 0 is what the offset is as long as nobody measured it.
        own |= {"metrics": metrics, "adapter": adapter, "head": head_at, **heads}
        own["attention"] = attention_name(trunk.config)
        own["parent_digest"] = parent_digest
        own["offset"] = model.offset.item() or None
        _finish(folder, tokenizer, template, own)


def _without_adapter(
    model: nn.Module, folder: Path, reader: str | None
) -> tuple[PreTrainedModel, Path, str | None]:
    """Save the adapter, if any; return the network to save, where to, and the kind of adapter.

    It is said where ``reader``, a class of transformers, cannot read what comes of it.
    """
    network = base_network(model)
    if is_quantized(network) and (
        not is_adapted(model) or model.active_peft_config.is_prompt_learning
    ):
        network = unpack(copy.deepcopy(network))
    if not is_adapted(model):
        return network, folder, None
    from instructgpt.models.adapter_files import forget_local_base

    facts = model.active_peft_config
    if not facts.is_prompt_learning:
        model.save_pretrained(str(folder / "adapter"), save_embedding_layers=False)
        (folder / "adapter" / CARD).unlink()  # peft's empty model card
        forget_local_base(folder / "adapter")
        return base_network(merged(model)), folder, "lora"
    kept, facts.base_model_name_or_path = facts.base_model_name_or_path, "./base"
    model.save_pretrained(str(folder), save_embedding_layers=False)
    facts.base_model_name_or_path = kept
    (folder / CARD).unlink()
    if reader is not None:
        why = "transformers alone puts no prefix in front of a row"
        _say_unreadable(why, reader, "whose other weights are in base")
    return network, folder / "base", "prefix"


def _heads(
    model: ScalarModel, trunk: PreTrainedModel, folder: Path
) -> tuple[dict[str, Any], nn.Linear | None]:
    """Save what is more than one plain head; return what to say of it, and one for all of them.

    That is the mean of several, which a classifier can hold; None: it reads more than one can.
    """
    heads = model.head
    if not isinstance(heads, Heads):
        return {}, heads  # type: ignore[return-value]
    about = save_heads(heads, model.features, folder)
    one, about["shift"] = heads.as_one()
    plain = model.features is None or model.features.is_plain(trunk)
    return about, one if plain else None


def _save_beside(head: nn.Module, place: Path, folder: Path) -> str:
    """Save a head beside its trunk; return its file, within the artefact."""
    place.mkdir(exist_ok=True)
    file = place / "head.safetensors"
    save_file(head.state_dict(), file)
    return file.relative_to(folder).as_posix()


def _say_no_classifier(
    kind: str,
    one: nn.Module | None,
    classifier: PreTrainedModel | None,
    head_at: str,
) -> None:
    why = f"transformers has no sequence classifier for '{kind}'"
    if one is None:
        why = "a sequence classifier reads the last token of the last layer, and this head does not"
    elif classifier is not None:
        why = "the tokenizer has gaps in its ids, so no padding token can be added"
    _say_unreadable(why, CLASSIFIER, f"whose head is in {head_at}")


def _say_unreadable(why: str, reader: str, where: str) -> None:
    warnings.warn(f"{why}: {reader} cannot read the export, {where}", stacklevel=4)


def _finish(
    folder: Path, tokenizer: PreTrainedTokenizerBase, template: Template, own: dict[str, Any]
) -> None:
    """Write tokenizer, facts and card; what is not JSON becomes text, what is not finite null."""
    tokenizer.save_pretrained(folder)
    _forget_place(folder / "tokenizer_config.json")
    facts = {
        "format": FORMAT,
        "template": template.name,
        "template_hash": template.fingerprint(tokenizer),
        "tokenizer_hash": tokenizer_fingerprint(tokenizer),
        "eos_token_id": eos_id(tokenizer),
        "pad_token_id": pad_id(tokenizer),
        "rendering": rendering(tokenizer, template),
        "versions": {name: version(name) for name in ("torch", "transformers", "peft")},
    }
    before = read_artefact(own["parent"]) if own["parent"] is not None else None
    facts[KEY] = list_files(folder)
    own["base"] = base_name(own["parent"], (before.base or before.parent) if before else None)
    text = json.dumps(finite(facts | own), indent=2, ensure_ascii=False, default=str)
    (folder / ARTEFACT_FILE).write_text(text + "\n", encoding="utf-8")
    card = model_card(folder, tokenizer, template, finite(own))
    (folder / CARD).write_text(card, encoding="utf-8")


def _forget_place(file: Path) -> None:
    """Drop what transformers writes of how a tokenizer was loaded here, which is no part of it."""
    known = json.loads(file.read_text(encoding="utf-8"))
    place = ("is_local", "local_files_only")
    kept = {name: value for name, value in known.items() if name not in place}
    if kept != known:
        file.write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: null takes their place, however deep."""
    if isinstance(value, dict):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _allowed(hint: Any) -> tuple[type, ...]:
    """The types a value read from JSON may have: float | None -> float, int, None."""
    kinds = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    plain = [get_origin(kind) or kind for kind in kinds]
    return (*plain, int) if float in plain else tuple(plain)
