"""Types as JSON and back: a named tuple or a dataclass is an object with its fields in order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import (
    Any,
    Literal,
    NamedTuple,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

from instructgpt.types import UserError

T = TypeVar("T")


class Field(NamedTuple):
    """A field of a type, and whether it may be left out."""

    kind: Any
    optional: bool


@cache
def fields_of(kind: type) -> dict[str, Field]:
    """The fields of a named tuple or a dataclass; none for any other type."""
    if is_dataclass(kind):
        free = {
            one.name: one.default is not MISSING or one.default_factory is not MISSING
            for one in fields(kind)
        }
    else:
        defaults = getattr(kind, "_field_defaults", {})
        free = {name: name in defaults for name in getattr(kind, "_fields", ())}
    hints = get_type_hints(kind) if free else {}
    return {name: Field(hints[name], optional) for name, optional in free.items()}


def to_json(value: Any) -> Any:
    """A value as JSON data; a field that has a default is left out where it is None or empty.

    Args:
        value: of named tuples, dataclasses, mappings, lists and plain values.
    """
    kind: type = type(value)
    if known := fields_of(kind):
        found = {name: getattr(value, name) for name in known}
        return {
            name: to_json(one)
            for name, one in found.items()
            if not (known[name].optional and (one is None or one in ({}, [])))
        }
    if isinstance(value, Mapping):
        return {str(key): to_json(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(one) for one in value]
    return value


def from_json(kind: type[T], value: Any, where: str) -> T:
    """JSON data as a type again; null is not a number where a number is asked for.

    Args:
        kind: what it must be.
        value: JSON data.
        where: file and key, for messages.
    """
    return cast(T, _read(kind, value, where))


def _read(kind: Any, value: Any, where: str) -> Any:
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        (one,) = (each for each in inner if each is not NoneType)
        return None if value is None else _read(one, value, where)
    if origin is Literal:
        return value if value in inner else _refuse(where, f"one of {', '.join(inner)}", value)
    if origin is dict:
        _check(isinstance(value, dict), where, "an object", value)
        return {key: _read(inner[1], one, f"{where}.{key}") for key, one in value.items()}
    if origin in (list, tuple):
        _check(isinstance(value, list), where, "a list", value)
        if origin is list:
            return [_read(inner[0], one, f"{where}[{i}]") for i, one in enumerate(value)]
        _check(len(value) == len(inner), where, f"a list of {len(inner)}", value)
        return tuple(_read(each, one, where) for each, one in zip(inner, value, strict=True))
    if fields_of(kind):
        return _read_object(kind, value, where)
    if kind is float and value is None:
        return float("nan")
    fits = isinstance(value, int | float if kind is float else kind)
    _check(fits and (kind is bool or not isinstance(value, bool)), where, kind.__name__, value)
    return value


def _read_object(kind: Any, value: Any, where: str) -> Any:
    _check(isinstance(value, dict), where, "an object", value)
    known = fields_of(kind)
    for name in value:
        if name not in known:
            raise UserError(f"{where}: has the key {name[:60]!r}, which this version does not know")
    for name, one in known.items():
        if not one.optional and name not in value:
            raise UserError(f"{where}: must have the key {name!r}, as this version writes it")
    return kind(
        **{name: _read(known[name].kind, one, f"{where}.{name}") for name, one in value.items()}
    )


def _check(fine: bool, where: str, rule: str, value: Any) -> None:
    if not fine:
        _refuse(where, rule, value)


def _refuse(where: str, rule: str, value: Any) -> Any:
    raise UserError(f"{where}: must be {rule}, got {str(value)[:60]}")
