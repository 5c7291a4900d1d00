"""Batches of a stream: decoded in workers in order, resumed at the very next batch."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch.utils.data import DataLoader, Dataset

from instructgpt.data.loader import RankBatches
from instructgpt.data.opening import Item
from instructgpt.data.rows import LanguageRow
from instructgpt.data.shuffled import Chunk, Cursor, Mixture
from instructgpt.data.summary import Summary
from instructgpt.types import UserError

BEHIND_ALL = 2**63
"""No chunk has so high a number."""


class Decoded(NamedTuple):
    """What has become of the items of a chunk."""

    rows: Any  # to be cut into rows by the process that trains
    summary: Summary


class Decode(Protocol):
    """Makes records of items, in any process."""

    def __call__(self, items: Sequence[Item]) -> Decoded | UserError:
        """Records, or what is wrong with a row."""


class Cut(Protocol):
    """Makes rows of records, in their order."""

    def __call__(self, rows: Any, rest: list[int]) -> tuple[Sequence[Any], list[int]]:
        """Rows, and what is left over for those of the next records.

        Args:
            rows: records, of which the last may be incomplete.
            rest: what was left over before.
        """


@dataclass(frozen=True)
class Steps:
    """How much a run takes of a stream.

    Args:
        batch_size: rows of a rank in a batch.
        batches: of the run, or of an epoch if the trainer limits it.
        accumulate: batches of an optimizer step; a resume goes back to the first.
        rank: of this process.
        world_size: number of processes.
    """

    batch_size: int
    batches: int
    accumulate: int = 1
    rank: int = 0
    world_size: int = 1


class Place(NamedTuple):
    """Where a batch ends in the stream."""

    done: int  # batches before it, in all epochs
    chunk: int
    cursors: tuple[Cursor, ...]  # before the chunk
    used: int = 0  # rows of the chunk that were in batches
    rest: list[int] = []  # noqa: RUF012 (never changed) what was left over before the chunk


class _Items(Dataset[Any]):
    """Decodes what it is asked for: its indices are the items."""

    def __init__(self, decode: Decode) -> None:
        self.decode = decode

    def __getitem__(self, items: Any) -> Decoded | UserError:
        return self.decode(items)


class StreamLoader:
    """Batches of one rank from a stream that never ends.

    Every rank decodes the same rows and takes its share of each batch, so that batches do not
    depend on the number of ranks, nor on that of workers. An epoch is as many batches as the run
    has steps, or what the trainer limits it to; the next goes on where it ended.

    Args:
        mixture: undecoded items.
        decode: makes records of items.
        cut: makes rows of records.
        collate: makes a batch of rows.
        steps: how much the run takes.
        num_workers: processes that decode.
        first_rows: some rows as they are found at the beginning, for those who plan.
    """

    def __init__(
        self,
        mixture: Mixture,
        decode: Decode,
        cut: Cut,
        collate: Callable[[list[Any]], Any],
        steps: Steps,
        num_workers: int,
        first_rows: Sequence[Any] = (),
    ) -> None:
        self.mixture, self.decode, self.cut, self.collate = mixture, decode, cut, collate
        self.steps, self.num_workers, self.first_rows = steps, num_workers, first_rows
        self.epoch = 0
        self._begun = 0  # batches before this epoch
        self._place = Place(0, 0, mixture.start)
        self._step = self._place  # where the last whole optimizer step ended
        self._counted = Summary()  # of what comes before the chunks of both
        self._parts: deque[tuple[int, Summary]] = deque()  # of chunks from there on
        self._known: dict[int, tuple[Place, Summary]] = {}  # from a checkpoint
        self._ids: dict[int, list[str]] = {}  # of the last batches

    @property
    def sampler(self) -> StreamLoader:
        """Itself: Lightning calls ``loader.sampler.set_epoch``."""
        return self

    @property
    def batch_size(self) -> int:
        """Rows of a rank in a batch."""
        return self.steps.batch_size

    def __len__(self) -> int:
        """Batches of an epoch."""
        return self.steps.batches

    def set_epoch(self, epoch: int) -> None:
        """Begin an epoch where the last one ended."""
        if epoch != self.epoch:
            self.epoch, self._begun = epoch, self._place.done

    def batches(self, epoch: int) -> RankBatches:
        """Numbers of ``first_rows``, in batches."""
        size = self.steps.batch_size * self.steps.world_size
        count = -(-len(self.first_rows) // size)
        place = self.steps.batch_size, self.steps.rank, self.steps.world_size
        return RankBatches(range(len(self.first_rows)), count, *place)

    def ids(self, epoch: int, batch: int) -> list[str]:
        """Ids of the documents of one of this rank's last batches."""
        return self._ids.get(self._begun + batch, [])

    def seen(self) -> Summary:
        """What was counted of all that was read for batches."""
        return self._before(BEHIND_ALL)

    @property
    def turns(self) -> int:
        """How often all rows have been read."""
        return min(cursor.turn for cursor in self._place.cursors)

    def __iter__(self) -> Iterator[Any]:
        """Batches from where the last one ended, to the end of the epoch."""
        place = self._step = self._place
        self._counted, self._parts = self._before(place.chunk), deque()
        size = self.steps.batch_size * self.steps.world_size
        used, rest, rows = place.used, place.rest, list[Any]()
        for chunk, decoded in self._decoded(place):
            if isinstance(decoded, UserError):
                raise decoded
            self._parts.append((chunk.number, decoded.summary))
            found, left = self.cut(decoded.rows, rest)
            for number in range(used, len(found)):
                rows.append(found[number])
                if len(rows) < size:
                    continue
                done = self._place.done + 1
                self._handed_out(Place(done, chunk.number, chunk.cursors, number + 1, rest), rows)
                yield self.collate(self._share(rows))
                rows = []
                if done - self._begun >= len(self):
                    return
            used, rest = 0, left
            self._check_rows(chunk)

    def _decoded(self, place: Place) -> Iterator[tuple[Chunk, Decoded | UserError]]:
        """Chunks with their records, in order; items of those to come are with the workers."""
        waiting: deque[Chunk] = deque()

        def items() -> Iterator[list[Item]]:
            for chunk in self.mixture.chunks(place.chunk, place.cursors):
                waiting.append(chunk._replace(items=[]))
                yield chunk.items

        loader = DataLoader(
            _Items(self.decode),
            batch_size=None,
            sampler=items(),
            collate_fn=_itself,
            num_workers=self.num_workers,
            # keeps DataLoader from drawing its base seed from the global one
            generator=torch.Generator().manual_seed(0),
        )
        for decoded in loader:
            yield waiting.popleft(), decoded

    def _handed_out(self, place: Place, rows: list[Any]) -> None:
        """Remember where a batch ends, and its ids."""
        before = self._place.done - self._begun
        if before % self.steps.accumulate == 0:
            self._step = self._place
            while self._parts and self._parts[0][0] < self._step.chunk:
                self._counted.merge(self._parts.popleft()[1])
        self._place = place
        own = self._share(rows)
        names = [row.id for row in own if isinstance(row, LanguageRow)]
        self._ids = {place.done - 2: self._ids.get(place.done - 2, []), place.done - 1: names}

    def _share(self, rows: list[Any]) -> list[Any]:
        """This rank's rows of a batch."""
        start = self.steps.rank * self.steps.batch_size
        return rows[start : start + self.steps.batch_size]

    def _before(self, chunk: int) -> Summary:
        """What was counted of the chunks before one."""
        summary = Summary()
        summary.merge(self._counted)
        for number, part in self._parts:
            if number < chunk:
                summary.merge(part)
        return summary

    def _check_rows(self, chunk: Chunk) -> None:
        """Refuse to read for ever what gives no row."""
        if not self._place.done and min(cursor.turn for cursor in chunk.cursors) > 0:
            raise UserError(f"--data.train: no rows left: {self.seen().losses()}")

    # -- resume

    def state_dict(self) -> dict[str, Any]:
        """Where we stand, and where the optimizer step began that may be incomplete."""
        places = [self._step, self._place]
        return {
            "epoch": self.epoch,
            "yielded": self._place.done - self._begun,
            "places": [_as_json(place) for place in places],
            "seen": [json.dumps(self._before(place.chunk).to_json()) for place in places],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on behind a batch; without places only how many batches of which epoch are done.

        Args:
            state: of another loader; or ``epoch`` and ``yielded`` alone: of the batches that the
                state before it knows, so many are to be kept.
        """
        if "places" in state:
            places = [_place_of(found) for found in state["places"]]
            counted = [Summary.from_json(json.loads(text)) for text in state["seen"]]
            self._known = {p.done: (p, c) for p, c in zip(places, counted, strict=True)}
            done, full = places[-1].done, state["yielded"] >= len(self)
            self.epoch = state["epoch"] + int(full)
            self._begun = done if full else done - state["yielded"]
            self._go_to(done)
            return
        if state["epoch"] != self.epoch:
            self.epoch, self._begun = state["epoch"], self._place.done
        self._go_to(self._begun + state["yielded"])

    def _go_to(self, done: int) -> None:
        if done == self._place.done:
            return
        if done not in self._known:
            raise UserError(
                f"--ckpt_path knows the stream behind {' and '.join(map(str, self._known))} "
                f"batches, and cannot go on behind {done}"
            )
        self._place, self._counted = self._known[done]
        self._step, self._parts = self._place, deque()


def _as_json(place: Place) -> dict[str, Any]:
    """A place in types that a checkpoint may hold."""
    return {**place._asdict(), "cursors": [list(cursor) for cursor in place.cursors]}


def _place_of(found: Mapping[str, Any]) -> Place:
    place = Place(**found)
    return place._replace(cursors=tuple(Cursor(*cursor) for cursor in place.cursors))


def _itself(decoded: Any) -> Any:
    return decoded
