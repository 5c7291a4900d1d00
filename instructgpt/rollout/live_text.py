"""Responses as text while they are drawn."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

from torch import Tensor

from instructgpt.rollout.drawing import Response, Sampling
from instructgpt.rollout.sampler import Texts

BETWEEN = "\n---\n"
"""Between responses to one prompt."""


class LiveText:
    """Writes responses while they are drawn, one after the other.

    Args:
        texts: how responses are written.
        sampling: how they are drawn.
        write: gets every piece of text.
    """

    def __init__(self, texts: Texts, sampling: Sampling, write: Callable[[str], None]) -> None:
        self._texts, self._sampling, self._write = texts, sampling, write
        self._tokens: dict[int, list[int]] = defaultdict(list)
        self._whole: dict[int, tuple[str, bool]] = {}  # responses that have ended
        self._current, self._begun, self._written = 0, False, ""

    def told(self, numbers: Tensor, tokens: Tensor) -> None:
        """Hear of tokens, as ``Told`` says."""
        for number, token in zip(numbers.tolist(), tokens.tolist(), strict=True):
            if token >= 0:
                self._tokens[number].append(token)
        if self._tokens[self._current]:
            self._go_on(self._certain(self._tokens[self._current]))

    def end(self, response: Response) -> None:
        """Hear of a response that has ended.

        Args:
            response: of any number; those before it come first.
        """
        self._whole[response.number] = self._texts.said(
            response.tokens, response.finished, self._sampling
        )
        while (said := self._whole.get(self._current)) is not None:
            text, _ = said
            if not text.startswith(self._written):  # the tokenizer writes the beginning anew
                self._write("\n")
                self._written = ""
            self._go_on(text)
            self._current, self._begun, self._written = self._current + 1, False, ""
            if tokens := self._tokens[self._current]:
                self._go_on(self._certain(tokens))

    def said(self) -> list[tuple[str, bool]]:
        """What is written so far: the text of each response, and whether it is finished."""
        ended = [self._whole[number] for number in range(self._current)]
        return [*ended, (self._written, False)] if self._written else ended

    def _go_on(self, text: str) -> None:
        if self._current and not self._begun:
            self._write(BETWEEN)
        self._begun = True
        if text.startswith(self._written):
            piece = text[len(self._written) :]
            self._written = text  # an interrupt may come while it is written
            self._write(piece)

    def _certain(self, tokens: list[int]) -> str:
        """What tokens say whatever comes behind them."""
        text, ended = self._texts.said(tokens, False, self._sampling)
        if ended:
            return text
        text, stop = text.rstrip("\ufffd"), self._sampling.stop  # parts of a character
        begun = (n for n in range(len(stop) - 1, 0, -1) if text.endswith(stop[:n]))
        return text[: len(text) - next(begun, 0)]
