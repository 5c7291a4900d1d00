"""From the input to rows: cut in shards in order, then checked and counted in any process."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, get_args

from instructgpt.data.checks import name_of
from instructgpt.data.columns import METADATA, NAMES, UNUSED
from instructgpt.data.conversation import Wanted
from instructgpt.data.errors import RefusedColumnError
from instructgpt.data.files import plain_rows, stem_of
from instructgpt.data.formats import Document, Row, parse_item
from instructgpt.data.opening import Item
from instructgpt.data.reading import Reading
from instructgpt.data.sources import OnError
from instructgpt.data.summary import Summary
from instructgpt.hygiene.clean_row import CleanRow, Kind
from instructgpt.hygiene.inputs import items_of
from instructgpt.hygiene.work import RAW, SHARD, Work
from instructgpt.models.folder import write_bytes
from instructgpt.types import UserError

WANTED: dict[Kind, Wanted] = {
    "comparisons": "candidates",
    "demonstrations": "demonstration",
    "prompts": "prompt",
    "text": "text",
}
"""What the reader is asked for; in the order in which it is tried: what holds more first."""


TRIED = 100
"""Of how many rows the first good one says what they are, where bad ones are skipped."""


class RowKind(NamedTuple):
    """What rows are read as."""

    kind: Kind
    on_error: OnError
    reading: Reading


def recognise_kind(names: Sequence[str], reading: Reading, on_error: OnError) -> tuple[Kind, str]:
    """What kind the first row is of, and why.

    Args:
        names: of the input.
        reading: format and columns, where the user says them.
        on_error: whether the first row must be good, or one of the first ``TRIED``.
    """
    problem = UserError(f"--input must hold rows, got none in {', '.join(names)}")
    items = plain_rows((item for item, _ in items_of(names, _silent)), _silent)
    for item in islice(items, TRIED if on_error == "skip" else 1):
        for kind, wanted in WANTED.items():
            try:
                found = parse_item(item, wanted, reading)
            except RefusedColumnError as error:  # of less it would be read without
                problem = error
                break
            except UserError as error:
                problem = error if kind == "prompts" else problem
                continue
            if found:
                return kind, f"read as {kind}: the first row ({item.where}) is {found[0].format}"
    raise UserError(f"{problem} (--kind says what rows are: {', '.join(get_args(Kind))})")


def cut(names: Sequence[str], work: Work, tell: Callable[[int, int], None]) -> list[str]:
    """Write the input as shards of raw rows, and return what is to be told about it.

    Args:
        names: of the input.
        work: where the shards lie; finished ones are kept.
        tell: told how many rows and bytes have been cut since.
    """
    notes: list[str] = []
    items, number, rows = items_of(names, notes.append), 0, 0
    while shard := list(islice(items, SHARD)):
        rows += len(shard)
        if not work.shard(RAW, number).exists():
            lines = "".join(_dumps(item, split) for item, split in shard)
            write_bytes(work.shard(RAW, number), lines.encode())
        number += 1
        tell(len(shard), sum(item.size for item, _ in shard))
    if not number:
        raise UserError(f"--input must hold rows, got none in {', '.join(names)}")
    work.write_json(RAW, "all", {"shards": number, "rows": rows, "notes": notes})
    return notes


def _dumps(item: Item, split: str) -> str:
    """A line of a raw shard: what is wrong with the row, the line it stood in, or its value."""
    value: Any = item.value
    how = "value"
    if isinstance(value, UserError):
        how, value = "wrong", str(value)
    elif isinstance(value, bytes):
        how, value = "line", value.decode("utf-8", "surrogateescape")
    return json.dumps([item.where, item.origin, split, how, value]) + "\n"


def parse_shard(work: Work, number: int, wish: RowKind) -> tuple[list[CleanRow], Summary]:
    """The rows of a raw shard, and what is to be said about them.

    Args:
        work: where it lies.
        number: of the shard.
        wish: what they are read as.
    """
    summary, rows = Summary(), list[CleanRow]()
    told_once: dict[str, str] = {}

    def tell(line: str) -> None:
        told_once.setdefault(about(line), line)

    raw, splits = zip(*_raw(work, number), strict=True)
    for item, split in zip(plain_rows(raw, tell), splits, strict=True):
        try:
            parsed = parse_item(item, WANTED[wish.kind], wish.reading)
        except UserError as error:
            if wish.on_error == "stop":
                raise
            summary.skip(item.origin, str(error))
            continue
        for found, format_name in parsed:
            told = found.told
            if wish.kind == "text":
                kept = {
                    key: METADATA if use == UNUSED else use for key, use in told.columns.items()
                }
                told = told._replace(columns=kept)
            summary.read(item.origin, format_name, found.where, told)
            if not told.left_out:
                rows.append(clean(found, item, wish.kind, split))
    for line in told_once.values():
        summary.note(line)
    return rows, summary


def about(line: str) -> str:
    """What a line tells, without the first place that it is true of."""
    return line.partition(" (first: ")[0]


def _raw(work: Work, number: int) -> Iterator[tuple[Item, str]]:
    with work.shard(RAW, number).open("rb") as file:
        for line in file:
            where, origin, split, how, value = json.loads(line)
            if how == "wrong":
                value = UserError(value)
            elif how == "line":
                value = value.encode("utf-8", "surrogateescape")
            yield Item(where, origin, value), split


def clean(found: Row | Document, item: Item, kind: Kind, split: str) -> CleanRow:
    """A checked row as rules see it.

    Args:
        found: by the reader.
        item: the row as it was read, for what the reader needs no more.
        kind: what it was read as.
        split: that its file says.
    """
    where, raw = found.where, item.value
    if isinstance(found, Document):
        extra = {key: value for key, value in raw.items() if key not in ("text", *NAMES)}
        name, user, source = (name_of(raw.get(key)) for key in ("id", "user", "source"))
        name, source = name or Path(where).name, source or stem_of(Path(item.origin).name)
        return CleanRow(
            *(where, kind, name, "", [], [], [], found.text, user, "", source, split, extra)
        )
    prompt = found.prompt
    meta = {key: value for key, value in prompt.meta.items() if key not in NAMES}
    ratings = raw.get("ratings") if isinstance(raw, dict) else None
    if isinstance(ratings, list) and len(ratings) == len(found.responses) > 1:
        meta["ratings"] = ratings  # what a ranking was made of
    return CleanRow(
        where=where,
        kind=kind,
        id=prompt.id,
        prompt=prompt.text,
        messages=list(prompt.messages),
        responses=list(found.responses),
        ranking=list(found.ranking),
        text="",
        user=found.user,
        labeler=found.labeler,
        source=found.source,
        split=split,
        meta=meta,
    )


def _silent(line: str) -> None:
    """Recognition reads what will be read again, and told then."""
