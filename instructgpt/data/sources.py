"""From names (files, folders, data sets of the hub) to checked rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from instructgpt.data.conversation import Wanted
from instructgpt.data.errors import shorten
from instructgpt.data.files import plain_rows, raw_rows
from instructgpt.data.folders import Split, files_of
from instructgpt.data.formats import NOTHING, parse_item
from instructgpt.data.opening import Item
from instructgpt.data.reading import RECOGNISE, Reading
from instructgpt.data.summary import Summary
from instructgpt.data.trees import with_trees
from instructgpt.types import NoDataError, UserError

Names = dict[str, float] | list[str] | str
OnError = Literal["stop", "skip"]


def weighted(names: Names, key: str) -> list[tuple[list[str], float]]:
    """Sets with their weights: one for each key of a dictionary, else a single one.

    Args:
        names: as given by the user.
        key: the argument, for messages.
    """
    if not names:
        raise UserError(f"{key} must name at least one file, folder or data set, got {names!r}")
    if isinstance(names, str):
        return [([names], 1.0)]
    if isinstance(names, list):
        return [(names, 1.0)]
    for name, weight in names.items():
        if not (math.isfinite(weight) and weight > 0):
            raise UserError(f"{key}: the weight of {name} must be > 0, got {weight}")
    return [([name], float(weight)) for name, weight in names.items()]


class HubRows(NamedTuple):
    """A data set of the Hugging Face hub."""

    name: str
    rows: Any

    def read(self) -> Iterator[Item]:
        """Its rows in order.

        Raises:
            UserError: the network has failed, where they are read as they are needed.
        """
        number = 0
        try:
            for number, row in enumerate(self.rows, 1):
                yield Item(f"{self.name}:{number}", self.name, row)
        except Exception as error:
            raise UserError(f"{self.name}:{number + 1}: cannot be read: {_why(error)}") from None


Source = Path | HubRows


def sources_of(
    names: list[str], split: Split, tell: Callable[[str], None], streaming: bool = False
) -> list[Source]:
    """What some names stand for: files, folders of ``save_to_disk``, data sets of the hub.

    Args:
        names: files, folders, patterns or data sets.
        split: what the rows are for, in folders whose files are called after it.
        tell: told what is there and not read.
        streaming: data sets of the hub are not kept on the disk.
    """
    found: list[Source] = []
    for name in names:
        files = files_of(name, split, tell)
        found += [_hub(name, streaming)] if files is None else files
    return found


def raw_items(sources: Iterable[Source], tell: Callable[[str], None]) -> Iterator[Item]:
    """Rows as they stand in their files, in order.

    Args:
        sources: to read.
        tell: told what is particular about a file.
    """
    for one in sources:
        if isinstance(one, HubRows):
            yield from with_trees(one.read(), tell)
        else:
            yield from raw_rows(one, tell)


def load(
    names: list[str],
    wanted: Wanted,
    on_error: OnError,
    summary: Summary,
    split: Split = "train",
    reading: Reading = RECOGNISE,
) -> list[Any]:
    """Read and check all rows of some files, folders, patterns or data sets.

    Args:
        names: what to read.
        wanted: what rows are read for (``parse_item``).
        on_error: "stop" at the first bad row, or "skip" and count it.
        summary: told about every row.
        split: what the rows are for, in folders whose files are called after it.
        reading: their format and columns, where the user says them.
    """
    sources = sources_of(names, split, summary.note)
    items = raw_items(sources, summary.note)
    rows = checked(items, wanted, on_error, summary, reading)
    return [row._replace(told=NOTHING) for row in rows]


def checked(
    items: Iterable[Item],
    wanted: Wanted,
    on_error: OnError,
    summary: Summary,
    reading: Reading = RECOGNISE,
) -> Iterator[Any]:
    """Check what was read; what is left out is counted only.

    Args:
        items: as they stand in their files; others as for ``load``.
        wanted: what rows are read for.
        on_error: "stop" at the first bad row, or "skip" and count it.
        summary: told about every row.
        reading: their format and columns, where the user says them.

    Raises:
        UserError: the first bad row, unless such rows are skipped.
    """
    for item in plain_rows(items, summary.tell):
        try:
            parsed = parse_item(item, wanted, reading)
        except UserError as error:
            if on_error == "stop":
                raise
            summary.skip(item.origin, str(error))
            continue
        for row, format_name in parsed:
            summary.read(item.origin, format_name, row.where, row.told)
            if not row.told.left_out:
                yield row


def _hub(name: str, streaming: bool) -> HubRows:
    """A data set of the Hugging Face hub, ``owner/name`` or ``owner/name:split``."""
    repository, _, split = name.partition(":")
    looks_like_path = name.startswith((".", "/", "~")) or repository.count("/") > 1
    if looks_like_path or Path(repository).suffix in {".gz", ".txt", ".zip"}:
        raise NoDataError(f"{name}: no such file or folder")
    import datasets  # here because it takes seconds to load and few runs need it

    how = {"streaming": True} if streaming else {}
    try:
        rows = datasets.load_dataset(repository, split=split or "train", **how)
    except Exception as error:  # the hub fails in many ways: offline, no such set, no such split
        rule = "must be a file, a folder, or a data set that can be loaded"
        raise NoDataError(f"{name}: {rule}, got {_why(error)}") from None
    return HubRows(name, rows)


def _why(error: Exception) -> str:
    """What an error of a library says, in one line."""
    line = str(error).splitlines()[0] if str(error) else ""
    return f"{type(error).__name__}: {shorten(line)}" if line else type(error).__name__
