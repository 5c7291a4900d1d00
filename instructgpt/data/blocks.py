"""Plain text into blocks of tokens, as GPT was pretrained."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from instructgpt.data.rows import LanguageRow, joined
from instructgpt.data.views import Picked, Rows
from instructgpt.types import require


class Stream:
    """Documents behind each other, each ended by EOS; tokens are gathered when they are asked for.

    Documents are stored in sections. Where some are left out, what was before them ends there.

    Args:
        parts: sections of documents, in order.
        eos: id that ends each document.
    """

    def __init__(self, parts: Sequence[Picked], eos: int) -> None:
        self.parts, self.eos = parts, eos
        self.ends = np.concatenate([np.zeros(0, bool), *map(_ends, parts)])
        self.first = np.cumsum([0, *(len(part.rows) for part in parts)])  # section of each part
        lengths = [part.store.lists("tokens").lengths[part.rows] for part in parts]
        sizes = np.concatenate([np.zeros(0, np.int64), *lengths]) + self.ends
        self.begins = np.concatenate([[0], np.cumsum(sizes)])  # of sections, and the end of all

    def __len__(self) -> int:
        """How many tokens there are."""
        return int(self.begins[-1])

    def tokens(self, start: int, stop: int) -> np.ndarray:
        """Some of the tokens, int64."""
        found = np.full(stop - start, self.eos)
        section = int(np.searchsorted(self.begins, start, "right")) - 1
        while section < len(self.ends) and (begin := int(self.begins[section])) < stop:
            piece = self._section(section)
            low, high = max(start - begin, 0), min(len(piece), stop - begin)
            if low < high:
                found[begin + low - start : begin + high - start] = piece[low:high]
            section += 1
        return found

    def _section(self, number: int) -> np.ndarray:
        part = int(np.searchsorted(self.first, number, "right")) - 1
        picked = self.parts[part]
        return picked.store.lists("tokens")[int(picked.rows[number - self.first[part]])]

    def documents(self) -> tuple[np.ndarray, np.ndarray]:
        """The first section of each document, and how many tokens it has without EOS."""
        last = np.flatnonzero(self.ends)
        first = np.concatenate([[0], last[:-1] + 1]) if len(last) else last
        return first, self.begins[last + 1] - 1 - self.begins[first]

    def where(self, section: int) -> str:
        """File and line of a section."""
        part = int(np.searchsorted(self.first, section, "right")) - 1
        picked = self.parts[part]
        return picked.store.text("where", int(picked.rows[section - self.first[part]]))

    @property
    def names(self) -> Sequence[np.ndarray]:
        """What names the tokens."""
        return [*(part.names for part in self.parts), self.ends]


class Tokens:
    """Tokens in memory, where a ``Stream`` is in files.

    Args:
        ids: of the tokens, int64.
        eos: id that ends each document.
    """

    def __init__(self, ids: np.ndarray, eos: int) -> None:
        self.ids, self.eos = ids, eos

    def __len__(self) -> int:
        """How many tokens there are."""
        return len(self.ids)

    def tokens(self, start: int, stop: int) -> np.ndarray:
        """Some of the tokens, int64."""
        return self.ids[start:stop]

    @property
    def names(self) -> Sequence[np.ndarray]:
        """The tokens themselves."""
        return [self.ids]


def _ends(part: Picked) -> np.ndarray:
    """Whether a document ends behind a section, or goes on with one that is not there."""
    follows = np.append(np.diff(part.rows) == 1, False)
    return part.numbers("ends") | ~follows


class Blocks(Rows[LanguageRow]):
    """A stream cut into rows; every token is trained.

    Documents of a block see each other, as in GPT. The last block is as long as it happens to be.

    Args:
        stream: documents.
        size: tokens of a row.
        name: what the blocks are for.
    """

    def __init__(self, stream: Stream | Tokens, size: int, name: str) -> None:
        self.stream, self.size, self.name = stream, size, name

    def __len__(self) -> int:
        """How many there are; one of a single token would train nothing."""
        whole, rest = divmod(len(self.stream), self.size)
        return whole + (rest > 1)

    def row(self, place: int) -> LanguageRow:
        """A row, made now."""
        start = place * self.size
        tokens = joined(self.stream.tokens(start, min(start + self.size, len(self.stream))))
        return LanguageRow(tokens, 1, f"{self.name} block {place}")

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each row."""
        starts = np.arange(len(self)) * self.size
        return np.minimum(starts + self.size, len(self.stream)) - starts

    @property
    def targets(self) -> np.ndarray:
        """Trained tokens of each row."""
        return self.lengths - 1

    @property
    def names(self) -> Sequence[np.ndarray]:
        """Of the text, and how it is cut."""
        return [*self.stream.names, np.array([self.size, self.stream.eos])]

    @property
    def told(self) -> str:
        """How many there are, in words."""
        last = int(self.lengths[-1]) if len(self) else self.size
        short = f"; the last one has {last:,}" if last < self.size else ""
        return f"{len(self):,} blocks of {self.size:,} tokens{short}"


def check_block_size(key: str, value: int) -> None:
    """Refuse blocks in which nothing can be predicted."""
    require(value >= 2, f"--data.{key}", ">= 2", value)
