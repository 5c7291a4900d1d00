"""``inputs``: what a pipeline is given from outside, by flags of the same names.

``{name}`` in an option is then the value. A default may name stages in braces; what a flag gives is
text, whatever it holds. null as a default: the flag must be given; ``[]``: it may be left out, and
with it the stages, and the values of an axis, that say ``needs: name``.
"""

from __future__ import annotations

import glob
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from instructgpt.data.files import is_known
from instructgpt.types import UserError
from instructgpt.yaml_files import check_aliases, check_depth

OWN = ("config", "output", "seed", "only", "from", "jobs", "dry_run", "help", "pipeline")
"""Flags that every pipeline has, and what no stage can be called."""

_BRACES = re.compile(r"\{\{|\}\}|\{([A-Za-z_][\w-]*)\}")


def check_inputs(inputs: Any, path: Path) -> dict[str, Any]:
    """The inputs of a file, each with its default; null is one that must be given.

    Args:
        inputs: as written.
        path: of the YAML file, for messages.
    """
    if not isinstance(inputs, dict):
        raise UserError(f"{path}: inputs must be a mapping of names, got {inputs!r}")
    for name in inputs:
        if not re.fullmatch(r"[A-Za-z]\w*", str(name)) or name in OWN:
            rule = f"must be letters, digits and _, and none of {', '.join(OWN)}"
            raise UserError(f"{path}: inputs: a name {rule}, got {name!r}")
    return inputs


def given_inputs(inputs: Mapping[str, Any], flags: Mapping[str, str], path: Path) -> dict[str, Any]:
    """Every input with its value, in which braces mean stages.

    Args:
        inputs: with their defaults.
        flags: what the command line gives: text; a list or a mapping is in brackets.
        path: of the YAML file, for messages.

    Raises:
        UserError: one has no value, or there is no such file.
    """
    for name in flags:
        if name not in inputs:
            there = ", ".join(inputs) or "none"
            raise UserError(f"--{name}: {path} has no such input (there are: {there})")
    values = {}
    for name, default in inputs.items():
        value = _parsed(flags[name], name) if name in flags else default
        if value is None:
            raise UserError(f"--{name} must be given: {path} has no default for it")
        for text in _texts(value):
            if _is_missing(text) and not (name not in flags and "{" in text):
                raise UserError(f"--{name} must be there, got {text} (in {Path.cwd()})")
        values[name] = _quoted(value) if name in flags else value
    return values


def without_unneeded(
    entries: Mapping[str, Any], inputs: Mapping[str, Any], place: str
) -> dict[str, Any]:
    """Stages, or values of an axis, but those that need an input that was not given.

    Args:
        entries: by name.
        inputs: with their values.
        place: file and key, for messages.
    """
    kept = {}
    for name, entry in entries.items():
        needed = entry.get("needs")
        if needed is not None and needed not in inputs:
            there = ", ".join(inputs) or "none"
            raise UserError(
                f"{place}.{name}.needs must be an input (there are: {there}), got {needed!r}"
            )
        if needed is None or inputs[needed] not in ([], {}, ""):
            kept[name] = {key: value for key, value in entry.items() if key != "needs"}
    return kept


def fill(value: Any, inputs: Mapping[str, Any], place: str) -> Any:
    """Replace the names of inputs in braces by their values; other braces stay.

    An option that is nothing but a name becomes the value, whatever it is; an entry of a list that
    is becomes as many as the value has.

    Args:
        value: an option.
        inputs: with their values.
        place: file, stage and option, for messages.
    """
    if isinstance(value, list):
        return [one for item in value for one in _entries(item, inputs, place)]
    if isinstance(value, dict):
        return {_text(key, inputs, place): fill(item, inputs, place) for key, item in value.items()}
    if not isinstance(value, str):
        return value
    whole = _BRACES.fullmatch(value)
    if whole and whole[1] in inputs:
        return inputs[whole[1]]
    return _text(value, inputs, place)


def _entries(item: Any, inputs: Mapping[str, Any], place: str) -> list[Any]:
    filled = fill(item, inputs, place)
    return filled if isinstance(item, str) and isinstance(filled, list) else [filled]


def _text(text: Any, inputs: Mapping[str, Any], place: str) -> Any:
    """Names within a text, or as a key."""

    def one(match: re.Match[str]) -> str:
        if match[1] not in inputs:
            return match[0]
        value = inputs[match[1]]
        if isinstance(value, list | dict):
            raise UserError(f"{place}: {match[0]} is within {text!r}, so --{match[1]} must be text")
        return str(value)

    return _BRACES.sub(one, text) if isinstance(text, str) else text


def _quoted(value: Any) -> Any:
    """A value in which braces mean nothing."""
    if isinstance(value, str):
        return value.replace("{", "{{").replace("}", "}}")
    if isinstance(value, list):
        return [_quoted(item) for item in value]
    if isinstance(value, dict):
        return {_quoted(key): _quoted(item) for key, item in value.items()}
    return value


def _parsed(text: str, name: str) -> Any:
    """A list or a mapping where the text is in brackets, else the text."""
    if not text.strip():
        raise UserError(f"--{name} must not be empty, got {text!r}")
    if text.strip()[0] not in "[{":
        return text
    check_depth(text, f"--{name}")
    check_aliases(text, f"--{name}")
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"--{name}: {' '.join(str(error).split())}") from error


def _texts(value: Any) -> Iterator[str]:
    """The texts in a value, the names of ``{file: weight}`` among them."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _texts(key if isinstance(item, int | float) else item)


def _is_missing(text: str) -> bool:
    """Whether a text can be nothing but a path, and nothing is there.

    ``owner/name`` may be on the hub: whoever reads it will say. Several words behind a program are
    a command, such as a ``launch``.
    """
    first, *others = text.split() or [""]
    if others and shutil.which(first):
        return False
    path = Path(text).expanduser()
    local = text.startswith(("/", "~", "./", "../")) or text.count("/") > 1 or is_known(path)
    return local and not path.exists() and not glob.glob(str(path), recursive=True)
