"""Panels of simulated labelers: how they differ, how much they agree, what can be learned of them.

The paper's training labelers agree with each other in 72.6 ± 1.5 % of comparisons, the held-out
ones in 77.3 ± 1.3 % (section 3.4); ``calibrate`` finds the noise for which a panel does so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from instructgpt.feedback.labelers import Array, Attributes, Labeler, generator, probabilities
from instructgpt.types import UserError

Pair = tuple[Attributes, Attributes]

ADDITIVE = {"detail": 0.4, "length": 0.15}
"""Tastes that differ even in sign: standard deviation of what is added to these weights."""


class Panel(NamedTuple):
    """A group of labelers."""

    name: str
    labelers: tuple[Labeler, ...]

    @property
    def names(self) -> list[str]:
        """Names of the labelers."""
        return [labeler.name for labeler in self.labelers]

    def utilities(self, responses: Sequence[Attributes]) -> Array:
        """Value of each response to each labeler, [M, L]."""
        keys = sorted(self.labelers[0].weights)
        values = np.array([[one[key] for key in keys] for one in responses]).reshape(-1, len(keys))
        weights = np.array([[one.weights[key] for key in keys] for one in self.labelers])
        result: Array = 1 + values @ weights.T
        return result

    def differences(self, pairs: Sequence[Pair]) -> Array:
        """Value of the first minus value of the second response to each labeler, [M, L]."""
        first = self.utilities([pair[0] for pair in pairs])
        return first - self.utilities([pair[1] for pair in pairs])

    def votes(self, pairs: Sequence[Pair]) -> tuple[Array, Array]:
        """Probabilities that each labeler prefers the first, and the second, [M, L] each."""
        return self._votes(self.differences(pairs))

    def _votes(self, differences: Array) -> tuple[Array, Array]:
        noise = np.array([labeler.noise for labeler in self.labelers])
        tie = np.array([labeler.tie for labeler in self.labelers])
        return probabilities(differences, noise, tie)

    def prefers(self, pairs: Sequence[Pair]) -> tuple[Array, Array]:
        """Mean over the labelers: probabilities that the first wins, and of a tie, [M] each.

        Args:
            pairs: attributes of two responses whose texts differ.
        """
        win, lose = self.votes(pairs)
        return win.mean(1), 1 - win.mean(1) - lose.mean(1)

    def agreement_matrix(self, pairs: Sequence[Pair]) -> Array:
        """How often two labelers who both have a preference have the same one, [L, L].

        The diagonal says how often a labeler agrees with herself when asked twice.

        Args:
            pairs: attributes of two responses whose texts differ.
        """
        same, both = _agreeing(*self.votes(pairs))
        return same / both

    def agreement(self, pairs: Sequence[Pair]) -> float:
        """The same over all pairs of two distinct labelers."""
        return _agreement(*self.votes(pairs))

    def ceiling(self, pairs: Sequence[Pair]) -> float:
        """The accuracy that no score can exceed on this panel's decided choices.

        A scorer that always sides with the majority of the panel's votes reaches it.

        Args:
            pairs: attributes of two responses whose texts differ.
        """
        win, lose = (votes.mean(1) for votes in self.votes(pairs))
        return float(np.maximum(win, lose).sum() / (win + lose).sum())

    def louder(self, factor: float) -> Panel:
        """The same people with their noise multiplied."""
        labelers = [one._replace(noise=one.noise * factor) for one in self.labelers]
        return self._replace(labelers=tuple(labelers))


def _agreeing(win: Array, lose: Array) -> tuple[Array, Array]:
    decided = win + lose
    return win.T @ win + lose.T @ lose, decided.T @ decided


def _agreement(win: Array, lose: Array) -> float:
    same, both = _agreeing(win, lose)
    return float((same.sum() - np.trace(same)) / (both.sum() - np.trace(both)))


def calibrate(panel: Panel, pairs: Sequence[Pair], target: float) -> tuple[Panel, float]:
    """Find the noise for which the labelers agree as often as they should.

    Args:
        panel: its noise is multiplied by one factor for all.
        pairs: attributes of two responses whose texts differ.
        target: agreement of two distinct labelers.

    Returns:
        The panel, and the factor.

    Raises:
        UserError: no noise makes these labelers agree so often.
    """
    differences = panel.differences(pairs)
    low, high = -5.0, 5.0  # logarithm of the factor

    def agreement(logarithm: float) -> float:
        return _agreement(*panel.louder(float(np.exp(logarithm)))._votes(differences))

    if not agreement(high) < target < agreement(low):
        raise UserError(
            f"agreement of the {panel.name} labelers must be between {agreement(high):.3f} (all "
            f"noise) and {agreement(low):.3f} (no noise) on these responses, got {target:g}"
        )
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if agreement(middle) > target else (low, middle)
    factor = float(np.exp(low))
    return panel.louder(factor), factor


def make_panel(
    name: str,
    size: int,
    weights: Mapping[str, float],
    seed: int = 0,
    spread: float = 0.35,
    shift: float = 0.0,
    lean: Mapping[str, float] | None = None,
    noise_spread: float = 0.2,
    tie: float = 0.2,
) -> Panel:
    """Draw labelers around common weights.

    Args:
        name: of the group.
        size: how many labelers.
        weights: of the true utility.
        seed: of the draw.
        spread: standard deviation of the logarithm of a labeler's weight.
        shift: the same of the group's mean weight: one draw for all its labelers.
        lean: added to the group's mean weights.
        noise_spread: standard deviation of the logarithm of a labeler's noise, whose geometric mean
            in the group is 1.
        tie: noisy values that differ by less are a tie.
    """
    rng = generator("panel", seed, name)
    keys = sorted(weights)
    mean = {key: weights[key] * np.exp(shift * rng.normal()) for key in keys}
    mean = {key: value + (lean or {}).get(key, 0.0) for key, value in mean.items()}
    loudness = rng.normal(size=size)
    loudness -= loudness.mean()
    labelers = []
    for number in range(size):
        own = {key: mean[key] * np.exp(spread * rng.normal()) for key in keys}
        for key in sorted(ADDITIVE):
            extra = ADDITIVE[key] * rng.normal()
            if key in own:
                own[key] += extra
        noise = float(np.exp(noise_spread * loudness[number]))
        own = {key: float(value) for key, value in own.items()}
        labelers.append(Labeler(f"{name}_{number + 1}", name, own, noise, tie))
    return Panel(name, tuple(labelers))


def opposing_panels(
    size: int, weights: Mapping[str, float], seed: int = 0, strength: float = 1.5, tie: float = 0.2
) -> tuple[Panel, Panel]:
    """Two groups who want opposite things: brief responses, and detailed ones.

    Args:
        size: labelers a group.
        weights: of the true utility, among them "detail" and "length" (a fault).
        seed: of the draw.
        strength: how much more, or less, detail is worth.
        tie: noisy values that differ by less are a tie.
    """
    brief = {"detail": -strength, "length": -strength}
    detailed = {key: -value for key, value in brief.items()}
    return (
        make_panel("brief", size, weights, seed, lean=brief, tie=tie),
        make_panel("detailed", size, weights, seed, lean=detailed, tie=tie),
    )


def panel_to_json(panel: Panel) -> dict[str, Any]:
    """The panel as plain data."""
    return {
        "name": panel.name,
        "labelers": [one._asdict() | {"weights": dict(one.weights)} for one in panel.labelers],
    }


def panel_from_json(value: Any, where: str) -> Panel:
    """The panel that ``panel_to_json`` has written.

    Args:
        value: the plain data.
        where: file and key, for messages.
    """
    try:
        labelers = [Labeler(**one) for one in value["labelers"]]
        panel = Panel(str(value["name"]), tuple(labelers))
        keys = [sorted(one.weights) for one in labelers]
        fine = bool(labelers) and all(one == keys[0] for one in keys)
        fine = fine and all(one.noise > 0 and one.tie >= 0 for one in labelers)
    except (TypeError, KeyError, AttributeError):
        fine = False
    if not fine:
        raise UserError(f"{where}: must be a panel as `label` writes it, got {str(value)[:60]}")
    return panel
