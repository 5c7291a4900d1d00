"""Scores of reward models, computed once and kept for later commands in the user's cache."""

from __future__ import annotations

import fcntl
import json
import math
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from instructgpt.modules.cached import MADE_FROM, SCORES, kept_path
from instructgpt.terminal import note

FORMAT = 1
BYTES = 16
"""Of a key: two of a billion answers have the same once in 10^20 such sets."""


def key_of(prompt: Sequence[int], response: Sequence[int]) -> str:
    """Names an answer by all that a reward model reads of it.

    Args:
        prompt: its tokens.
        response: its tokens, with EOS where it has ended.
    """
    digest = blake2b(len(prompt).to_bytes(8, "little"), digest_size=BYTES)
    digest.update(np.array([*prompt, *response], dtype=np.int64).tobytes())
    return digest.hexdigest()


class KeptScores:
    """A file of scores, to which several commands may add at once; texts are not in it.

    Args:
        facts: all that a score depends on, beside the answer.
        about: what it is from, for people who look.
    """

    def __init__(self, facts: Mapping[str, str], about: str) -> None:
        self.path = kept_path(SCORES, {"format": FORMAT, **facts})
        self.about = about

    def read(self) -> dict[str, tuple[float, ...]]:
        """What each answer has got, by its key: the score, and what each of several heads said."""
        found = {}
        with suppress(OSError), self.path.open(encoding="utf-8") as lines:
            for line in lines:
                key, *numbers = _row(line)
                if key:
                    found[str(key)] = tuple(float(one) for one in numbers)
            os.utime(self.path, (time.time(),) * 2)  # when it was used last
        return found

    def add(self, scores: Mapping[str, Sequence[float]]) -> None:
        """Keep some; a cache that cannot be written is no reason to stop.

        Args:
            scores: by the key; what is not finite is not kept.
        """
        fine = {key: row for key, row in scores.items() if all(map(math.isfinite, row))}
        text = "".join(json.dumps([key, *row]) + "\n" for key, row in fine.items())
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                size = file.seek(0, os.SEEK_END)
                if not size:
                    text = json.dumps({MADE_FROM: self.about}) + "\n" + text
                else:
                    file.seek(size - 1)
                    text = text if file.read(1) == b"\n" else "\n" + text  # somebody was killed
                file.write(text.encode())
        except OSError as error:
            note(f"scores are not kept for later commands: {error}")


def about_scores(path: Path) -> str:
    """What scores are from, "" where nobody has written it down.

    Args:
        path: of their file.

    Raises:
        OSError: it cannot be read.
    """
    with path.open(encoding="utf-8") as lines, suppress(ValueError, AttributeError):
        return str(json.loads(lines.readline()).get(MADE_FROM, ""))
    return ""


def _row(line: str) -> list[Any]:
    """Key and numbers of a line; an empty key where it is none."""
    try:
        row = json.loads(line)
    except ValueError:  # half written, by a command that was killed
        return [""]
    numbers = (
        isinstance(row, list) and len(row) > 1 and all(isinstance(one, float) for one in row[1:])
    )
    return row if numbers and isinstance(row[0], str) else [""]
