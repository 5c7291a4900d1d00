"""A loader that knows where it stands, so that a run resumes at the very next batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from instructgpt.data.rows import AnyRow, LanguageRow


class _Rows(Dataset[AnyRow]):
    def __init__(self, rows: Sequence[AnyRow]) -> None:
        self.rows = rows

    def __getitem__(self, index: int) -> AnyRow:
        return self.rows[index] if index >= 0 else self.rows[0].blank()


class RankBatches:
    """Row numbers of a rank's batches, each made when it is asked for.

    Args:
        order: row numbers of an epoch.
        count: of the batches.
        batch_size: rows of this rank in a batch.
        rank: of this process.
        world_size: number of processes.
        start: the first batch.
    """

    def __init__(
        self,
        order: Sequence[int] | NDArray[np.int64],
        count: int,
        batch_size: int,
        rank: int,
        world_size: int,
        start: int = 0,
    ) -> None:
        self.order, self.count, self.start = order, count, start
        self.batch_size, self.rank, self.world_size = batch_size, rank, world_size

    def behind(self, start: int) -> RankBatches:
        """The batches from one on."""
        place = self.batch_size, self.rank, self.world_size
        return RankBatches(self.order, self.count, *place, start)

    def __len__(self) -> int:
        """How many there are."""
        return self.count - self.start

    def __getitem__(self, index: int) -> list[int]:
        """Row numbers of a batch."""
        if index >= len(self):
            raise IndexError(index)
        size = self.batch_size * self.world_size
        first = (self.start + index) * size
        rows = np.asarray(self.order[first : first + size])
        share = -(-len(rows) // self.world_size)
        return rows[self.rank * share : (self.rank + 1) * share].tolist() or [-1]

    def __iter__(self) -> Iterator[list[int]]:
        """One batch after the other."""
        return map(self.__getitem__, range(len(self)))


class StatefulLoader:
    """Batches of one rank in an order that is a function of the epoch.

    Not a ``DataLoader``, so Lightning leaves sampler and batches alone. Iteration is lazy because
    Lightning calls ``iter`` before ``set_epoch`` when it resumes between epochs.

    Args:
        rows: all rows, the same on every rank.
        collate: makes a batch of a list of rows.
        batch_size: rows of this rank in a batch.
        order: row numbers of an epoch; always the same number of them.
        training: shuffled, and the incomplete last batch is left out unless it is the only one.
            Otherwise each row comes exactly once, and a rank without rows for the last batch gets
            a blank one.
        rank: of this process.
        world_size: number of processes.
        num_workers: processes that collate.
    """

    def __init__(
        self,
        rows: Sequence[AnyRow],
        collate: Callable[[list[Any]], Any],
        batch_size: int,
        order: Callable[[int], Sequence[int] | NDArray[np.int64]],
        training: bool,
        rank: int = 0,
        world_size: int = 1,
        num_workers: int = 0,
    ) -> None:
        self.rows = rows
        self.collate = collate
        self.batch_size = batch_size
        self.order = order
        self.training = training
        self.rank = rank
        self.world_size = world_size
        self.num_workers = num_workers
        self.epoch = 0
        self._yielded = 0
        self._resume = 0
        if training:
            self.sampler = self  # Lightning calls sampler.set_epoch
        # An epoch, and its order.
        self._known: tuple[int, Sequence[int] | NDArray[np.int64]] = (0, order(0))
        whole, rest = divmod(len(self._known[1]), batch_size * world_size)
        self._length = whole + (rest > 0 and not (training and whole))

    def __len__(self) -> int:
        """Batches of an epoch, the same on every rank."""
        return self._length

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; a new one starts from its beginning."""
        if epoch != self.epoch:
            self.epoch, self._resume = epoch, 0

    def batches(self, epoch: int) -> RankBatches:
        """Row numbers of this rank's batches; -1 is a blank row."""
        if self._known[0] != epoch:
            self._known = (epoch, ())  # not two of them at once: they are large
            self._known = (epoch, self.order(epoch))
        order = self._known[1]
        return RankBatches(order, len(self), self.batch_size, self.rank, self.world_size)

    def ids(self, epoch: int, batch: int) -> list[str]:
        """Ids of the documents of one of this rank's batches."""
        rows = [self.rows[number] for number in self.batches(epoch)[batch] if number >= 0]
        return [row.id for row in rows if isinstance(row, LanguageRow)]

    def __iter__(self) -> Iterator[Any]:
        """Batches of the epoch from where it was left."""
        start, self._resume = self._resume, 0
        self._yielded = start
        # the generator keeps DataLoader from drawing its base seed from the global one
        loader = DataLoader(
            _Rows(self.rows),
            batch_sampler=self.batches(self.epoch).behind(start),
            collate_fn=self.collate,
            num_workers=self.num_workers,
            generator=torch.Generator().manual_seed(0),
        )
        for batch in loader:
            self._yielded += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Where we stand: batches handed out, so prefetching workers do not count."""
        return {"epoch": self.epoch, "yielded": self._yielded}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on behind the last batch handed out; after the last one, with the next epoch."""
        full = state["yielded"] >= len(self)
        self.epoch = state["epoch"] + int(full)
        self._resume = 0 if full else state["yielded"]
