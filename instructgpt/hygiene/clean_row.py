"""The row that rules see, whatever format it was read from."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

Kind = Literal["prompts", "demonstrations", "comparisons", "text"]
"""What rows are for; it decides the public format that they are written in."""

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


class CleanRow(NamedTuple):
    """A checked row; what its kind has no use for is empty."""

    where: str  # file:line it was read from
    kind: Kind
    id: str
    prompt: str  # as written, or as the turns say it
    messages: list[dict[str, Any]]  # turns before the response
    responses: list[str]  # none of prompts, one of demonstrations, K of comparisons
    ranking: list[int]  # of comparisons: one a response, 1 = best, equal = tie
    text: str  # of kind "text"
    user: str
    labeler: str
    source: str
    split: str  # "" until it is known
    meta: dict[str, Any]  # columns that are kept and mean nothing to training

    @property
    def key(self) -> str:
        """The name of the prompt (of text: the text), whatever the white space."""
        if self.kind == "text":
            return " ".join(self.text.split())
        turns = (f"{one.get('role')}: {_words(one.get('content'))}" for one in self.messages)
        return "\n".join(turns)

    @property
    def asked(self) -> str:
        """What the person wrote: all turns but the system's (of text: the text)."""
        if self.kind == "text":
            return self.text
        said = [one.get("content") for one in self.messages if one.get("role") != "system"]
        return "\n\n".join(str(one or "") for one in said)

    @property
    def texts(self) -> list[str]:
        """All texts: the turns and the responses, or the text."""
        if self.kind == "text":
            return [self.text]
        return [str(one.get("content") or "") for one in self.messages] + self.responses

    def map_texts(self, function: Callable[[str], str]) -> CleanRow:
        """The row with a function applied to all its texts; prompt and turns still agree.

        Args:
            function: of one text.
        """
        if self.kind == "text":
            return self._replace(text=function(self.text))
        turns = [
            {**one, "content": function(one["content"])}
            if isinstance(one.get("content"), str)
            else one
            for one in self.messages
        ]
        single = len(turns) == 1 and self.messages[0].get("content") == self.prompt
        prompt = turns[0]["content"] if single else function(self.prompt)
        words = _words(prompt)
        if not all(_words(one.get("content")) in words for one in turns):
            prompt = "\n\n".join(str(one.get("content") or "") for one in turns)
        responses = [function(one) for one in self.responses]
        return self._replace(prompt=prompt, messages=turns, responses=responses)

    def public(self) -> dict[str, Any]:
        """The row in the public format of its kind, with all its metadata."""
        names = {"user": self.user, "labeler": self.labeler, "source": self.source}
        rest = {**self.meta, **{key: value for key, value in names.items() if value}}
        if self.kind == "text":
            return {"id": self.id, "text": self.text, **rest}
        single = [{"role": "user", "content": self.prompt}]
        turns = {} if self.messages == single else {"messages": self.messages}
        row: dict[str, Any] = {"id": self.id, "prompt": self.prompt, **turns}
        if self.kind == "comparisons" and len(self.responses) == 1:  # judged alone, as in KTO
            row |= {"response": self.responses[0], "label": self.ranking == [1]}
        elif self.kind == "comparisons":
            row |= {"responses": self.responses, "ranking": self.ranking}
        elif self.kind == "demonstrations":
            row |= {"response": self.responses[0]}
        return row | rest

    def dumps(self) -> str:
        """The row as one line between two passes; ``loads`` gives it back."""
        return json.dumps(list(self), separators=(",", ":"))

    @classmethod
    def loads(cls, line: str) -> CleanRow:
        """What ``dumps`` has written."""
        return cls(*json.loads(line))


def _words(text: Any) -> str:
    return " ".join(str(text or "").split())


def texts_of(rows: Sequence[CleanRow]) -> list[str]:
    """All texts of some rows, each row's as one."""
    return ["\n\n".join(row.texts) for row in rows]
