"""JSONL that is written row by row, and bears its name only when it is whole."""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from torch import Tensor, nn
from transformers import PreTrainedModel

from instructgpt.callbacks.common import json_lines
from instructgpt.models.digest import weights_digest
from instructgpt.models.folder import PARTIAL, make_folder, sync_file, sync_folder, write_text
from instructgpt.models.transformers_private import config_facts
from instructgpt.terminal import say
from instructgpt.types import UserError

HOW = "the same command goes on there; delete that file to start over"


class UnfinishedRows:
    """Rows as they come, in ``NAME.partial``, which becomes ``NAME`` when the last one is there.

    What the rows depend on stands beside it, in ``NAME.partial.facts``, so that only the same work
    goes on where it was interrupted.

    Args:
        path: where the whole file is to be.
        facts: what the rows depend on, by the name a user knows it by.
    """

    def __init__(self, path: Path, facts: Mapping[str, Any]) -> None:
        self.path = path = path.resolve()  # a link stays one
        self.partial = path.with_name(f"{path.name}{PARTIAL}")
        self.facts_file = path.with_name(f"{self.partial.name}.facts")
        self.facts = {name: str(value) for name, value in facts.items()}
        self.rows = 0
        self._file: BinaryIO | None = None

    def open(self, batch: int) -> int:
        """Start, or go on where an interrupted run of the same work was.

        Args:
            batch: rows that are computed together; one that is not whole is computed again.

        Returns:
            How many rows are there already.

        Raises:
            UserError: it was other work, another process is at it, or it cannot be written.
        """
        with self._writing():
            make_folder(self.path.parent)
            self._file = self.partial.open("a+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise UserError(f"{self.partial} is being written by another process") from None
        if self.partial.stat().st_size:
            self._check_facts()
        else:
            with self._writing():
                write_text(self.facts_file, json.dumps(self.facts, indent=2) + "\n")
        self._file.seek(0)
        lengths = [len(line) for line in _whole_lines(self._file)]
        self.rows = len(lengths) - len(lengths) % batch
        self._file.truncate(sum(lengths[: self.rows]))
        return self.rows

    def add(self, rows: Sequence[dict[str, Any]]) -> None:
        """Write rows, so that they are there whatever happens to this process next."""
        assert self._file is not None
        with self._writing():
            self._file.write(json_lines(rows).encode())
            self._file.flush()
        self.rows += len(rows)

    def finish(self) -> None:
        """Give the file its name: it is whole."""
        assert self._file is not None
        with self._writing():
            sync_file(self._file)
            self.partial.replace(self.path)
            sync_folder(self.path.parent)
        self.facts_file.unlink(missing_ok=True)
        self._file.close()

    def discard(self) -> None:
        """Delete what is there: nobody needs it any more."""
        assert self._file is not None
        self.partial.unlink(missing_ok=True)
        self.facts_file.unlink(missing_ok=True)
        self._file.close()

    def interrupt(self) -> None:
        """Say how to go on; leave nothing where nothing was written."""
        if self.rows and self._file is not None and not self._file.closed:
            say(f"\n{self.rows:,} rows are in {self.partial}: {HOW}", error=True)
        self.leave()

    def leave(self) -> None:
        """Close the file; leave nothing where nothing was written."""
        if self._file is None or self._file.closed:
            return
        if self.rows:
            self._file.close()
        else:
            self.discard()

    def _check_facts(self) -> None:
        """Refuse to go on with other work."""
        assert self._file is not None
        over = f"delete {self.partial} to start over"
        try:
            before = json.loads(self.facts_file.read_text(encoding="utf-8"))
            names = [*self.facts, *(name for name in before if name not in self.facts)]
            changed = [name for name in names if before.get(name) != self.facts.get(name)]
        except (OSError, ValueError, AttributeError):
            self._file.close()
            rule = f"must have {self.facts_file.name} beside it to be gone on with"
            raise UserError(f"{self.partial} {rule}: {over}") from None
        if changed:
            self._file.close()
            name = changed[0]
            raise UserError(
                f"{self.partial} was begun with another {name} ({before.get(name)}), "
                f"got {self.facts.get(name)}: repeat the command it was begun with, or {over}"
            )

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(f"{self.path} must be writable, got: {error.strerror}") from error


def _whole_lines(file: BinaryIO) -> Iterator[bytes]:
    """Lines up to the first that was only half written."""
    for line in file:
        try:
            json.loads(line)
        except ValueError:
            return
        if not line.endswith(b"\n"):
            return
        yield line


def network_hash(network: nn.Module) -> str:
    """Name a network by its weights and configurations, wherever they lie."""
    configs = [config_facts(m.config) for m in network.modules() if isinstance(m, PreTrainedModel)]
    return weights_digest(network, *(repr(sorted(known.items())) for known in configs))


def rows_hash(rows: Sequence[Any]) -> str:
    """Name rows of a data module by all that is in them."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(_plain(row), default=str).encode())
    return digest.hexdigest()[:16]


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.tolist()
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value
