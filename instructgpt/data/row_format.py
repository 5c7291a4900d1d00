"""Formats of rows: one method makes of a row one or several of a public format."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

from instructgpt.data.columns import Columns, is_empty
from instructgpt.data.conversation import Wanted
from instructgpt.data.errors import shorten
from instructgpt.types import UserError, failed

Made = dict[str, Any] | list[dict[str, Any]]
"""A row of a public format, or several."""


class Without(NamedTuple):
    """There is nothing in a row for what it is read for; why."""

    reason: str


class RowFormat(ABC):
    """A format of rows; a subclass says in ``convert`` how a row is written in a public format.

    Its class path is the option: ``--data.format my_module.MyFormat``, and what ``__init__`` takes
    are options behind it: ``--data.format.KEY VALUE``. A row that it cannot convert is a bad row.
    """

    keeps_others: ClassVar[bool] = False
    """Whether columns that ``convert`` does not read go with the row as they are."""

    @property
    def shown(self) -> str:
        """What messages call it."""
        return f"--data.format {type(self).__name__}"

    @abstractmethod
    def convert(self, row: Any) -> Made:
        """The row in a public format, which is then checked and counted as any other.

        That is ``{"prompt", "response"}``, ``{"prompt", "responses", "ranking"}``, ``{"prompt"}``
        or ``{"text"}``; ``messages``, ``id``, ``user``, ``labeler`` and ``source`` mean what they
        always do. It may be a list of such rows.

        Args:
            row: a mapping of the columns, as they were read; the summary says which were used.

        Raises:
            UserError: what is wrong with the row; file and line are put in front of it.
        """


class KnownFormat(RowFormat):
    """A format that is recognised by its columns.

    A subclass is one file in ``instructgpt/data/known``, which is all it takes to be found. Columns
    that it does not take are treated as in any public row: used, kept as metadata, or refused.
    """

    keeps_others = True
    name: ClassVar[str]
    """What a user types behind ``--data.format``."""
    title: ClassVar[str]
    """What the summary calls it."""
    needs: ClassVar[tuple[str, ...]]
    """Columns without which no row is one of these."""
    may_be_empty: ClassVar[bool] = False
    """Whether these columns may be empty."""

    @property
    def shown(self) -> str:
        """What messages call it."""
        return self.title

    def recognises(self, row: Mapping[str, Any]) -> str:
        """What tells that a row that has the columns is one of these; "" where it is not.

        Args:
            row: with all columns of ``needs``, of which none is empty unless they may be.
        """
        return ", ".join(self.needs)

    def rows(self, row: Columns, wanted: Wanted) -> Made | Without:
        """The rows for one use, where that decides which there are.

        Args:
            row: the columns.
            wanted: what the rows are for.
        """
        return self.convert(row)


class PairFormat(KnownFormat):
    """A format whose ``needs`` begin with a prompt and two responses to it."""

    def convert(self, row: Columns) -> Made:
        """A comparison."""
        made = self.asked(row)
        made["responses"] = [row.text(key, "response") for key in self.needs[1:3]]
        return made | self.judged(row)

    def asked(self, row: Columns) -> dict[str, Any]:
        """The prompt, as a text or as turns.

        Args:
            row: the columns.
        """
        return {"prompt": row.text(self.needs[0], "prompt")}

    @abstractmethod
    def judged(self, row: Columns) -> dict[str, Any]:
        """The ``ranking``, or the ``ratings``.

        Args:
            row: the columns.
        """


def convert(form: RowFormat, columns: Columns, wanted: Wanted) -> list[dict[str, Any]] | Without:
    """Rows of public formats; columns that the format has not taken go with them if it says so.

    Args:
        form: converts.
        columns: of a row; they are told what they are used as.
        wanted: what the rows are for.
    """
    name = form.shown
    try:
        made: Any = (
            form.rows(columns, wanted) if isinstance(form, KnownFormat) else form.convert(columns)
        )
    except UserError as error:
        known = isinstance(form, KnownFormat)  # it names the place itself
        raise error if known else UserError(f"{columns.where}: {error} ({name})") from error
    except Exception as error:  # the user's code
        raise failed(f"{columns.where}: {name} failed", error) from error
    if isinstance(made, Without):
        return made
    rows = made if isinstance(made, list) and made else [made]
    for row in rows:
        if not isinstance(row, dict):
            raise UserError(f"{columns.where}: {name} must return a row, got {shorten(made)}")
    if not form.keeps_others:
        return rows
    others = {key: value for key, value in columns.row.items() if key not in columns.uses}
    for row in rows:
        for key in others.keys() & row.keys():
            if row[key] is not None and not is_empty(others[key]):
                rule = f"must not be there: rows of {name} say it otherwise"
                raise UserError(f'{columns.where}: "{key}" {rule}, got {shorten(others[key])}')
    return [{**others, **row} for row in rows]
