"""A row as the readers of formats get it, and what they refuse it for."""

from functools import partial

import pytest

from instructgpt.data.formats import Parsed, parse_item
from instructgpt.data.opening import Item
from instructgpt.types import UserError


def item(value):
    return Item("dir/a.jsonl:7", "dir/a.jsonl.gz", value)


def refused(parse, value):
    with pytest.raises(UserError) as caught:
        parse(item(value))
    return str(caught.value)


def parse(wanted, item) -> Parsed:
    """The one row that an item gives."""
    (parsed,) = parse_item(item, wanted)
    return parsed


parse_text = partial(parse, "text")
parse_prompt = partial(parse, "prompt")
parse_demonstration = partial(parse, "demonstration")
parse_comparison = partial(parse, "comparison")
parse_candidates = partial(parse, "candidates")
parse_to_score = partial(parse, "responses")
