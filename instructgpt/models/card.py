"""Model cards: what an artefact was made from and how, how good it is, and how to use it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from transformers import PreTrainedTokenizerBase

from instructgpt.models.card_code import code, is_plain, rendering, span
from instructgpt.models.template import Template

CARD = "README.md"
KINDS = {"reward": "A reward model", "value": "A value model of PPO", "ppo": "A policy after PPO"}
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
LICENSE = re.compile(r"(?m)^license: *([\w.-]+) *$")
PLAIN = re.compile(r"[A-Za-z][\w./-]*")
UNKNOWN = "unknown"
PLACES = ("init_from", "tokenizer", "architecture", "cache", "train", "validation", "pretraining")
"""Settings that the card tells elsewhere, or that are about a machine."""
TRAINER = (
    *("max_epochs", "max_steps", "max_time", "accumulate_grad_batches", "precision", "strategy"),
    *("devices", "num_nodes", "gradient_clip_val", "gradient_clip_algorithm"),
)
DATA = ("batch_size", "template", "max_prompt_tokens", "max_response_tokens", "drop_long_prompts")


def model_card(
    folder: Path, tokenizer: PreTrainedTokenizerBase, template: Template, about: dict[str, Any]
) -> str:
    """README.md of an artefact, with code that runs and what the hub reads at its top.

    Args:
        folder: of the artefact, with its weights.
        tokenizer: of the artefact.
        template: of the artefact.
        about: what ``instructgpt.json`` says about it.
    """
    kind = KINDS.get(about["stage"], f"A policy after the stage {_word(about['stage'])}")
    license = license_of(about["parent"])
    lines = ["---", *_front_matter(about, license), "---", ""]
    lines += [f"{kind}, written by instructgpt: `instructgpt.json` says what it was made from.", ""]
    lines += ["## Prompts", "", f"{rendering(tokenizer, template)}.", ""]
    if not is_plain(about):
        lines += [f"transformers alone cannot read it: {_why(about)}.", ""]
    lines += ["```python", *code(folder, tokenizer, template, about), "```", ""]
    lines += ["## Training", "", *_origin(about), *_data(about.get("data") or [])]
    lines += _settings(about["config"])
    lines += _metrics(about["metrics"])
    lines += ["## Licence", "", _licence(license)]
    return "\n".join(lines) + "\n"


def license_of(parent: str | None) -> str:
    """The licence that the card in a folder names."""
    card = Path(parent, CARD) if parent else Path(CARD)
    if parent is None or not card.is_file():
        return UNKNOWN
    return _license_in(card.read_text(encoding="utf-8", errors="replace"))


def _license_in(card: str) -> str:
    found = LICENSE.search(_top(card))
    return found[1] if found else UNKNOWN


def _top(card: str) -> str:
    """What the hub reads of a card."""
    return card.split("\n---", 1)[0] if card.startswith("---\n") else ""


def with_license(card: str, license: str) -> str:
    """The text of a card with another licence.

    Args:
        card: as it is written here, whatever people have added.
        license: identifier of the hub.
    """
    old = "\n".join(["## Licence", "", _licence(_license_in(card))])
    card = card.replace(old, "\n".join(["## Licence", "", _licence(license)]))
    line = f"license: {license}"
    if LICENSE.search(_top(card)):
        return LICENSE.sub(line, card, count=1)
    if _top(card):  # whose maker has taken the field out
        return card.replace("---\n", f"---\n{line}\n", 1)
    return f"---\n{line}\n---\n\n{card}"


def base_name(parent: str | None, base: str | None) -> str | None:
    """What a chain of stages began with: a hub id, or a path that cannot be taken for one.

    Args:
        parent: what the stage started from.
        base: what that says it began with, if it is an artefact.
    """
    if parent is None or base is not None:
        return base
    local = Path(parent).exists() and not parent.startswith(("/", "."))
    return f"./{parent}" if local else parent


def shown(name: str) -> str:
    """A path without the folders of a machine; anything else as it is.

    >>> shown("/home/ann/runs/sft/export"), shown("/home/ann/pairs.jsonl"), shown("owner/name")
    ('sft/export', 'pairs.jsonl', 'owner/name')
    """
    path = PurePath(name)
    if not (path.is_absolute() or name.startswith(("~", "."))):
        return name
    parts = [part for part in path.parts if part not in ("/", "..", "~")]
    return "/".join(parts[-2 if path.name in ("export", "adapter", "ema", "value") else -1 :])


def _why(about: Mapping[str, Any]) -> str:
    """Why transformers cannot read an artefact, whatever it makes of its files."""
    if about.get("adapter") == "prefix":
        return "a learned prefix stands in front of every row"
    return f"its head lies beside the weights, in `{about['head']}`"


def _front_matter(about: Mapping[str, Any], license: str) -> Iterator[str]:
    scores, base = about.get("head") is not None, about.get("base")
    yield f"license: {license}"
    yield f"library_name: {'transformers' if is_plain(dict(about)) else 'instructgpt'}"
    yield f"pipeline_tag: {'text-classification' if scores else 'text-generation'}"
    if base is not None and HUB_ID.fullmatch(base):
        yield f"base_model: {base}"
    hub = [one["name"].partition(":")[0] for one in about.get("data") or [] if one["hub"]]
    yield from _list("datasets", dict.fromkeys(hub))
    yield from _list("tags", ["instructgpt", "rlhf", about["stage"]])


def _list(name: str, values: Iterable[str]) -> list[str]:
    values = list(values)
    # JSON is YAML in which nothing else begins
    written = (one if PLAIN.fullmatch(one) else json.dumps(one) for one in values)
    return [f"{name}:", *(f"- {one}" for one in written)] if values else []


def _word(value: Any) -> str:
    """A value that is a word as it is, others as code."""
    return value if isinstance(value, str) and PLAIN.fullmatch(value) else span(value)


def _origin(about: Mapping[str, Any]) -> list[str]:
    parent, base = about["parent"], about.get("base")
    if parent is None:
        return ["Trained from scratch.", ""]
    other = base and base not in (parent, f"./{parent}")
    began = f", which began with {span(shown(base))}" if base and other else ""
    return [f"Started from {span(shown(parent))}{began}.", ""]


def _data(data: list[dict[str, Any]]) -> list[str]:
    """Rows are counted as the stage sees them: checked, filtered and split."""
    rows = [
        (
            _word(one["use"]),
            span(one["name"]),
            "streamed" if one["rows"] is None else f"{one['rows']:,}",
        )
        for one in data
    ]
    return _table(("used for", "data", "rows, after filters"), rows)


def _settings(config: Mapping[str, Any]) -> list[str]:
    """The options of a run, without those that nobody gave a value."""
    trainer, data = config.get("trainer") or {}, config.get("data") or {}
    found: dict[str, Any] = dict(_flat("", config.get("model") or {}))
    read = data.get("init_args") or {}
    found |= {f"data.{name}": read[name] for name in DATA if name in read}
    found |= {f"trainer.{name}": trainer[name] for name in TRAINER if name in trainer}
    found["seed"] = config.get("seed_everything")
    given = {name: value for name, value in found.items() if value not in (None, "")}
    rows = [(span(name), span(value)) for name, value in given.items()]
    return _table(("setting", "value"), rows)


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """(name, value) of all options in a section; an object's name has its class."""
    if not isinstance(value, Mapping):
        yield name or "value", shown(value) if isinstance(value, str) else value
        return
    own: Any = value
    if "class_path" in value:
        yield name or "stage", str(value["class_path"]).rpartition(".")[2]
        own = value.get("init_args") or {}
    for key, one in own.items():
        if key not in PLACES:
            yield from _flat(f"{name}.{key}" if name else str(key), one)


def _metrics(metrics: Mapping[str, Any]) -> list[str]:
    """Those of the validation, else of the last steps; labelers are not named in public."""
    intervals = metrics.get("intervals") or {}
    numbers = {k: v for k, v in metrics.items() if isinstance(v, int | float) and k != "step"}
    named = {k: v for k, v in numbers.items() if k.startswith("val/")} or {
        k: v for k, v in numbers.items() if k.startswith(("train/", "ppo/", "loss/"))
    }
    rows = []
    for name, value in named.items():
        if "_by_labeler/" in name or "pairs_by_" in name:
            continue
        low, high, n = intervals.get(name, (None, None, None))
        between = "" if n is None else f"[{low:.4g}, {high:.4g}]"
        rows.append((span(name), f"{value:.4g}", between, "" if n is None else f"{n:,}"))
    if not rows:
        return []
    step = f"Of the exported weights, step {int(metrics['step']):,}. " if "step" in metrics else ""
    what = "n: independent items (prompts, documents)."
    table = _table(("metric", "value", "95 % interval", "n"), rows)
    return ["## Metrics", "", f"{step}{what}", "", *table]


def _licence(license: str) -> str:
    if license != UNKNOWN:
        return f"`{license}`."
    return (
        "Unknown: neither what it started from nor its maker names one. The data may have licences "
        "of their own."
    )


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    if not rows:
        return []
    lines = ["| " + " | ".join(row) + " |" for row in (head, ("---",) * len(head), *rows)]
    return [*lines, ""]
