"""``matrix``: what differs by a name alone is written once, with the name in angle brackets.

An axis has values, and a value may carry options, config files, a cost, and texts of its own. A key
with ``<axis>`` in it, of a stage, of an option or of another axis, stands once for each value, and
so does such an entry of a list; ``<axis>`` is then the name of the value there, and
``<axis.text>`` a text that it carries.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from instructgpt.errors import guess
from instructgpt.types import UserError

Axes = dict[str, dict[str, dict[str, Any]]]
"""Axes by name, each with its values by name, and what they carry."""
CARRIED = ("config", "options", "cost")
"""What a value gives to the stages that it is in the name of; all else it carries is text, but for
``needs``, an input without which it is left out (``inputs.py``)."""

_PLACE = re.compile(r"<([A-Za-z][\w-]*)(?:\.([A-Za-z][\w-]*))?>")


def expand_matrix(document: dict[str, Any], path: Path) -> dict[str, dict[str, Any]]:
    """The stages of a pipeline, each with a name and options of its own.

    Args:
        document: the pipeline, with all that it extends; ``unneeded`` are stages that are left out,
            so that an axis which they alone have is no mistake.
        path: of the YAML file, for messages.

    Raises:
        UserError: what stands in angle brackets is no axis, or two stages get one name.
    """
    matrix = _Matrix({})
    for name, values in document.get("matrix", {}).items():
        place = f"{path}: matrix.{name}"
        if not values:
            raise UserError(f"{place} must have at least one value, got none")
        matrix.axes[name] = matrix.entries(values, {}, place, final=False)
        for value in matrix.axes[name]:
            if not re.fullmatch(r"[\w-]+", value):
                raise UserError(f"{place}: a value must be letters, digits, _ and -, got {value!r}")
    stages: dict[str, dict[str, Any]] = {}
    keys: dict[str, str] = {}
    for key, stage in document["stages"].items():
        place = f"{path}: stages.{key}"
        for bound in matrix.bindings(key, {}, place):
            name = matrix.fill(key, bound, place)
            check_name(name, f"{path}: stages")
            if name in stages:
                raise UserError(
                    f"{place} must not give a second stage {name} beside that of {keys[name]}; "
                    "what a stage has by a value of an axis is written with the value, in matrix"
                )
            keys[name] = key
            for axis, value in bound.items():
                carried = matrix.axes[axis][value]
                stage = overlaid(stage, {k: carried[k] for k in CARRIED if k in carried})
            stages[name] = matrix.fill(stage, bound, f"{path}: stages.{name}")
            stage = document["stages"][key]
    left_out = {axis for axis, _ in _PLACE.findall(str(document.get("unneeded", "")))}
    for name in matrix.axes:
        if name not in matrix.used | left_out:
            raise UserError(f"{path}: matrix.{name}: no key has <{name}> in it")
    return stages


def overlaid(base: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """A stage, or what a value carries, with something of its own on top, option by option."""
    return {**base, **own, "options": {**base.get("options", {}), **own.get("options", {})}}


def check_name(name: Any, place: str) -> None:
    """Refuse a name that no folder should have.

    Args:
        name: of a stage; with axes in it or without.
        place: for messages.
    """
    fine = isinstance(name, str) and re.fullmatch(r"[A-Za-z][\w-]*", _PLACE.sub("a", name))
    if not fine or name == "pipeline":
        raise UserError(
            f"{place}: a name must be letters, digits, _ and -, and not pipeline, got {name!r}"
        )


class _Matrix:
    """The axes, and which of them were used."""

    def __init__(self, axes: Axes) -> None:
        self.axes = axes
        self.used: set[str] = set()

    def bindings(
        self, key: Any, bound: dict[str, str], place: str, text: bool = False
    ) -> Iterator[dict[str, str]]:
        """What ``bound`` becomes for each entry that a key stands for, the first axis slowest.

        Args:
            key: or an entry of a list.
            bound: value of each axis.
            place: for messages.
            text: what is no axis is text.
        """
        found = _PLACE.findall(key) if isinstance(key, str) else []
        axis = next((a for a, _ in found if a not in bound and (a in self.axes or not text)), None)
        if axis is None:
            yield bound
            return
        self._check_axis(axis, place)
        self.used.add(axis)
        for value in self.axes[axis]:
            yield from self.bindings(key, {**bound, axis: value}, place, text)

    def entries(
        self, tree: dict[Any, Any], bound: dict[str, str], place: str, final: bool = True
    ) -> dict[Any, Any]:
        """A mapping in which every key with an axis that is not bound stands once a value."""
        filled: dict[Any, Any] = {}
        for key, value in tree.items():
            for more in self.bindings(key, bound, place):
                name = self.fill(key, more, place)
                if name in filled:
                    raise UserError(f"{place}: {name} is given twice, also by {key}")
                filled[name] = self.fill(value, more, f"{place}.{name}", final)
        return filled

    def fill(self, tree: Any, bound: dict[str, str], place: str, final: bool = True) -> Any:
        """Replace axes by the values that are bound.

        Args:
            tree: text, or a list or mapping with text in it.
            bound: value of each axis.
            place: file, stage and option, for messages.
            final: refuse axes that are not bound, which otherwise may be bound later.
        """
        if isinstance(tree, dict | list) and not final:
            return self._partly(tree, bound, place)
        if isinstance(tree, dict):
            return self.entries(tree, bound, place)
        if isinstance(tree, list):
            return [
                self.fill(item, more, place)
                for item in tree
                for more in self.bindings(item, bound, place, text=True)
            ]
        if isinstance(tree, str):
            return _PLACE.sub(lambda match: self._one(match, bound, place, final), tree)
        return tree

    def _partly(
        self, tree: dict[Any, Any] | list[Any], bound: dict[str, str], place: str
    ) -> dict[Any, Any] | list[Any]:
        """What a value carries: axes that are not bound stay for the stages it goes to."""
        if isinstance(tree, list):
            return [self.fill(item, bound, place, False) for item in tree]
        return {
            self.fill(key, bound, place, False): self.fill(value, bound, place, False)
            for key, value in tree.items()
        }

    def _one(self, match: re.Match[str], bound: dict[str, str], place: str, final: bool) -> str:
        axis, text = match[1], match[2]
        if axis not in bound:
            before = match.string[: match.start()]
            if final and axis in self.axes:
                raise UserError(
                    f"{place}: {match[0]} has no value here: <{axis}> must be in the name of the "
                    "stage or option, or in a key before it"
                )
            if final and before.rfind("{") > before.rfind("}"):
                self._check_axis(axis, place)
            return match[0]
        value = bound[axis]
        if text is None:
            return value
        carried = self.axes[axis][value]
        if text in CARRIED or text not in carried:
            raise UserError(f"{place}: {match[0]}: {value} of {axis} has no text {text}")
        return str(carried[text])

    def _check_axis(self, name: str, place: str) -> None:
        if name not in self.axes:
            there = f" (there are {', '.join(self.axes)})" if self.axes else ": there is no matrix"
            hint = guess(name, list(self.axes)) or there
            raise UserError(f"{place}: <{name}> is no axis above{hint}")
