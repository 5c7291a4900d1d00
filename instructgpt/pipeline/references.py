"""``{stage}`` in options: which folder is meant, and what a stage therefore has to wait for."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

from instructgpt.errors import guess
from instructgpt.types import UserError

RUN_INFO = "pipeline"
"""``{pipeline}`` is the file that says what the pipeline did; nothing depends on it."""

_BRACES = re.compile(r"\{\{|\}\}|\{([A-Za-z_][\w-]*)\}")


class Names(NamedTuple):
    """The stages that there are, and those above the one that names them."""

    every: list[str]
    above: list[str]


def named_stages(value: Any, names: Names, place: str) -> list[str]:
    """The stages that an option names in braces, in order.

    Args:
        value: an option: text, a number, a list, a mapping.
        names: what there is.
        place: file, stage and option, for messages.

    Raises:
        UserError: what stands in braces is no stage above, or the option is no option.
    """
    if isinstance(value, str):
        return _in_text(value, names, place)
    if isinstance(value, list):
        found = [named_stages(item, names, place) for item in value]
    elif isinstance(value, dict):
        _check_keys(value, names, place)
        found = [named_stages(item, names, place) for pair in value.items() for item in pair]
    elif value is None or isinstance(value, bool | int | float):
        return []
    else:
        raise UserError(f"{place} must be text, a number, a list or a mapping, got {value!r}")
    return [name for group in found for name in group]


def expand(value: Any, folder: Callable[[str], str]) -> Any:
    """Replace names in braces by paths, and doubled braces by single ones.

    Args:
        value: an option, checked.
        folder: path of a stage, or of the run information.
    """
    if isinstance(value, str):
        return _BRACES.sub(lambda m: folder(m[1]) if m[1] else m[0][0], value)
    if isinstance(value, list):
        return [expand(item, folder) for item in value]
    if isinstance(value, dict):
        return {expand(key, folder): expand(item, folder) for key, item in value.items()}
    return value


def _check_keys(node: dict[Any, Any], names: Names, place: str) -> None:
    """``{sft}`` without quotes is a mapping to YAML."""
    for key, value in node.items():
        if not isinstance(key, str):
            raise UserError(f"{place}: a key must be text (use quotes), got {key!r}")
        if value is None and key in (*names.every, RUN_INFO):
            raise UserError(f'{place}: {{{key}}} must be in quotes, "{{{key}}}"')


def _in_text(text: str, names: Names, place: str) -> list[str]:
    for name in re.findall(r"\{([\w-]+)", _BRACES.sub("", text)):
        if name in names.every:
            raise UserError(f"{place}: {{{name} must be closed by }}, got {text!r}")
    found = [match[1] for match in _BRACES.finditer(text) if match[1] not in (None, RUN_INFO)]
    for name in found:
        if name not in names.above:
            _missing(name, names, place)
    return found


def _missing(name: str, names: Names, place: str) -> NoReturn:
    if name in names.every:
        raise UserError(f"{place}: {{{name}}} must be a stage above this one")
    hint = guess(name, names.every) or f" (there are {', '.join(names.every)})"
    raise UserError(f"{place}: {{{name}}} is no stage{hint}; braces are written {{{{ and }}}}")
