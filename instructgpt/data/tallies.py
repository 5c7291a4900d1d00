"""Counts that many processes make of parts of the data, whatever the cut, in bounded memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, Protocol, Self, TypeVar

from instructgpt.types import Diagnosis

LISTED = 3
"""How many places a line of the summary names."""

EXACT = 8192
"""Lengths up to this many tokens are counted one by one, greater ones to 1 part in 4096."""

QUANTILES = (5, 25, 50, 75, 95, 100)

LOUD = 0.05
"""Where a limit cuts a greater share than this, a warning says which one would not."""

CUT = {
    "lose their beginning": ("prompts_cut", "what was asked there is not seen"),
    "are left out": ("prompts_cut", "nothing is learned from them"),
    "lose their end and EOS": ("responses_cut", "nobody learns from them where a response ends"),
}
"""By what happens to texts beyond their limit: the name of what is found, and why it matters."""


class Mergeable(Protocol):
    """What two parts have counted is one."""

    def merge(self, other: Self) -> None:
        """Take in what the part behind has counted."""


V = TypeVar("V", bound=Mergeable)


class Limit(NamedTuple):
    """How many tokens a text may have."""

    texts: str  # what they are called
    loss: str  # what happens to longer ones: a key of ``CUT``
    option: str
    tokens: int


@dataclass
class Count:
    """How often something happened."""

    count: int = 0

    def merge(self, other: Count) -> None:
        """Take in what the part behind has counted."""
        self.count += other.count


@dataclass
class First:
    """A line that is told once."""

    line: str = ""

    def merge(self, other: First) -> None:
        """Keep the first."""
        self.line = self.line or other.line


@dataclass
class Noted:
    """How often something happened, and where first."""

    count: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, where: str) -> None:
        """Count one."""
        self.count += 1
        self._name(where)

    def merge(self, other: Noted) -> None:
        """Take in what the part behind has counted."""
        self.count += other.count
        for where in other.first:
            self._name(where)

    def places(self) -> str:
        """The first places; one in the same file is named by its line."""
        shown, last = [], ""
        for where in self.first:
            file, colon, line = where.rpartition(":")
            shown.append(f"{colon}{line}" if file and file == last else where)
            last = file
        return ", ".join(shown)

    def _name(self, where: str) -> None:
        if len(self.first) < LISTED and where not in self.first:
            self.first.append(where)


class Named(Generic[V]):
    """What was counted by name, in the order of the names' first appearance.

    Of more names than there is room for, the smallest in the order of texts stay: they are the
    same however the data are cut, which the first to appear would not be.

    Args:
        make: what is counted of a name.
        room: names there may be.
    """

    def __init__(self, make: Callable[[], V], room: int) -> None:
        self.make, self.room = make, room
        self.found: dict[str, V] = {}
        self.total = 0  # how often any was counted
        self.full = False  # there are more names
        self._last = ""  # the greatest of those found, once there is no more room

    def at(self, name: str) -> V:
        """Count a name once: what is known of it, to be added to."""
        self.total += 1
        value = self.found.get(name)
        return self._make_room(name) if value is None else value

    def _make_room(self, name: str) -> V:
        value = self.make()
        if len(self.found) >= self.room:
            self.full = True
            self._last = self._last or max(self.found)
            if name > self._last:
                return value  # thrown away
            del self.found[self._last]
            self._last = ""
        self.found[name] = value
        return value

    def merge(self, other: Named[V]) -> None:
        """Take in what the part behind has counted."""
        for name, value in other.found.items():
            known = self.found.get(name)
            (self._make_room(name) if known is None else known).merge(value)
        self.total += other.total
        self.full = self.full or other.full

    def items(self) -> Iterable[tuple[str, V]]:
        """Names with what was counted of them."""
        return self.found.items()

    def values(self) -> Iterable[V]:
        """What was counted."""
        return self.found.values()

    def __iter__(self) -> Iterator[str]:
        """The names."""
        return iter(self.found)

    def __len__(self) -> int:
        """How many names there are, as far as there was room."""
        return len(self.found)

    def more(self, shown: int) -> str:
        """How many names there are beside so many that are shown, in words; "" if none."""
        rest = f"{len(self) - shown:,}"
        return f"more than {rest}" if self.full else rest if rest != "0" else ""

    def to_json(self, write: Callable[[V], Any]) -> dict[str, Any]:
        """All of it in types of JSON.

        Args:
            write: makes such types of what was counted of a name.
        """
        found = {name: write(value) for name, value in self.found.items()}
        return {"found": found, "total": self.total, "full": self.full}

    def fill(self, found: Mapping[str, Any], read: Callable[[Any], V]) -> Self:
        """Itself with what ``to_json`` has written.

        Args:
            found: as written.
            read: undoes ``write``.
        """
        self.found = {name: read(value) for name, value in found["found"].items()}
        self.total, self.full = found["total"], found["full"]
        return self


class Lengths:
    """How many texts have how many tokens.

    Args:
        limit: of these texts, if there is one.
    """

    def __init__(self, limit: Limit | None = None) -> None:
        self.limit = limit
        self.longer = 0  # texts that their limit cuts
        self.most = 0
        self.counts: Counter[int] = Counter()

    def add(self, tokens: int, limit: Limit | None = None) -> None:
        """Count a text, of which there may be so many tokens."""
        self.counts[_rounded(tokens)] += 1
        self.most = max(self.most, tokens)
        if limit is not None:
            self.limit = limit
            self.longer += tokens > limit.tokens

    def merge(self, other: Lengths) -> None:
        """Take in what the part behind has counted."""
        self.counts.update(other.counts)
        self.most = max(self.most, other.most)
        self.limit = other.limit or self.limit
        self.longer += other.longer

    @property
    def count(self) -> int:
        """How many texts there are."""
        return self.counts.total()

    def nearest_rank(self, *percents: int) -> list[int]:
        """The smallest lengths that so many percent do not exceed, for rising percents."""
        found: list[int] = []
        seen, wanted = 0, [max(1, -(-percent * self.count // 100)) for percent in percents]
        for tokens in sorted(self.counts):
            seen += self.counts[tokens]
            while len(found) < len(wanted) and wanted[len(found)] <= seen:
                found.append(min(tokens, self.most))
        return found

    def quantiles(self) -> str:
        """Nearest-rank quantiles.

        >>> lengths = Lengths()
        >>> for tokens in range(1, 101):
        ...     lengths.add(tokens)
        >>> lengths.quantiles()
        '5% 5 · 25% 25 · 50% 50 · 75% 75 · 95% 95 · max 100'
        """
        names = [f"{percent}%" for percent in QUANTILES[:-1]] + ["max"]
        shown = self.nearest_rank(*QUANTILES)
        return " · ".join(f"{name} {value:,}" for name, value in zip(names, shown, strict=True))

    def finding(self) -> Diagnosis | None:
        """What a limit does that cuts more than a few texts.

        >>> lengths = Lengths()
        >>> for tokens in (6, 7, 8, 9, 12):
        ...     lengths.add(tokens, Limit("prompts", "lose their beginning", "--max", 8))
        >>> found = lengths.finding()
        >>> found.what, found.remedy
        ('2 of 5 prompts (40 %) lose their beginning', '--max 12 would keep all')
        """
        limit, count = self.limit, self.count
        if limit is None or self.longer <= LOUD * count:
            return None
        share = f"{self.longer / count:.0%}".replace("%", " %")
        (usual,) = self.nearest_rank(95)
        less = f", {usual} 95 % of them" if usual < self.most else ""
        name, why = CUT[limit.loss]
        what = f"{self.longer:,} of {count:,} {limit.texts} ({share}) {limit.loss}"
        return Diagnosis(name, what, why, f"{limit.option} {self.most} would keep all{less}")

    def to_json(self) -> dict[str, Any]:
        """All of it in types of JSON."""
        return {**vars(self), "counts": sorted(self.counts.items())}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Lengths:
        """What ``to_json`` has written."""
        lengths = cls(None if found["limit"] is None else Limit(*found["limit"]))
        lengths.longer, lengths.most = found["longer"], found["most"]
        lengths.counts = Counter(dict(found["counts"]))
        return lengths


def _rounded(tokens: int) -> int:
    """A length, or from ``EXACT`` on the greatest that counts as the same."""
    if tokens < EXACT:
        return tokens
    shift = tokens.bit_length() - EXACT.bit_length() + 1
    return ((tokens >> shift) + 1 << shift) - 1
