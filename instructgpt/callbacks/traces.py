"""A run that never begins leaves nothing behind."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

from instructgpt.data.text import DEBUG_TOKENIZER, TOKENIZER

EVENTS = "events.out.tfevents.*"
EMPTY_EVENTS = 200  # bytes; a TensorBoard file that holds nothing but its version


class Traces:
    """What a run makes before it begins: TensorBoard files, a tokenizer, folders.

    Lightning opens its logger before the data is read, so also for a run that never begins.

    Args:
        folder: of the run.
        log_folder: in it.
    """

    def __init__(self, folder: Path, log_folder: str) -> None:
        self.logs = folder / log_folder
        self.tokenizers = [folder / TOKENIZER, folder / f"{TOKENIZER}.partial"]
        self.tokenizers = [path for path in self.tokenizers if not path.exists()]
        self.tokenizers += [folder / DEBUG_TOKENIZER, folder / f"{DEBUG_TOKENIZER}.partial"]
        self.folders = [p for p in (self.logs, folder, *folder.parents) if not p.exists()]
        self.events_before = set(self.logs.glob(EVENTS))

    def remove(self, tokenizer: bool) -> None:
        """Remove empty TensorBoard files and folders that were not there before.

        Args:
            tokenizer: remove the one that was trained, too.
        """
        for path in set(self.logs.glob(EVENTS)) - self.events_before:
            with suppress(FileNotFoundError):  # another rank was quicker
                if path.stat().st_size < EMPTY_EVENTS:
                    path.unlink()
        for path in self.tokenizers if tokenizer else ():
            shutil.rmtree(path, ignore_errors=True)
        for path in self.folders:  # from the inside out
            with suppress(OSError):  # not empty, or gone
                path.rmdir()
