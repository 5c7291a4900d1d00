"""``{stage}`` in options: which folder is meant, and what a stage therefore has to wait for."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, NoReturn

from instructgpt.errors import guess
from instructgpt.types import UserError

RUN_INFO = "pipeline"
"""``{pipeline}`` is the file that says what the pipeline did; nothing depends on it."""

_BRACES = re.compile(r"\{\{|\}\}|\{([A-Za-z_][\w-]*)(\.[\w-]*(?::[\w-]+)?)?\}")


class Names(NamedTuple):
    """What a stage can name.

    ``done`` maps each stage of the YAML to the names of its folders so far: one, or one a round.
    ``round`` is the number of the stage's own round, 0 outside; ``in_rounds`` the repeated stages.
    """

    every: list[str]
    done: Mapping[str, list[str]]
    in_rounds: list[str]
    round: int


def resolve(value: Any, names: Names, place: str) -> tuple[Any, list[str]]:
    """Replace what a stage names by the names of folders, still in braces.

    Args:
        value: an option: text, a number, a list, a mapping.
        names: what there is.
        place: file, stage and option, for messages.

    Returns:
        The value and the folders in it, in order.
    """
    inputs: list[str] = []

    def walk(node: Any) -> Any:
        if isinstance(node, str):
            for name in re.findall(r"\{([\w-]+)", _BRACES.sub("", node)):
                if name in names.every:
                    raise UserError(f"{place}: {{{name} must be closed by }}, got {node!r}")
            return _BRACES.sub(lambda match: _one(match, names, place, inputs), node)
        if isinstance(node, list):
            return [item for entry in node for item in walk_entry(entry)]
        if isinstance(node, dict):
            _check_quotes(node, names, place)
            return {walk(_text(key, place)): walk(item) for key, item in node.items()}
        if node is None or isinstance(node, bool | int | float):
            return node
        raise UserError(f"{place} must be text, a number, a list or a mapping, got {node!r}")

    def walk_entry(entry: Any) -> list[Any]:
        found = _every_round(entry)
        if found is None:
            return [walk(entry)]
        folders = _all(found[1], names, place)
        inputs.extend(folders)
        before, after = walk(entry[: found.start()]), walk(entry[found.end() :])
        return [f"{before}{{{folder}}}{after}" for folder in folders]

    resolved = walk(value)
    return resolved, list(dict.fromkeys(inputs))


def expand(value: Any, folder: Callable[[str], str]) -> Any:
    """Replace names in braces by paths, and doubled braces by single ones.

    Args:
        value: as ``resolve`` returns it.
        folder: path of a stage, or of the run information.
    """
    if isinstance(value, str):
        return _BRACES.sub(lambda m: folder(m[1]) if m[1] else m[0][0], value)
    if isinstance(value, list):
        return [expand(item, folder) for item in value]
    if isinstance(value, dict):
        return {expand(key, folder): expand(item, folder) for key, item in value.items()}
    return value


def _text(key: Any, place: str) -> str:
    if not isinstance(key, str):
        raise UserError(f"{place}: a key must be text (use quotes), got {key!r}")
    return key


def _check_quotes(node: dict[Any, Any], names: Names, place: str) -> None:
    """``{sft}`` without quotes is a mapping to YAML."""
    for name, value in node.items():
        if value is None and name in (*names.every, RUN_INFO):
            raise UserError(f'{place}: {{{name}}} must be in quotes, "{{{name}}}"')


def _every_round(entry: Any) -> re.Match[str] | None:
    """Where an entry of a list asks for all rounds."""
    places = _BRACES.finditer(entry) if isinstance(entry, str) else iter(())
    return next((match for match in places if match[2] == ".all"), None)


def _all(name: str, names: Names, place: str) -> list[str]:
    """The folders of all rounds so far."""
    if not names.done.get(name):
        _missing(name, names, place)
    return list(names.done[name])


def _one(match: re.Match[str], names: Names, place: str, inputs: list[str]) -> str:
    """Which folder one pair of braces means."""
    name, suffix = match[1], match[2]
    if not name or name == RUN_INFO:
        return match[0]
    if suffix == ".all":
        raise UserError(f"{place}: {match[0]} must be an entry of a list")
    if suffix is None:
        folder = _latest(name, names, place)
    elif suffix.startswith(".previous:"):
        folder = _previous(name, suffix.partition(":")[2], names, place)
    else:
        raise UserError(
            f"{place}: {match[0]} must be {{{name}}}, {{{name}.previous:FIRST}} or {{{name}.all}}"
        )
    inputs.append(folder)
    return f"{{{folder}}}"


def _latest(name: str, names: Names, place: str) -> str:
    """The folder of this round, or of the last one."""
    rounds = names.done.get(name)
    if not rounds:
        folders = [folder for group in names.done.values() for folder in group]
        if name in folders:  # written out, such as sample_2
            return name
        _missing(name, names, place)
    if names.round and name in names.in_rounds and len(rounds) < names.round:
        raise UserError(
            f"{place}: {{{name}}} comes later in the round; that of the round before is "
            f"{{{name}.previous:FIRST}}, where FIRST stands in for it in the first round"
        )
    return rounds[-1]


def _previous(name: str, first: str, names: Names, place: str) -> str:
    """The folder of the round before."""
    if name not in names.every:
        _missing(name, names, place)
    if names.in_rounds and (name not in names.in_rounds or not names.round):
        raise UserError(f"{place}: {{{name}.previous:{first}}} must stand in, and name, a round")
    if names.round <= 1:
        return _latest(first, names, place)
    return names.done[name][names.round - 2]


def _missing(name: str, names: Names, place: str) -> NoReturn:
    if name in names.every:
        raise UserError(f"{place}: {{{name}}} must be a stage above this one")
    hint = guess(name, names.every) or f" (there are {', '.join(names.every)})"
    raise UserError(f"{place}: {{{name}}} is no stage{hint}; braces are written {{{{ and }}}}")
