"""The folder of a preparation while it goes on: shards of rows between one pass and the next.

Everything in it is written whole or not at all, so a preparation that was killed goes on from what
is there. A pass reads the shards of the one before; where a pass ends with rules that look at all
rows, ``decision.npz`` says what they decided.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from instructgpt.hygiene.clean_row import CleanRow
from instructgpt.models.folder import write_bytes

SHARD = 5_000
"""Rows of the input in one shard, whatever the processes."""

RAW = "raw"


@dataclass(frozen=True)
class Work:
    """Names of what lies in the folder.

    Args:
        folder: of the preparation.
    """

    folder: str

    def path(self, *names: str) -> Path:
        """A place in it."""
        return Path(self.folder, *names)

    def shard(self, stage: str, number: int, kind: str = "jsonl") -> Path:
        """A file of a shard of a pass."""
        return self.path(stage, f"{number:05d}.{kind}")

    def write_rows(self, stage: str, number: int, rows: Iterable[CleanRow]) -> None:
        """Write the rows of a shard."""
        lines = "".join(f"{row.dumps()}\n" for row in rows)
        write_bytes(self.shard(stage, number), lines.encode())

    def read_rows(self, stage: str, number: int) -> list[CleanRow]:
        """The rows of a shard."""
        with self.shard(stage, number).open("rb") as file:
            return [CleanRow.loads(line) for line in file]  # type: ignore[arg-type]

    def write_json(self, stage: str, name: str, value: Any) -> None:
        """Write an account."""
        write_bytes(self.path(stage, f"{name}.json"), json.dumps(value).encode())

    def read_json(self, stage: str, name: str) -> Any:
        """An account."""
        return json.loads(self.path(stage, f"{name}.json").read_bytes())

    def write_arrays(self, stage: str, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Write arrays under their names."""
        held = io.BytesIO()
        np.savez(held, allow_pickle=False, **arrays)
        write_bytes(self.path(stage, f"{name}.npz"), held.getvalue())

    def read_arrays(self, stage: str, name: str) -> dict[str, np.ndarray]:
        """All arrays of a file."""
        with np.load(self.path(stage, f"{name}.npz"), allow_pickle=False) as found:
            return dict(found)


class ShardKeys(Mapping[str, np.ndarray]):
    """Keys of the rows that are left, over all shards; one array is in memory at a time.

    Args:
        work: where they lie.
        stage: of the pass.
        shards: how many.
        prefix: of the names of the arrays of a rule.
        left: bool: which rows are left.
    """

    def __init__(self, work: Work, stage: str, shards: int, prefix: str, left: np.ndarray) -> None:
        self.work, self.stage, self.shards = work, stage, shards
        self.prefix, self.left = prefix, left

    def __getitem__(self, name: str) -> np.ndarray:
        """One array of all rows that are left; one of many entries a row lies in a file."""
        key, whole = f"{self.prefix}{name}", np.empty(0)
        begin = written = 0
        for number in range(self.shards):
            path = self.work.path(self.stage, f"{number:05d}.npz")
            with np.load(path, allow_pickle=False) as found:
                if key not in found:  # a shard without rows has none
                    continue
                part = found[key]
            left = part[self.left[begin : begin + len(part)]]
            if not begin:
                whole = self._room(key, (int(self.left.sum()), *part.shape[1:]), part.dtype)
            whole[written : written + len(left)] = left
            begin, written = begin + len(part), written + len(left)
        return whole

    def _room(self, key: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
        if len(shape) == 1:
            return np.empty(shape, dtype)
        return np.lib.format.open_memmap(
            self.work.path(self.stage, f"{key}.npy"), "w+", dtype, shape
        )

    def __iter__(self) -> Iterator[str]:
        """Names of the arrays."""
        names: dict[str, None] = {}
        for number in range(self.shards):
            path = self.work.path(self.stage, f"{number:05d}.npz")
            with np.load(path, allow_pickle=False) as found:
                names |= dict.fromkeys(k for k in found if k.startswith(self.prefix))
        return (name.removeprefix(self.prefix) for name in names)

    def __len__(self) -> int:
        """How many arrays there are."""
        return len(list(iter(self)))
