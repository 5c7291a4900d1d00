"""What becomes of the items of a stream: records that are trained on, and rows of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from instructgpt.data.blocks import Blocks, Stream, Tokens
from instructgpt.data.opening import Item
from instructgpt.data.pairs import rankings_of
from instructgpt.data.records import Recipe
from instructgpt.data.split import places
from instructgpt.data.store import Records
from instructgpt.data.stream_loader import Decoded
from instructgpt.data.summary import Summary
from instructgpt.data.views import Picked, Rows
from instructgpt.types import UserError

if TYPE_CHECKING:  # takes a while to load
    import pyarrow


@dataclass(frozen=True)
class Untrained:
    """Which rows never train: a function of what names them, never of their place.

    Args:
        seed: of the hash.
        bound: rows whose party has a lower place are held out.
        keys: prompts or texts of the validation rows.
        by_hash: rows with these keys are held out, too; else they are trained on and counted.
    """

    seed: int = 0
    bound: int = 0
    keys: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint64))
    by_hash: bool = False

    def chosen(self, parties: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """Whether rows may be validation rows."""
        return places(parties, self.seed) < np.uint64(self.bound)

    def trained(self, parties: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """Whether rows are trained on."""
        if not self.by_hash:
            return np.ones(len(parties), bool)
        return ~self.chosen(parties, keys) & ~np.isin(keys, self.keys)


@dataclass(frozen=True)
class Decoder:
    """Makes records of items, in any process.

    Args:
        recipe: what is made of the rows.
        held: those that never train.
    """

    recipe: Recipe
    held: Untrained

    def __call__(self, items: Sequence[Item]) -> Decoded | UserError:
        """Records, and which of them are trained on; or what is wrong with a row."""
        try:
            part = self.recipe.record(items, self.held.trained)
        except UserError as error:  # not every kind of it finds its way between processes
            return UserError(str(error))
        summary = Summary.from_json(part.summary)
        picked = Picked.all(Records.of(self.recipe.schema, [part.message]))
        if self.recipe.wanted in ("comparison", "candidates"):
            decided = rankings_of(picked).decided
            self._count(picked.where(~decided), "all tied", summary.drop)
            picked = picked.where(decided)
        if not self.held.by_hash and len(self.held.keys):
            known = picked.where(np.isin(picked.numbers("key"), self.held.keys))
            what = "warning: trained on, with the prompt or text of a validation row"
            self._count(known, what, lambda what, where: summary.noted.at(what).add(where))
        return Decoded((part.message, picked.rows), summary)

    @staticmethod
    def _count(picked: Picked, what: str, count: Callable[[str, str], None]) -> None:
        for row in picked.rows.tolist():
            count(what, picked.store.text("where", row))


@dataclass(frozen=True)
class RowCut:
    """Each record is a row.

    Args:
        schema: of the records.
        kind: of rows.
    """

    schema: pyarrow.Schema
    kind: Callable[[Picked], Rows[Any]]

    def __call__(self, rows: Any, rest: list[int]) -> tuple[Rows[Any], list[int]]:
        """Rows of records; nothing is left over."""
        message, places = rows
        return self.kind(Picked(Records.of(self.schema, [message]), places)), []


@dataclass(frozen=True)
class BlockCut:
    """Text is cut into blocks, wherever records end.

    Args:
        schema: of the records.
        size: tokens of a block.
        eos: id that ends each document.
    """

    schema: pyarrow.Schema
    size: int
    eos: int

    def __call__(self, rows: Any, rest: list[int]) -> tuple[Rows[Any], list[int]]:
        """Whole blocks, and the tokens behind them."""
        message, places = rows
        text = Stream([Picked(Records.of(self.schema, [message]), places)], self.eos)
        tokens = np.concatenate([np.array(rest, np.int64), text.tokens(0, len(text))])
        whole = len(tokens) // self.size * self.size
        name = f"text behind {text.where(0)}," if len(places) else "text"
        blocks = Blocks(Tokens(tokens[:whole], self.eos), self.size, name)
        return blocks, tokens[whole:].tolist()
