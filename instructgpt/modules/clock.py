"""How long the rest of a fit takes: its steps, and the rollouts between them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class RolloutClock:
    """Seconds that rollouts take; always 0 in a stage that has none."""

    def __init__(self) -> None:
        """Start before the first rollout."""
        self.spent = 0.0  # by this process, on rollouts that are complete
        self.count = 0
        self.before: float | None = None  # what one took before an interruption
        self._begun: float | None = None

    @contextmanager
    def running(self) -> Iterator[None]:
        """Measure a rollout."""
        self._begun = time.monotonic()
        yield
        self.spent += time.monotonic() - self._begun
        self.count += 1
        self._begun = None

    @property
    def running_for(self) -> float:
        """Seconds since the rollout that is not complete began; 0 where all are."""
        return 0.0 if self._begun is None else time.monotonic() - self._begun

    @property
    def mean(self) -> float | None:
        """Seconds of a rollout; None where none is known."""
        return self.spent / self.count if self.count else self.before


def time_left(
    done: int, left: int, seconds: float, clock: RolloutClock, rollouts_left: int
) -> float | None:
    """Seconds that a fit still needs; None while that cannot be told.

    Args:
        done: optimizer steps of this process.
        left: optimizer steps to come.
        seconds: since this process began to train, rollouts included.
        clock: of the rollouts.
        rollouts_left: that are not complete, one that is running included.
    """
    if not done or (rollouts_left and clock.mean is None):
        return None
    step = (seconds - clock.spent - clock.running_for) / done
    rollouts = rollouts_left * (clock.mean or 0.0) - min(clock.running_for, clock.mean or 0.0)
    return left * step + rollouts
