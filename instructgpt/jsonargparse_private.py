"""All that we take from the inside of jsonargparse (4.53), and of argparse under it.

``tests/test_private_members.py`` says what breaks when an upgrade removes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def flags(parser: Any) -> Iterator[str]:
    """Yield the long options of a parser and of its verbs.

    To guess what a misspelt one was meant to be; nothing public lists them.

    Args:
        parser: of jsonargparse.
    """
    for action in parser._actions:
        yield from (name.lstrip("-") for name in action.option_strings if name.startswith("--"))
        if isinstance(action.choices, dict):
            for verb in action.choices.values():
                yield from flags(verb)
