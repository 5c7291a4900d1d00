"""Rows of files into the cache: a reader, workers, and a writer that keeps the order."""

from __future__ import annotations

import gc
import json
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_only

from instructgpt.data.cache import DIGESTS, stored
from instructgpt.data.digest import file_digest, file_state
from instructgpt.data.futures_private import end_broken
from instructgpt.data.opening import Item
from instructgpt.data.progress import Progress
from instructgpt.data.records import Part, Recipe
from instructgpt.data.sources import HubRows, Source, raw_items
from instructgpt.data.store import ROWS_FILE, SUMMARY_FILE, Store
from instructgpt.data.summary import Summary
from instructgpt.data.workers import cores, pool_of
from instructgpt.terminal import duration, note
from instructgpt.types import UserError

BATCH_ITEMS, BATCH_BYTES = 1000, 2**20
"""A worker gets so many items at once, or those of so many bytes if they are fewer."""

ALONE = 2**25
"""Smaller inputs are prepared in this process: to start workers takes a while (bytes)."""

END = b"\xff\xff\xff\xff\x00\x00\x00\x00"
"""How an Arrow stream ends."""


def prepared(sources: list[Source], recipe: Recipe, root: Path, num_proc: int | None) -> Store:
    """The rows of some sources, from the cache if they are there.

    Args:
        sources: to read.
        recipe: what is made of the rows.
        root: of the cache.
        num_proc: processes that read and tokenise; None: as many as there are cores, where it is
            worth it.
    """
    facts, own = _facts(sources, root / DIGESTS), recipe.facts()
    name = ", ".join(_name(one) for one in sources[:1]) + (", …" if len(sources) > 1 else "")

    written = False

    def write(folder: Path) -> None:
        nonlocal written
        written = True
        before = _states(sources)
        _write(folder, sources, recipe, num_proc or _processes(sources), name)
        if _states(sources) != before:
            raise UserError(f"{name}: must stay as it is while it is read, got changes")

    if facts is None or own is None:
        why = "the code or the options of its --data.format" if own is None else "what it holds"
        note(f"{name} is prepared for this run only, not kept: nobody can name {why}")
        return Store(stored(root, None, name, write))
    store = Store(stored(root, {"sources": facts, **own}, name, write))
    if not written:
        rows = f"{len(store):,} rows of {name}"
        since = duration(time.time() - (store.folder / ROWS_FILE).stat().st_mtime)
        rank_zero_only(note)(f"{rows} are from the cache, made {since} ago: {store.folder}")
    return store


def _name(source: Source) -> str:
    return source.name if isinstance(source, HubRows) else str(source)


def _facts(sources: list[Source], known: Path) -> list[list[str]] | None:
    """Names and contents of the sources; None where one lies in no file."""
    found = []
    for one in sources:
        files = [one] if isinstance(one, Path) else _files(one)
        if not files:
            return None
        found.append([_name(one), *(file_digest(file, known) for file in files)])
    return found


def _files(hub: HubRows) -> list[Path]:
    return [Path(one["filename"]) for one in getattr(hub.rows, "cache_files", [])]


def _all_files(sources: list[Source]) -> Iterator[Path]:
    for one in sources:
        for path in [one] if isinstance(one, Path) else _files(one):
            yield from sorted(path.iterdir()) if path.is_dir() else [path]


def _states(sources: list[Source]) -> list[list[int]]:
    return [file_state(path) for path in _all_files(sources)]


def _processes(sources: list[Source]) -> int:
    size = sum(state[0] for state in _states(sources))
    if size <= ALONE:
        return 1
    return cores()


def _write(folder: Path, sources: list[Source], recipe: Recipe, num_proc: int, name: str) -> None:
    summary = Summary()
    size = sum(state[0] for state in _states(sources))
    items = raw_items(sources, summary.note)
    with (
        (folder / ROWS_FILE).open("wb") as file,
        Progress(f"preparing {Path(name).name}", size) as progress,
        _mapped(recipe, num_proc) as record,
    ):
        file.write(recipe.schema.serialize().to_pybytes())
        for part, read in record(_batches(items)):
            file.write(part.message)
            summary.merge(Summary.from_json(part.summary))
            progress.add(part.rows, read)
        file.write(END)
    text = json.dumps(summary.to_json())
    (folder / SUMMARY_FILE).write_text(text, encoding="utf-8")


def _batches(items: Iterable[Item]) -> Iterator[tuple[list[Item], int]]:
    """Items for a worker, and their bytes; what stops the reader comes behind what it has read."""
    batch: list[Item] = []
    size = 0
    for item in items:
        batch.append(item)
        size += item.size
        if len(batch) >= BATCH_ITEMS or size >= BATCH_BYTES:
            yield batch, size
            batch, size = [], 0
    if batch:
        yield batch, size


Batches = Iterable[tuple[list[Item], int]]
Mapped = Callable[[Batches], Iterator[tuple[Part, int]]]


@contextmanager
def _mapped(recipe: Recipe, num_proc: int) -> Iterator[Mapped]:
    """What makes records of batches, in order: this process, or so many others."""
    if num_proc == 1:
        yield lambda batches: ((recipe.record(items), size) for items, size in batches)
        return
    pool = pool_of(num_proc, _begin, recipe)
    try:
        yield lambda batches: _in_order(pool, batches, 2 * num_proc + 1)
    except BrokenProcessPool:
        end_broken(pool)
        raise UserError(
            "data: a process that prepares rows was killed, perhaps for want of memory: "
            "give fewer with --data.num_proc"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _in_order(
    pool: ProcessPoolExecutor, batches: Batches, ahead: int
) -> Iterator[tuple[Part, int]]:
    waiting: deque[tuple[Future[Part | str], int]] = deque()
    problem: Exception | None = None
    source = iter(batches)
    while True:
        while problem is None and len(waiting) < ahead:
            try:
                items, size = next(source)
            except StopIteration:
                break
            except Exception as error:  # a bad row before it comes first
                problem = error
                break
            waiting.append((pool.submit(_record, items), size))
        if not waiting:
            break
        future, size = waiting.popleft()
        part = future.result()
        if isinstance(part, str):
            raise UserError(part)
        yield part, size
    if problem is not None:
        raise problem


_recipe: Recipe  # of a worker


def _begin(recipe: Recipe) -> None:
    """Get a worker ready."""
    global _recipe
    _recipe = recipe
    gc.freeze()  # rows are many small objects without cycles: looking for some took a quarter
    gc.set_threshold(100_000)


def _record(items: list[Item]) -> Part | str:
    """Records, or what is wrong with a row: not every error finds its way between processes."""
    try:
        return _recipe.record(items)
    except UserError as error:
        return str(error)
