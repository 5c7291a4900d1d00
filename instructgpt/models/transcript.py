"""Turns as a transcript with a speaker before each, for models that know no chat template."""

from __future__ import annotations

from collections.abc import Sequence


def transcript(turns: Sequence[dict[str, str]]) -> str:
    r"""Turns as in the HH data (Bai et al. 2022, arXiv:2204.05862), up to the response.

    Args:
        turns: of any role: the user is "Human", others are called by their role.

    >>> transcript([{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}])
    '\n\nSystem: Be kind.\n\nHuman: Hi\n\nAssistant:'
    """
    return "".join(f"\n\n{_speaker(turn['role'])}: {turn['content'].strip()}" for turn in turns) + (
        "\n\nAssistant:"
    )


def _speaker(role: str) -> str:
    return "Human" if role == "user" else role.capitalize()
