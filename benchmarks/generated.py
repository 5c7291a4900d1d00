"""Text and demonstrations of any size from a seed, and a tokenizer for them.

Words are made of syllables and as frequent as Zipf's law says, so that a tokenizer meets common
words again and rare ones seldom, as in real text.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

WORDS = 30_000
VOCABULARY = 16_384
SHARD = 64 * 2**20
"""Bytes of a file, about."""

_SYLLABLES = "ba be bi bo da de di do ga ka ke ki la le li lo ma me mi mo na ne ni no ra re ri ro"
_SYLLABLES += " sa se si so ta te ti to va ve al an ar el en er in is on or un st th ing ed ly ous"
_ENDS = [" ", ", ", ". ", ".\n\n"]
_END_SHARES = [0.85, 0.06, 0.08, 0.01]


class Writer:
    """Draws texts.

    Args:
        seed: of the words, their frequencies and the texts.
    """

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        syllables = np.array(_SYLLABLES.split())
        counts = self.rng.integers(1, 5, WORDS)
        words = ["".join(self.rng.choice(syllables, count)) for count in counts]
        words = [str(i) if i % 40 == 39 else word for i, word in enumerate(words)]
        self.pieces = [word + end for word in words for end in _ENDS]
        chances = 1 / (np.arange(WORDS) + 2.7)
        self.bounds = np.cumsum(chances / chances.sum())

    def texts(self, typical: int, longest: int, count: int) -> list[str]:
        """Some texts.

        Args:
            typical: words of the median text.
            longest: words at most.
            count: of texts.
        """
        lengths = np.exp(self.rng.normal(np.log(typical), 0.8, count)).astype(int)
        lengths = lengths.clip(1, longest)
        words = np.searchsorted(self.bounds, self.rng.random(lengths.sum())).clip(0, WORDS - 1)
        ends = self.rng.choice(len(_ENDS), lengths.sum(), p=_END_SHARES)
        chosen = [self.pieces[i] for i in (words * len(_ENDS) + ends).tolist()]
        stops = np.cumsum(lengths).tolist()
        starts = [0, *stops[:-1]]
        return ["".join(chosen[a:b]).strip() for a, b in zip(starts, stops, strict=True)]


def write_text(folder: Path, size: int, seed: int) -> None:
    """Documents of about so many bytes in all, in files of ``SHARD`` bytes.

    Args:
        folder: new.
        size: bytes.
        seed: of the text.
    """
    writer = Writer(seed)

    def rows() -> Iterator[str]:
        written = 0
        while written < size:
            for text in writer.texts(400, 8000, 256):
                line = json.dumps({"text": text})
                written += len(line) + 1
                yield line
                if written >= size:
                    return

    _write(folder, rows())


def write_demonstrations(folder: Path, count: int, seed: int) -> None:
    """So many demonstrations, in files of ``SHARD`` bytes.

    Args:
        folder: new.
        count: of rows.
        seed: of the text.
    """
    writer = Writer(seed)

    def rows() -> Iterator[str]:
        for start in range(0, count, 4096):
            some = min(4096, count - start)
            pairs = zip(writer.texts(16, 300, some), writer.texts(32, 300, some), strict=True)
            for number, (prompt, response) in enumerate(pairs, start):
                yield json.dumps({"id": number, "prompt": prompt, "response": response})

    _write(folder, rows())


def make_tokenizer(folder: Path, seed: int) -> None:
    """A byte-level BPE of such words.

    Args:
        folder: to save it in.
        seed: of the text.
    """
    from instructgpt.models.tokenizer import BPE, train_bpe

    texts = Writer(seed).texts(400, 8000, 1500)
    train_bpe(texts, BPE(vocab_size=VOCABULARY)).save_pretrained(folder)


def _write(folder: Path, rows: Iterator[str]) -> None:
    folder.mkdir(parents=True)
    number, left, file = 0, 0, None
    for row in rows:
        if left <= 0:
            if file:
                file.close()
            file = (folder / f"part-{number:04}.jsonl").open("w", encoding="utf-8")
            number, left = number + 1, SHARD
        assert file is not None
        file.write(row + "\n")
        left -= len(row) + 1
    if file:
        file.close()
