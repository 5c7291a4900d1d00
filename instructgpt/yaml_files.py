"""YAML as every verb reads it: errors with line and column, no key twice, no bombs."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import yaml

from instructgpt.types import UserError

MOST_VALUES = 100_000
"""A configuration has hundreds of values; more come from aliases that repeat each other."""

MOST_LEVELS = 200
"""Of brackets in brackets; a configuration has a dozen."""


class _Loader(yaml.SafeLoader):
    """Refuses a key that is given twice, and reads 1e-3 as a number, as the other verbs do."""

    def compose_mapping_node(self, anchor: Any) -> Any:
        """Look at the keys as written: merging adds those of others to them."""
        node: Any = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key.value, str):
                raise yaml.constructor.ConstructorError(
                    None, None, "a key must be text (quote what is in braces)", key.start_mark
                )
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key.value} is given twice", key.start_mark
                )
            if key.value != "<<":
                seen.add(key.value)
        return node


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?[0-9]+(?:\.[0-9]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def load_yaml(path: Path) -> Any:
    """The content of a YAML file.

    Args:
        path: of the file.

    Raises:
        UserError: it is not there, or does not parse; with line and column.
    """
    try:
        text = path.read_text(encoding="utf-8")
        check_depth(text, str(path))
        check_aliases(text, str(path))
        tree = yaml.load(text, Loader=_Loader)
        json.dumps(tree, default=str)  # no anchor in itself, no date as a key
        return tree
    except UserError:
        raise
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        raise UserError(f"{place}: {error.problem}") from error
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise UserError(f"{path}: {' '.join(str(error).split())}") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error


def check_aliases(text: str, place: str) -> None:
    """Refuse YAML whose aliases repeat each other until nothing can hold it.

    Args:
        text: of a file or an option; what does not parse is left to others.
        place: for the message.
    """
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        count = _values(root, {}) if root is not None else 0
    except RecursionError as error:
        raise UserError(f"{place}: must not be nested as deeply as it is") from error
    except yaml.YAMLError:
        return
    if count > MOST_VALUES:
        what = f"repeat each other to {count:.3g} values" if count < math.inf else "form a circle"
        raise UserError(f"{place}: aliases must not {what}")


def _values(node: yaml.Node, known: dict[int, float]) -> float:
    """Values under a node, each alias counted as often as it is used; infinite in a circle."""
    if id(node) in known:
        return known[id(node)]
    known[id(node)] = math.inf  # as long as it is being counted
    children: list[yaml.Node] = []
    if isinstance(node, yaml.SequenceNode):
        children = node.value
    elif isinstance(node, yaml.MappingNode):
        children = [part for pair in node.value for part in pair]
    known[id(node)] = 1 + sum(_values(child, known) for child in children)
    return known[id(node)]


def check_depth(text: str, place: str) -> None:
    """Refuse brackets in brackets in brackets, which parsers in C do not survive.

    Args:
        text: of a file or an option.
        place: for the message.
    """
    depth = 0
    for bracket in re.findall(r"[\[\]{}]", text):
        depth = depth + 1 if bracket in "[{" else max(0, depth - 1)
        if depth > MOST_LEVELS:
            raise UserError(f"{place}: brackets must not be more than {MOST_LEVELS} levels deep")
