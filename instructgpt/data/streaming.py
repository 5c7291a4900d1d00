"""Training on rows as they are read: never all in memory, and nothing of them on the disk."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import Trainer

from instructgpt.data.digest import digest_of
from instructgpt.data.opening import Item
from instructgpt.data.records import Recipe
from instructgpt.data.shuffled import BUFFER_BYTES, CHUNK, Mixture, ShuffledSet
from instructgpt.data.sources import HubRows, Names, Source, raw_items, sources_of, weighted
from instructgpt.data.split import bound_of, places
from instructgpt.data.store import Records
from instructgpt.data.stream_loader import Cut, Decoded, Steps, StreamLoader
from instructgpt.data.stream_records import Decoder, Untrained
from instructgpt.data.summary import Summary
from instructgpt.data.views import Joined, Picked, Rows, all_numbers
from instructgpt.row_shares import place_of
from instructgpt.types import UserError

FIRST_ITEMS = 8 * CHUNK
"""So many items are looked at before training: for the summary, the plan and the resume."""

AT_ONCE = 1000
"""So many items become records together, where they do for validation."""

SKETCH = 2**20
"""So many bytes from the beginning and the end of a file, and its size, name it."""


class OpenSource:
    """A source that is read.

    Args:
        items: from where it stands.
        done: how many items are before them.
    """

    def __init__(self, items: Iterator[Item], done: int) -> None:
        self.items, self.done = items, done

    def __iter__(self) -> Iterator[Item]:
        """Its items from where it stands."""
        for item in self.items:
            self.done += 1
            yield item

    def mark(self) -> int:
        """How many items are behind it."""
        return self.done


@dataclass(frozen=True)
class StreamSource:
    """A file or a data set of the hub, in which a place is a number of items.

    Args:
        source: what is read.
        tell: told what is particular about it.
    """

    source: Source
    tell: Callable[[str], None]

    def open(self, mark: Any) -> OpenSource:
        """Begin to read.

        Args:
            mark: how many items are left out, None for none.
        """
        done = mark or 0
        return OpenSource(islice(raw_items([self.source], self.tell), done, None), done)


def in_memory(sources: list[Source], recipe: Recipe, summary: Summary) -> Picked:
    """All rows of some sources, such as validation files, kept nowhere else.

    Args:
        sources: to read.
        recipe: what is made of the rows.
        summary: to tell.
    """
    items, messages = raw_items(sources, summary.note), []
    while some := list(islice(items, AT_ONCE)):
        part = recipe.record(some)
        messages.append(part.message)
        summary.merge(Summary.from_json(part.summary))
    return Picked.all(Records.of(recipe.schema, messages))


class Streamed:
    """What a run trains on as it is read.

    Args:
        sets: sources with the weight of each set.
        recipe: what is made of the rows.
        cut: makes rows of records.
        buffer: how many items are shuffled together.
        seed: of the order, and of what is held out.
    """

    def __init__(
        self,
        sets: Sequence[tuple[list[Source], float]],
        recipe: Recipe,
        cut: Cut,
        buffer: int,
        seed: int,
    ) -> None:
        self.recipe, self.cut, self.seed = recipe, cut, seed
        self.told = Summary()  # about sources: before training, and at the end again
        shuffled = [
            ShuffledSet(
                [StreamSource(one, self.told.tell) for one in sources], buffer, seed, number
            )
            for number, (sources, _) in enumerate(sets)
        ]
        self.mixture = Mixture(shuffled, [weight for _, weight in sets], seed)
        self.held = Untrained(seed)
        self.first: Rows[Any] = Joined([])  # rows that training begins with
        self.digest = sketch(sets)
        self._loader: StreamLoader | None = None

    @property
    def decode(self) -> Decoder:
        """Makes records of items."""
        return Decoder(self.recipe, self.held)

    def know(self, validation: Sequence[Picked]) -> None:
        """Count the rows that are trained on although they are among those of validation files."""
        self.held = Untrained(self.seed, keys=all_numbers("key", validation))

    def hold_out(self, fraction: float, summary: Summary) -> list[Picked]:
        """Hold out rows by a hash; those among the first ones are for validation.

        Args:
            fraction: of the users or prompts to hold out; at least one is, where there are two.
            summary: to tell.
        """
        items = [item for one in self.mixture.sets for item in self._first_items(one)]
        seen: list[np.ndarray] = []
        held = Untrained(self.seed, bound_of(fraction), by_hash=True)

        def look(parties: np.ndarray, keys: np.ndarray) -> np.ndarray:
            seen.append(places(parties, self.seed))
            return held.chosen(parties, keys)

        def read() -> list[bytes]:
            parts = (items[i : i + AT_ONCE] for i in range(0, len(items), AT_ONCE))
            return [self.recipe.record(part, look).message for part in parts]

        messages = read()
        found = np.concatenate(seen)
        if len(found) and found.min() >= np.uint64(held.bound) and found.min() < found.max():
            held = replace(held, bound=int(found.min()) + 1)
            messages = read()
        if len(found) and found.max() < np.uint64(held.bound):
            rule = "must leave rows to train on"
            raise UserError(f"--data.validation {rule}, got {fraction} of {len(found):,} rows")
        rows = Picked.all(Records.of(self.recipe.schema, messages))
        self.held = replace(held, keys=np.unique(rows.numbers("key")))
        summary.note(
            f"validation: {len(rows.rows):,} of the first {len(found):,} rows, by a hash of user, "
            "else prompt or text; later rows of the same fraction are left out of training"
        )
        return [rows]

    def _first_items(self, one: ShuffledSet) -> Iterator[Item]:
        """The first items of a set, each once: a buffer of all sets together."""
        sets, size = len(self.mixture.sets), 0
        for number, (item, cursor) in enumerate(one.items()):
            full = number >= -(-one.buffer // sets) or size >= BUFFER_BYTES // sets
            if cursor.turn or full:
                return
            size += item.size
            yield item

    def begin(self, summary: Summary) -> None:
        """Look at the first rows: for the summary, the plan, and what a resume compares.

        Args:
            summary: to tell.
        """
        parts: list[Any] = []
        rest: list[int] = []
        digest = hashlib.sha256(self.digest.encode())
        for chunk in self.mixture.chunks(0, self.mixture.start):
            decoded = self.decode(chunk.items)
            if isinstance(decoded, UserError):
                raise decoded
            summary.merge(decoded.summary)
            digest.update(self._content(decoded))
            rows, rest = self.cut(decoded.rows, rest)
            parts += [rows] if len(rows) else []
            items = (chunk.number + 1) * CHUNK
            turns = min(cursor.turn for cursor in chunk.cursors)
            if (items >= FIRST_ITEMS and parts) or turns > 0:
                break
        if not parts:
            raise UserError(f"--data.train: no rows left: {summary.losses()}")
        summary.merge(self.told)
        again = ", some of them again in another pass" if turns else ""
        summary.note(
            f"streaming: these are counts of the first {items:,} rows{again}; the plan is made for "
            "them, and what was seen is counted at the end"
        )
        self.first, self.digest = Joined(parts), digest.hexdigest()[:16]

    def _content(self, decoded: Decoded) -> bytes:
        """What names records that are trained on."""
        message, rows = decoded.rows
        found = Records.of(self.recipe.schema, [message]).numbers("content")[rows]
        return bytes(found.tobytes())

    def loader(
        self, collate: Callable[[list[Any]], Any], steps: Steps, num_workers: int
    ) -> StreamLoader:
        """The batches of a fit: the same object however often it is asked for.

        Args:
            collate: makes a batch of rows.
            steps: how much the run takes.
            num_workers: processes that decode.
        """
        if self._loader is None:
            pieces = self.mixture, self.decode, self.cut, collate
            self._loader = StreamLoader(*pieces, steps, num_workers, self.first)
        return self._loader

    def end(self) -> list[str]:
        """What was seen, and no more batches."""
        if self._loader is None:
            return []
        seen, turns, self._loader = self._loader.seen(), self._loader.turns, None
        seen.merge(self.told)
        again = f", in {turns + 1} passes of which each counts its rows again" if turns else ""
        return [f"data as of what was seen{again}:", *(f"  {line}" for line in seen.lines())]


def streamed_sets(names: Names, summary: Summary) -> list[tuple[list[Source], float]]:
    """Sources of each set with its weight.

    Args:
        names: as given by the user.
        summary: to tell.
    """
    return [
        (sources_of(some, "train", summary.note, streaming=True), weight)
        for some, weight in weighted(names, "--data.train")
    ]


def sketch(sets: Sequence[tuple[list[Source], float]]) -> str:
    """Name sets without reading all of them: files by their size, beginning and end.

    Args:
        sets: sources with the weight of each set.
    """
    return digest_of([[weight, *map(_sketch, sources)] for sources, weight in sets])


def _sketch(source: Source) -> Any:
    if isinstance(source, HubRows):
        return source.name
    if source.is_dir():
        return [_sketch(path) for path in sorted(source.iterdir()) if path.is_file()]
    return _ends_of(source)


def _ends_of(path: Path) -> str:
    digest = hashlib.sha256()
    size = path.stat().st_size
    digest.update(f"{size}".encode())
    with path.open("rb") as file:
        digest.update(file.read(SKETCH))
        file.seek(max(size - SKETCH, 0))
        digest.update(file.read(SKETCH))
    return digest.hexdigest()[:32]


def check_steps(trainer: Trainer | None, summary: Summary) -> Trainer:
    """Refuse what needs to know how many rows there are, and return the trainer.

    Args:
        trainer: of the run.
        summary: told what has no effect.
    """
    streams = "with --data.streaming, where nobody knows how many rows there are"
    if trainer is None or trainer.max_steps < 1:
        raise UserError(f"--trainer.max_steps must be given {streams}, got none")
    for name in ("limit_train_batches", "val_check_interval"):
        value = getattr(trainer, name)
        if isinstance(value, float) and value != 1.0:
            raise UserError(f"--trainer.{name} must be a number of batches {streams}, got {value}")
    if overfit := trainer.overfit_batches:  # type: ignore[attr-defined]
        raise UserError(f"--trainer.overfit_batches must be 0 with --data.streaming, got {overfit}")
    if (trainer.max_epochs or 0) > 0 and is_endless(trainer):
        summary.note(
            f"an epoch is the whole run of --trainer.max_steps, {trainer.max_steps:,}: "
            f"--trainer.max_epochs {trainer.max_epochs} ends nothing"
        )
    return trainer


def is_endless(trainer: Trainer | None) -> bool:
    """Whether nothing ends an epoch of a stream but the run.

    Args:
        trainer: of the run.
    """
    return trainer is not None and trainer.limit_train_batches == 1.0


def stream_steps(trainer: Trainer, batch_size: int) -> Steps:
    """How much a run takes of a stream.

    Args:
        trainer: of the run.
        batch_size: rows of a rank in a batch.
    """
    accumulate = trainer.accumulate_grad_batches
    batches, place = trainer.max_steps * accumulate, place_of(trainer)
    return Steps(batch_size, batches, accumulate, *place)


def check_options(options: Mapping[str, Any], why: str) -> None:
    """Refuse options that mean nothing with ``streaming``.

    Args:
        options: by their names.
        why: they mean nothing, and what to do.
    """
    for name, value in options.items():
        if value:
            rule = "must be left out with --data.streaming"
            raise UserError(f"--data.{name} {rule}, {why}, got {value}")
