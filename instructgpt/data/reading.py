"""What the user says of the rows: their format, and what their columns are."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any, NamedTuple

from jsonargparse.typing import register_type

from instructgpt.data.checks import missing
from instructgpt.data.columns import ANSWERS, LABELS, NAMES, TURNS, UNUSED, is_empty
from instructgpt.data.errors import shorten
from instructgpt.data.recognise import find_format
from instructgpt.data.row_format import RowFormat
from instructgpt.data.values import parse_list
from instructgpt.types import UserError

PUBLIC = (
    *("text", "prompt", *ANSWERS, "responses", "ranking", "ratings", "chosen", "rejected"),
    *("score_chosen", "score_rejected", "margin", *LABELS, *TURNS),
    *("instruction", "input", "context", "system", "history", *NAMES, "category", "meta"),
)
"""Columns of public formats, which others can be mapped to."""


class Renamed(NamedTuple):
    """A row under public names."""

    row: dict[str, Any]
    names: Mapping[str, str] = MappingProxyType({})  # public name -> what the file calls it
    unused: Sequence[str] = ()  # parts of columns of which other parts are used

    def told(self, uses: Mapping[str, str]) -> dict[str, str]:
        """What columns are used as, by their names in the file.

        Args:
            uses: by public names.
        """
        named = {self.names.get(key, key): use for key, use in uses.items()}
        return named | dict.fromkeys(self.unused, UNUSED)


class FormatName(str):
    """The name of a format, which is no class path: a type of options, whose values are strings."""


def _is_format(value: Any, _: type = FormatName) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9_-]+", value) is not None


def _format(value: Any) -> str:
    if not _is_format(value):
        raise ValueError("must be the name of a format")
    return str(value)


register_type(FormatName, str, _format, type_check=_is_format)


@dataclass(frozen=True)
class Reading:
    """How rows are read.

    Args:
        format: converts rows; or the name of a known format, which all rows must have; None to
            recognise it.
        columns: public name -> column of the file, or the path into it: ``answers.text``.
    """

    format: RowFormat | str | None = None
    columns: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        """Refuse names that there are not."""
        _ = self.form
        for target, path in (self.columns or {}).items():
            if target not in PUBLIC:
                near = get_close_matches(target, PUBLIC, n=1)
                guess = f"; did you mean {near[0]}?" if near else ""
                names = ", ".join(PUBLIC)
                raise UserError(
                    f"--data.columns must map public names ({names}) to columns of the file, got "
                    f"{target}: {path}{guess}"
                )

    @property
    def form(self) -> RowFormat | str | None:
        """What converts the rows, or the name of a public format."""
        return find_format(self.format) if isinstance(self.format, str) else self.format

    @property
    def told(self) -> str:
        """Columns that are mapped, for messages."""
        pairs = ", ".join(f"{target}: {path}" for target, path in (self.columns or {}).items())
        return f" (--data.columns {pairs})" if pairs else ""

    def rename(self, where: str, row: dict[str, Any]) -> Renamed:
        """A row with public names.

        Args:
            where: file and line.
            row: as read.
        """
        if not self.columns:
            return Renamed(row)
        found = {target: find(where, row, target, path) for target, path in self.columns.items()}
        paths = [*self.columns.values()]
        tops = {path if path in row else path.partition(".")[0] for path in paths}
        renamed = {key: value for key, value in row.items() if key not in tops}
        for target, path in self.columns.items():
            if not is_empty(renamed.get(target)):
                rule = f"must not be there when --data.columns has {target}: {path}"
                raise UserError(f'{where}: "{target}" {rule}, got {shorten(row[target])}')
        unused = [name for top in tops - {*paths} for name in _others(top, row[top], paths)]
        return Renamed(renamed | found, self.columns, unused)


def find(where: str, row: Mapping[str, Any], target: str, path: str) -> Any:
    """A column, or a part of it; of a list, that part of each of its objects.

    Args:
        where: file and line.
        row: as read.
        target: public name.
        path: names with dots between, or numbers of places in a list.
    """
    value: Any = row
    for part in [path] if path in row else path.split("."):
        try:
            value = _part(value, part)
        except (KeyError, IndexError, TypeError):
            raise missing(where, row, path, f", which is {target} by --data.columns") from None
    return parse_list(where, target, value)


def _part(value: Any, part: str) -> Any:
    if isinstance(value, list):
        return value[int(part)] if part.isdigit() else [_part(one, part) for one in value]
    return value[part]


def _others(top: str, value: Any, paths: list[str]) -> list[str]:
    """The keys of a column of which only parts are used."""
    objects = value if isinstance(value, list) else [value]
    keys = {str(key): None for one in objects if isinstance(one, dict) for key in one}
    return [f"{top}.{key}" for key in keys if f"{top}.{key}" not in paths]


RECOGNISE = Reading()
"""Nothing is said: formats are recognised."""
