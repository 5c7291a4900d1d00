"""Rows of a user's own kind: one method makes each a row of a public format."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from instructgpt.data.checks import object_of
from instructgpt.data.errors import shorten
from instructgpt.data.formats import Parsed, Parser
from instructgpt.data.opening import Item
from instructgpt.types import UserError, failed


class RowFormat(ABC):
    """A format of rows; a subclass says in ``convert`` how a row is written in a public format.

    Its class path is the option: ``--data.format my_module.MyFormat``, and what ``__init__`` takes
    are options behind it: ``--data.format.KEY VALUE``. A row that it cannot convert is a bad row.
    """

    @abstractmethod
    def convert(self, row: dict[str, Any]) -> dict[str, Any]:
        """The row in a public format, which is then checked and counted as any other.

        That is ``{"prompt", "response"}``, ``{"prompt", "responses", "ranking"}``, ``{"prompt"}``
        or ``{"text"}``; ``messages``, ``id``, ``user``, ``labeler`` and ``source`` mean what they
        always do.

        Args:
            row: as it was read.

        Raises:
            UserError: what is wrong with the row; file and line are put in front of it.
        """

    def parse(self, parse: Parser, item: Item) -> Parsed:
        """Convert a row and check it.

        Args:
            parse: checks rows of public formats.
            item: a row as read.
        """
        name = f"--data.format {type(self).__name__}"
        row = object_of(item)
        try:
            converted: Any = self.convert(row)
        except UserError as error:
            raise UserError(f"{item.where}: {error} ({name})") from error
        except Exception as error:  # the user's code
            raise failed(f"{item.where}: {name} failed", error) from error
        if not isinstance(converted, dict):
            raise UserError(f"{item.where}: {name} must return a row, got {shorten(converted)}")
        try:
            parsed = parse(item._replace(value=converted))
        except UserError as error:
            raise UserError(f"{error} (in the row that {name} returned)") from error
        return parsed._replace(format=f"{type(self).__name__}, {parsed.format}")
