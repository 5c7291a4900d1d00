"""A row as the readers of formats get it, and what they refuse it for."""

import pytest

from instructgpt.data.opening import Item
from instructgpt.types import UserError


def item(value):
    return Item("dir/a.jsonl:7", "dir/a.jsonl.gz", value)


def refused(parse, value):
    with pytest.raises(UserError) as caught:
        parse(item(value))
    return str(caught.value)
