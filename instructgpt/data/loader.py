"""A loader that knows where it stands, so that a run resumes at the very next batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from instructgpt.data.rows import AnyRow, LanguageRow


class _Rows(Dataset[AnyRow]):
    def __init__(self, rows: Sequence[AnyRow]) -> None:
        self.rows = rows

    def __getitem__(self, index: int) -> AnyRow:
        return self.rows[index] if index >= 0 else self.rows[0].blank()


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
        order: Callable[[int], Sequence[int]],
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
        whole, rest = divmod(len(order(0)), batch_size * world_size)
        self._length = whole + (rest > 0 and not (training and whole))

    def __len__(self) -> int:
        """Batches of an epoch, the same on every rank."""
        return self._length

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; a new one starts from its beginning."""
        if epoch != self.epoch:
            self.epoch, self._resume = epoch, 0

    def batches(self, epoch: int) -> list[list[int]]:
        """Row numbers of this rank's batches; -1 is a blank row."""
        order, size = self.order(epoch), self.batch_size * self.world_size
        batches = []
        for start in range(0, len(self) * size, size):
            rows = list(order[start : start + size])
            share = -(-len(rows) // self.world_size)
            batches.append(rows[self.rank * share : (self.rank + 1) * share] or [-1])
        return batches

    def ids(self, epoch: int, batch: int) -> list[str]:
        """Ids of the documents of one of this rank's batches."""
        rows = [self.rows[number] for number in self.batches(epoch)[batch] if number >= 0]
        return [name for row in rows if isinstance(row, LanguageRow) for name in row.ids]

    def __iter__(self) -> Iterator[Any]:
        """Batches of the epoch from where it was left."""
        start, self._resume = self._resume, 0
        self._yielded = start
        # the generator keeps DataLoader from drawing its base seed from the global one
        loader = DataLoader(
            _Rows(self.rows),
            batch_sampler=self.batches(self.epoch)[start:],
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
