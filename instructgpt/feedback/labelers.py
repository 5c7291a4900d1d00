"""Simulated labelers: people with their own taste and their own carelessness.

A labeler values a response by its attributes (how well it follows the instruction, how toxic it
is, ...) with own weights. Each look at a response adds Gumbel noise, so that the choice between two
is logistic in the difference of their values (Bradley–Terry), and a ranking of K is a draw from the
Plackett–Luce model. Responses whose noisy values are close together tie.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Attributes = Mapping[str, float]

LOWEST, HIGHEST = 1, 7  # of the Likert scale


class Preference(NamedTuple):
    """What one comparison says: how probable it is that the first wins, and that they tie."""

    win: float
    tie: float


class Labeler(NamedTuple):
    """One simulated person.

    Args:
        name: unique in all groups.
        group: the panel this person belongs to.
        weights: value of each attribute.
        noise: scale of the Gumbel noise of one look, in the units of the value.
        tie: noisy values that differ by less are a tie.
    """

    name: str
    group: str
    weights: Mapping[str, float]
    noise: float
    tie: float

    def utility(self, attributes: Attributes) -> float:
        """Value of a response, on a scale that starts at 1 as the Likert scale does.

        >>> Labeler("ann", "training", {"follow": 2.0, "toxic": -1.0}, 0.5, 0.2).utility(
        ...     {"follow": 1.0, "toxic": 0.5}
        ... )
        2.5
        """
        return LOWEST + sum(weight * attributes[key] for key, weight in self.weights.items())

    def prefers(self, first: Attributes, second: Attributes) -> Preference:
        """Exact probabilities of one comparison of two different texts.

        Args:
            first: attributes of one response.
            second: attributes of the other.
        """
        difference = np.array([self.utility(first) - self.utility(second)])
        win, lose = probabilities(difference, self.noise, self.tie)
        return Preference(float(win[0]), float(1 - win[0] - lose[0]))

    def rank(
        self, attributes: Sequence[Attributes], texts: Sequence[str], rng: np.random.Generator
    ) -> list[int]:
        """Rank responses after one look at each distinct text: 1 = best, equal = tie.

        From the best down, a response ties with the best one that is less than ``tie`` better.

        Args:
            attributes: of each response.
            texts: of each response; the same text always gets the same rank.
            rng: source of the noise.
        """
        value: dict[str, float] = {}
        for text, one in zip(texts, attributes, strict=True):
            if text not in value:
                value[text] = self.utility(one) + self.noise * float(rng.gumbel())
        ranks: dict[str, int] = {}
        leader, rank, better = np.inf, 1, 0
        for text in sorted(value, key=lambda t: -value[t]):
            if leader - value[text] >= self.tie:
                leader, rank = value[text], better + 1
            ranks[text] = rank
            better += list(texts).count(text)
        return [ranks[text] for text in texts]

    def rate(self, attributes: Attributes, rng: np.random.Generator) -> int:
        """Rate one response from 1 to 7 after one look.

        Args:
            attributes: of the response.
            rng: source of the noise.
        """
        noise = self.noise * (float(rng.gumbel()) - np.euler_gamma)  # mean 0
        return int(np.clip(np.floor(self.utility(attributes) + noise + 0.5), LOWEST, HIGHEST))


def probabilities(
    difference: Array, noise: Array | float, tie: Array | float
) -> tuple[Array, Array]:
    """Probabilities that the first wins and that the second wins; the rest is a tie.

    The difference of two Gumbel variables is logistic, hence two sigmoids.

    Args:
        difference: value of the first minus value of the second.
        noise: scale of the noise.
        tie: width of a tie.

    Example:
        >>> [round(float(p), 3) for p in probabilities(np.array(1.0), 0.5, 0.25)]
        [0.818, 0.076]
    """
    return sigmoid((difference - tie) / noise), sigmoid((-difference - tie) / noise)


def sigmoid(x: Array) -> Array:
    """The logistic function, without overflow."""
    result: Array = 1 / (1 + np.exp(-np.clip(x, -60, 60)))
    return result


def generator(*key: object) -> np.random.Generator:
    """Random numbers that depend on a key alone, such as (seed, labeler, prompt).

    Args:
        key: what names the draw; its text counts.
    """
    digest = hashlib.sha256("\0".join(map(str, key)).encode("utf-8", "replace")).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "little"))
