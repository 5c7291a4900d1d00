"""OpenAssistant: trees of messages, in which the replies to one message are ranked."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from instructgpt.data.checks import name_of, read_json
from instructgpt.data.columns import Columns
from instructgpt.data.conversation import Wanted
from instructgpt.data.errors import bad
from instructgpt.data.row_format import KnownFormat, Made, Without
from instructgpt.data.turns import Turns

ROLES = {"prompter": "user", "assistant": "assistant"}
READY = "ready_for_export"

NOT_ACCEPTED = "of trees with messages that are deleted, or not accepted by a review: left out"
UNRANKED = "with replies that have no rank: these are left out"


class Prompted(NamedTuple):
    """A message of a prompter, with the replies to it."""

    turns: Turns
    message: Mapping[str, Any]
    replies: list[Mapping[str, Any]]
    after_best: bool  # whether all replies before it are the best ones

    def best(self) -> Mapping[str, Any] | None:
        """The reply of the best rank, or the only one."""
        ranked = [reply for reply in self.replies if reply.get("rank") is not None]
        if ranked:
            return min(ranked, key=lambda reply: int(reply["rank"]))
        return self.replies[0] if len(self.replies) == 1 else None


class Tree(NamedTuple):
    """A tree of messages."""

    path: str  # of its first message in the row
    message: Any
    name: str


class Trees(KnownFormat):
    """Rows that are trees.

    Each message of a prompter with two or more ranked replies is a comparison. Demonstrations are
    the best replies to messages that follow best replies only.
    """

    @abstractmethod
    def tree(self, row: Columns) -> Tree:
        """The tree of a row."""

    def convert(self, row: Columns) -> Made:
        """Its comparisons."""
        return _rows(row, self.tree(row), "comparison")

    def rows(self, row: Columns, wanted: Wanted) -> Made | Without:
        """Its rows for one use."""
        state = row.row.get("tree_state")
        if state not in (None, READY):
            return Without(f"of a tree in the state {state}")
        needed = {"prompt": "message of a prompter", "demonstration": "best reply"}
        lacking = needed.get(wanted, "message with two ranked replies")
        return _rows(row, self.tree(row), wanted) or Without(f"of a tree without a {lacking}")


class OpenAssistant(Trees):
    """Rows ``{"message_tree_id", "prompt": {"text", "role", "replies": […]}}``."""

    name, title = "open_assistant", "OpenAssistant tree"
    needs, may_be_empty = ("message_tree_id", "prompt"), True

    def recognises(self, row: Mapping[str, Any]) -> str:
        """By a prompt that is a message with replies."""
        prompt = read_json(row["prompt"])
        return "prompt.replies" if isinstance(prompt, dict) and "replies" in prompt else ""

    def tree(self, row: Columns) -> Tree:
        """The tree of a row."""
        name = row.take("message_tree_id", "user, so that a tree stays in one split")
        return Tree("prompt", read_json(row.take("prompt", "conversation")), name_of(name))


class OpenAssistantReplies(Trees):
    """Rows ``{"message_id", "text", "role", "replies": […]}``: the first message of a tree."""

    name, title = "open_assistant_replies", "OpenAssistant replies"
    needs = ("message_id", "text", "role", "replies")

    def tree(self, row: Columns) -> Tree:
        """The tree of a row."""
        for key in ("text", "role", "replies", "lang", "deleted", "review_result"):
            if key in row.row:
                row.take(key, "conversation")
        name = row.take("message_id", "user, so that a tree stays in one split")
        return Tree("", row.row, str(name))


def _rows(row: Columns, tree: Tree, wanted: Wanted) -> list[dict[str, Any]]:
    asked = list(_walk(row, tree.path, tree.message, [], True))
    if wanted == "prompt":
        return [_row(one, tree.name) for one in asked]
    if wanted == "demonstration":
        answers = [(one, one.best()) for one in asked if one.after_best]
        return [{**_row(one, tree.name), "response": best["text"]} for one, best in answers if best]
    made = [_row(one, tree.name) | _compared(row, one) for one in asked]
    return [one for one in made if len(one["responses"]) > 1]


def _row(asked: Prompted, tree: str) -> dict[str, Any]:
    lang = asked.message.get("lang")
    about = {"id": asked.message.get("message_id"), "user": tree}
    return {"messages": asked.turns, **about, **({"lang": lang} if lang else {})}


def _compared(row: Columns, asked: Prompted) -> dict[str, Any]:
    ranked = [reply for reply in asked.replies if reply.get("rank") is not None]
    if 1 < len(ranked) < len(asked.replies) and UNRANKED not in row.notes:
        row.notes.append(UNRANKED)
    return {
        "responses": [reply["text"] for reply in ranked],
        "ranking": [int(reply["rank"]) + 1 for reply in ranked],
    }


def _walk(
    row: Columns, path: str, message: Any, before: Turns, after_best: bool
) -> Iterator[Prompted]:
    """The messages of prompters in a tree, each with what was said before it.

    Args:
        row: for messages, and told what is left out.
        path: of the message in the row.
        message: with its replies.
        before: turns before it.
        after_best: whether all of these are best replies.
    """
    role = _check(row, path, message)
    if not _is_accepted(message):
        if NOT_ACCEPTED not in row.notes:
            row.notes.append(NOT_ACCEPTED)
        return
    turns = [*before, {"role": ROLES[role], "content": message["text"]}]
    replies = message.get("replies") or []
    if not isinstance(replies, list):
        raise bad(row.where, f"{path}.replies".strip("."), "must be a list of messages", replies)
    places = [f"{path}.replies[{i}]".strip(".") for i in range(len(replies))]
    for place, reply in zip(places, replies, strict=True):
        if _check(row, place, reply) == role:
            raise bad(row.where, f"{place}.role", "must not be that of the message before", role)
    best: Mapping[str, Any] | None = None
    if role == "prompter":
        kept = [reply for reply in replies if _is_accepted(reply)]
        asked = Prompted(turns, message, kept, after_best)
        best = asked.best()
        yield asked
    for place, reply in zip(places, replies, strict=True):
        best_one = after_best and (role == "assistant" or reply is best)
        yield from _walk(row, place, reply, turns, best_one)


def _check(row: Columns, path: str, message: Any) -> str:
    """The role of a message, which must be one."""
    rule = f'must be a message with a "text", a "role" ({", ".join(ROLES)}) and a "rank"'
    fields = message if isinstance(message, dict) else {}
    rank = fields.get("rank")
    ranked = rank is None or (isinstance(rank, int) and rank >= 0) or _is_whole(rank)
    role = fields.get("role")
    named = isinstance(role, str) and role in ROLES
    if not isinstance(fields.get("text"), str) or not named or not ranked:
        raise bad(row.where, path or "role", rule, message)
    return str(role)


def _is_whole(rank: Any) -> bool:
    """Whether a number is a rank, also where a table with gaps has made it 1.0."""
    return isinstance(rank, float) and rank.is_integer() and rank >= 0


def _is_accepted(message: Mapping[str, Any]) -> bool:
    """Whether a message is not deleted, and a review has not failed or is missing."""
    return not message.get("deleted") and message.get("review_result", True) is True
