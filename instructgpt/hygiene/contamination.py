"""Training rows that hold what a model is evaluated on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from instructgpt.data.files import read_file
from instructgpt.data.folders import files_of
from instructgpt.data.formats import parse_item
from instructgpt.data.opening import Item
from instructgpt.hygiene.base import RowRule, Verdict
from instructgpt.hygiene.clean_row import CleanRow
from instructgpt.hygiene.words import ngrams, numbers, words
from instructgpt.types import UserError, require

_NONE = np.zeros(0, np.int64)


class Table(NamedTuple):
    """Hashes of evaluation sets, sorted, and the place of the set that each is from."""

    hashes: np.ndarray  # uint64
    sets: np.ndarray  # int64

    def find(self, hashes: np.ndarray) -> np.ndarray:
        """The set of each hash, -1 where it is in none."""
        if not len(self.hashes):
            return np.full(len(hashes), -1)
        places = np.searchsorted(self.hashes, hashes).clip(max=len(self.hashes) - 1)
        return np.where(self.hashes[places] == hashes, self.sets[places], -1)


class Index(NamedTuple):
    """What evaluation sets say."""

    names: tuple[str, ...]  # of the sets
    runs: dict[int, Table]  # length in words -> runs of so many words
    prompts: Table  # shorter prompts, whole


class Match(NamedTuple):
    """The first words of a text that an evaluation set says, too."""

    set: int
    words: str


@dataclass(frozen=True)
class Decontamination(RowRule):
    """Drop rows that share a run of words with an evaluation set.

    A run is 13 words (GPT-3, 2005.14165, appendix C; without capitals and punctuation), in any text
    of the row and of the evaluation set. A shorter evaluation text is looked for whole if it has 8
    words; a prompt of fewer only as the whole prompt of a row.

    Args:
        against: files, folders or patterns of evaluation sets, in any format; all their columns
            that hold text count. Default: none, the rule is off.
        ngram: words of a run.
        shortest: words that an evaluation text must have to be looked for inside of others.
    """

    name: ClassVar[str] = "decontaminate"
    title: ClassVar[str] = "evaluation sets"

    against: list[str] | str | None = None
    ngram: int = 13
    shortest: int = 8

    def check_options(self, kind: str) -> None:
        """Refuse lengths that cannot be, and read the evaluation sets."""
        require(self.ngram >= 1, f"{self.name}.ngram", ">= 1", self.ngram)
        rule = f"from 1 to {self.name}.ngram ({self.ngram})"
        require(1 <= self.shortest <= self.ngram, f"{self.name}.shortest", rule, self.shortest)
        if self.is_on(kind):
            self._index()

    def is_on(self, kind: str) -> bool:
        """Whether there are evaluation sets."""
        return bool(self.against)

    def made_from(self) -> list[str]:
        """Files of the evaluation sets."""
        return [str(path) for path in _files(self._names())]

    def check(self, row: CleanRow) -> Verdict:
        """Drop it if an evaluation set says the same."""
        return self.check_all([row])[0]

    def check_all(self, rows: Sequence[CleanRow]) -> list[Verdict]:
        """Drop those that say what an evaluation set says, with its name and the words."""
        index, matches = self._index(), dict[int, Match]()
        texts = [(place, text) for place, row in enumerate(rows) for text in row.texts]
        said = [words(text, signs=False) for _, text in texts]
        numbered = numbers(said)
        for length, table in index.runs.items():
            flat = ngrams(numbered, length)
            found = table.find(flat.values)
            for hit in np.flatnonzero(found >= 0).tolist():
                text = int(np.searchsorted(flat.starts, hit, side="right")) - 1
                begin = hit - int(flat.starts[text])
                run = " ".join(said[text][begin : begin + length])
                matches.setdefault(texts[text][0], Match(int(found[hit]), run))
        if len(index.prompts.hashes):
            matches = self._whole_prompts(index.prompts, rows) | matches
        return [
            Verdict(None, (f"in {index.names[matches[place].set]}",), f"… {matches[place].words} …")
            if place in matches
            else Verdict(row)
            for place, row in enumerate(rows)
        ]

    def _whole_prompts(self, table: Table, rows: Sequence[CleanRow]) -> dict[int, Match]:
        """Rows whose prompt is a short one of an evaluation set."""
        matches = {}
        for place, row in enumerate(rows):
            if found := _short(row.asked, self.shortest):
                known = int(table.find(found[0])[0])
                if known >= 0:
                    matches[place] = Match(known, " ".join(row.asked.split()))
        return matches

    def _names(self) -> tuple[str, ...]:
        return (self.against,) if isinstance(self.against, str) else tuple(self.against or ())

    def _index(self) -> Index:
        return _read_index(self._names(), self.ngram, self.shortest)


def _short(text: str, shortest: int) -> list[np.ndarray]:
    """The hash of a whole text, if it is too short to be looked for inside of others."""
    said = words(text)
    if not said or len(words(text, signs=False)) >= shortest:
        return []
    return [ngrams(numbers([said]), len(said)).values]


@lru_cache(maxsize=4)
def _read_index(names: tuple[str, ...], ngram: int, shortest: int) -> Index:
    """Read evaluation sets; of their texts only hashes are kept."""
    paths = _files(names)
    runs: dict[int, list[tuple[np.ndarray, int]]] = {}
    whole: list[tuple[np.ndarray, int]] = []
    for place, path in enumerate(paths):
        for item in read_file(path, lambda line: None):
            if isinstance(item.value, UserError):
                raise item.value
            for text in _texts(item.value):
                said = words(text, signs=False)
                if len(said) >= shortest:
                    length = min(len(said), ngram)
                    hashes = ngrams(numbers([said]), length).values
                    runs.setdefault(length, []).append((hashes, place))
            for prompt in _prompts(item):
                whole += [(hashes, place) for hashes in _short(prompt, shortest)]
    stems = tuple(path.name for path in paths)
    longest_first = {length: _table(runs[length]) for length in sorted(runs, reverse=True)}
    return Index(stems, longest_first, _table(whole))


def _files(names: Sequence[str]) -> list[Path]:
    paths: list[Path] = []
    for name in names:
        found = files_of(name, "validation", lambda line: None)
        if found is None:
            raise UserError(f"--decontaminate.against must be files or folders, got {name}")
        paths += found
    return paths


def _table(found: Sequence[tuple[np.ndarray, int]]) -> Table:
    if not found:
        return Table(np.zeros(0, np.uint64), _NONE)
    hashes = np.concatenate([values for values, _ in found])
    sets = np.repeat([place for _, place in found], [len(values) for values, _ in found])
    unique, first = np.unique(hashes, return_index=True)
    return Table(unique, sets[first].astype(np.int64))


def _texts(value: Any) -> Iterator[str]:
    """Every text in a value, at any depth."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from _texts(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _texts(one)


def _prompts(item: Item) -> list[str]:
    """The prompts of a row, if it has a format that is known."""
    with suppress(UserError):
        return [parsed.row.prompt.text for parsed in parse_item(item, "prompt")]
    return []
