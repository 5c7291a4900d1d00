"""Rows of a file that belong together become one item: messages of a tree, rated responses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain, groupby
from typing import Any

from instructgpt.data.errors import bad, shorten
from instructgpt.data.json_rows import decoded
from instructgpt.data.opening import Item
from instructgpt.types import UserError

MESSAGE = {"message_id", "parent_id", "text", "role", "message_tree_id"}
"""Columns of a message that stands alone; with ``replies`` it is a tree already."""

USED = {*MESSAGE, "rank", "lang", "deleted", "review_result", "tree_state"}
"""Columns of a message that mean something here."""

RATED = {"prompt", "response", "helpfulness", "correctness", "coherence"}
"""Columns of one rated response; those to one prompt follow one another."""

LIMIT = 10_000
"""More messages than that are no tree (the largest of OpenAssistant has about 100)."""


def with_trees(items: Iterable[Item], tell: Callable[[str], None]) -> Iterator[Item]:
    """Rows of a file; those that belong together are one.

    Messages, as in the tables of OpenAssistant, become trees; the rated responses of HelpSteer to
    one prompt become a row whose columns are lists.

    Args:
        items: of one file, as read; lines of JSON may be bytes.
        tell: told that it was so.
    """
    rest = iter(items)
    first = next(rest, None)
    if first is None:
        return
    value = decoded(first).value
    if _is_message(value):
        others = ", ".join(sorted(value.keys() - USED))
        unused = f" (columns that are not used: {others})" if others else ""
        tell(f"{first.origin}: messages that follow one another are put together as trees{unused}")
        yield from _trees(chain([first], rest))
    elif isinstance(value, dict) and value.keys() >= RATED:
        tell(f"{first.origin}: responses to one prompt that follow one another are one row")
        for _, group in groupby(map(decoded, chain([first], rest)), _prompt):
            yield _together([*group])
    else:
        yield first
        yield from rest


def _prompt(item: Item) -> str:
    """What rated responses have in common; the place of rows that are none."""
    value = item.value
    prompt = value["prompt"] if isinstance(value, dict) and value.keys() >= RATED else None
    return f"prompt {prompt}" if isinstance(prompt, str) and prompt.strip() else item.where


def _together(items: list[Item]) -> Item:
    """One row of rated responses: a column that differs, or rates, is a list."""
    first, *others = items
    if not others:
        return first
    values = {key: [item.value.get(key) for item in items] for key in first.value}
    for key, given in values.items():
        if key == "prompt" or (key not in RATED and given.count(given[0]) == len(given)):
            first.value[key] = given[0]
        else:
            first.value[key] = given
    return first


def _trees(items: Iterator[Item]) -> Iterator[Item]:
    tree: list[Item] = []
    done: set[int] = set()  # of short digests: there may be millions of trees
    for item in items:
        message = decoded(item)
        if not _is_message(message.value):
            problem = f"{item.where}: must be a message as those before"
            wrong = isinstance(message.value, UserError)
            yield message if wrong else item._replace(value=UserError(problem))
            continue
        name = message.value["message_tree_id"]
        if tree and (name != tree[0].value["message_tree_id"] or len(tree) == LIMIT):
            yield _tree(tree)
            tree = []
        if not tree:
            if hash(str(name)) in done:
                rule = "must be that of messages that follow one another (sort the file by it)"
                yield item._replace(value=bad(item.where, "message_tree_id", rule, name))
                continue
            done.add(hash(str(name)))
        tree.append(message)
    if tree:
        yield _tree(tree)


def _tree(messages: list[Item]) -> Item:
    """Messages of one tree, each with its replies, or what is wrong with them."""
    first = messages[0]
    nodes = {str(item.value["message_id"]): {**item.value, "replies": []} for item in messages}
    roots = []
    for item in messages:
        node, parent = nodes[str(item.value["message_id"])], item.value["parent_id"]
        if parent is None or parent == "":
            roots.append(node)
        elif str(parent) in nodes:
            nodes[str(parent)]["replies"].append(node)
        else:
            rule = "must be the message_id of a message of the same tree"
            return first._replace(value=bad(item.where, "parent_id", rule, parent))
    if len(roots) != 1 or len(nodes) < len(messages):
        got = f"{len(roots)} without a parent" if len(roots) != 1 else "one message_id twice"
        name = shorten(first.value["message_tree_id"])
        problem = f"{first.where}: the tree {name} must begin with one message, got {got}"
        return first._replace(value=UserError(problem))
    about = {
        key: first.value[key] for key in ("message_tree_id", "tree_state") if key in first.value
    }
    return first._replace(value={**about, "prompt": roots[0]})


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() >= MESSAGE and "replies" not in value
