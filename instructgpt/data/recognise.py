"""Which format a row has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from functools import cache, lru_cache
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

import instructgpt.data.known
from instructgpt.data.columns import ASKING, HEADS, JUDGING, NAMES, TAILS, is_empty
from instructgpt.data.conversation import NATIVE
from instructgpt.data.row_format import KnownFormat, RowFormat
from instructgpt.types import UserError

for _module in iter_modules(instructgpt.data.known.__path__):  # a new format is one file
    import_module(f"instructgpt.data.known.{_module.name}")


@cache
def known_formats() -> dict[str, KnownFormat]:
    """The formats of other projects by name; those with more columns of their own first."""
    classes: list[type[KnownFormat]] = [*_below(KnownFormat)]  # type: ignore[type-abstract]
    found = [cls() for cls in classes if cls.__module__.startswith("instructgpt.")]
    found.sort(key=lambda form: (-len(form.needs), form.name))
    return {form.name: form for form in found}


def _below(cls: type[KnownFormat]) -> Iterable[type[KnownFormat]]:
    for one in cls.__subclasses__():
        yield from _below(one)
        if hasattr(one, "name"):
            yield one


@lru_cache(4096)
def _candidates(keys: tuple[str, ...]) -> tuple[KnownFormat, ...]:
    there = set(keys)
    return tuple(form for form in known_formats().values() if there.issuperset(form.needs))


def recognise(row: Mapping[str, Any]) -> tuple[KnownFormat, str] | None:
    """The format of another project that a row has, and how that is known; None for ours.

    Args:
        row: as read.
    """
    for form in _candidates(tuple(row)):
        if (form.may_be_empty or _is_filled(form, row)) and (reason := form.recognises(row)):
            return form, reason
    return None


def _is_filled(form: KnownFormat, row: Mapping[str, Any]) -> bool:
    """Whether no column is empty, or one is filled that only this format has: the row lacks it."""
    filled = [key for key in form.needs if not is_empty(row[key])]
    return len(filled) == len(form.needs) or not _own(form).isdisjoint(filled)


@cache
def _own(form: KnownFormat) -> frozenset[str]:
    """Columns that neither another format needs nor ours have."""
    needed = Counter(key for one in known_formats().values() for key in one.needs)
    ours = {*HEADS, *TAILS, *ASKING, *JUDGING, *NAMES}
    return frozenset(key for key in form.needs if needed[key] == 1 and key not in ours)


def find_format(name: str, argument: str = "data.format") -> RowFormat | str:
    """A known format by its name, or the name of one of our own.

    Args:
        name: as typed.
        argument: the option, for messages.
    """
    known = known_formats()
    if name in known:
        return known[name]
    if name in NATIVE:
        return name
    names = [*NATIVE, *known]
    near = get_close_matches(name.lower(), names, n=3, cutoff=0.5)
    listed = ", ".join([*near, *(one for one in sorted(names) if one not in near)])
    raise UserError(f"--{argument} must be one of {listed}, or a class path, got {name}")


def nearest(keys: Iterable[str]) -> str:
    """The format that needs most of some columns, and what of it is missing; "" if none is near.

    Args:
        keys: of a row.
    """
    there = set(keys)
    known = {form.title: form.needs for form in known_formats().values()}
    needs = {**known, **{title: keys for title, *keys in NATIVE.values()}}

    def share(title: str) -> float:
        return sum(key in there for key in needs[title]) / len(needs[title])

    best = max(needs, key=lambda title: (share(title), len(needs[title])))
    if share(best) == 1 and best in known:
        return f"; it has the columns of {best}, but not with what they hold there"
    if share(best) == 0:
        return "; --data.columns says which of them stand for those of a format (docs/formats.md)"
    if not 0.5 <= share(best) < 1 or (best in known and share(best) * len(needs[best]) < 2):
        return ""
    lacking = ", ".join(f'"{key}"' for key in needs[best] if key not in there)
    return f"; the nearest format is {best} ({', '.join(needs[best])}), which needs {lacking}"
