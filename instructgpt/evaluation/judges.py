"""Who decides which of two responses is better."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from instructgpt.evaluation.statistics import Array
from instructgpt.types import Prompt, UserError, failed


class Answer(NamedTuple):
    """A response, with the world's judgement where there is one."""

    prompt: Prompt
    text: str
    finished: bool  # ended by itself, not by the limit of tokens
    attributes: Mapping[str, float]  # empty where nothing graded it
    metadata: Mapping[str, bool | None]  # None: does not apply to this prompt
    utility: float  # NaN where nothing graded it
    kl: float = float("nan")  # from a reference, nats, by this one sample; NaN: not measured


Pair = tuple[Answer, Answer]


class Judgement(NamedTuple):
    """Probability that the first response is better, and that none is; NaN: nothing usable said."""

    win: float
    tie: float


class Judge(Protocol):
    """Compares pairs of responses to the same prompt; many at once, so that a model can batch."""

    description: str
    sees_both: bool  # both responses at once, so that their order can sway it

    def __call__(self, pairs: Sequence[Pair]) -> Sequence[Judgement]:
        """One verdict a pair, in the order in which the pair is shown."""


class ScoreJudge:
    """Prefers the response with the higher score; an equal score is a tie.

    Args:
        description: for the report.
        scores: one number a response.
    """

    sees_both = False

    def __init__(
        self, description: str, scores: Callable[[Sequence[Answer]], Sequence[float]]
    ) -> None:
        self.description = description
        self.scores = scores

    def __call__(self, pairs: Sequence[Pair]) -> list[Judgement]:
        """Compare the scores."""
        first = self.scores([pair[0] for pair in pairs])
        second = self.scores([pair[1] for pair in pairs])
        return [Judgement(float(a > b), float(a == b)) for a, b in zip(first, second, strict=True)]


class PanelJudge:
    """The expected vote of labelers who see the attributes of responses.

    Args:
        description: for the report.
        prefers: probabilities of win and tie for pairs of attributes, [M] each.
    """

    sees_both = False

    def __init__(
        self,
        description: str,
        prefers: Callable[
            [Sequence[tuple[Mapping[str, float], Mapping[str, float]]]], tuple[Array, Array]
        ],
    ) -> None:
        self.description = description
        self.prefers = prefers

    def __call__(self, pairs: Sequence[Pair]) -> list[Judgement]:
        """Average the votes."""
        win, tie = self.prefers([(a.attributes, b.attributes) for a, b in pairs])
        return [Judgement(float(w), float(t)) for w, t in zip(win, tie, strict=True)]


class CallableJudge:
    """A user's function of (prompt, first, second).

    Args:
        description: for the report and for messages.
        function: returns the probability that the first response is better: 1, 0.5 (tie), 0, or
            anything between.
    """

    sees_both = True

    def __init__(self, description: str, function: Callable[[str, str, str], float]) -> None:
        self.description = description
        self.function = function

    def __call__(self, pairs: Sequence[Pair]) -> list[Judgement]:
        """Ask the function about each pair."""
        return [self._ask(*pair) for pair in pairs]

    def _ask(self, first: Answer, second: Answer) -> Judgement:
        about = f"judge {self.description}", f"the prompt {first.prompt.text[:40]!r}"
        try:
            share = self.function(first.prompt.text, first.text, second.text)
        except Exception as error:  # the user's code
            raise failed(f"{about[0]} failed on {about[1]}", error) from error
        if isinstance(share, bool | int | float) and 0 <= share <= 1:
            return Judgement(0.0, 1.0) if share == 0.5 else Judgement(float(share), 0.0)
        raise UserError(
            f"{about[0]} must return a number from 0 (the second is better) to 1, got {share!r} "
            f"for {about[1]}"
        )
