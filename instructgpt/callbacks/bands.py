"""Between which values the metrics of a recipe move: bands, made of some runs of it.

``benchmarks/bands.py`` makes them. A recipe names its file (``bands: FILE``), ``fit`` shows them.
Most are of whole runs, with knots at shares of them: a cosine makes every curve depend on the
length. Where nothing does, the knots are optimizer steps (``at_steps``), and the bands are of the
first steps of a run of any length.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any, NamedTuple

from instructgpt.callbacks.resume import CONTENT, FREE, Change, leaves, matches
from instructgpt.types import Origin, UserError, require

NO_PART = (*FREE, *CONTENT, "*.seed", "data.batch_size", "data.demonstrations")
"""Options that no curve depends on, or of which not the name but the content is compared."""
PARTS = ("model.*", "data.*", "trainer.gradient_clip_*")
SLACK = 0.1
"""Share by which a run may be longer or shorter than those that the bands are from."""
CLOCKS = ("time/", "throughput/", "tokens_per_second")
"""Metrics of the machine, of which no recipe can know anything."""
DIGITS = 4
"""Of a share of a run, as it stands in a file."""
SHOWN_OPTIONS = 3
KINDS = {
    "runs": int,
    "options": dict,
    "origins": dict,
    "rows": int,
    "weights": int,
    "steps": list,
    "metrics": dict,
}
NAMES = {int: "a number >= 1", list: "a list", dict: "a mapping"}


class Band(NamedTuple):
    """The lowest and the highest usual value of a metric, at shares or steps that are done."""

    at: list[float]  # rising
    low: list[float]
    high: list[float]

    def bounds(self, place: float) -> tuple[float, float]:
        """Both at a place, on straight lines between the knots and as at the ends beyond them.

        Args:
            place: as the knots are, a share of the run or an optimizer step.

        Examples:
            >>> Band([0.25, 0.75], [0.0, 1.0], [2.0, 2.0]).bounds(0.375)
            (0.25, 2.0)
        """
        after = bisect_right(self.at, place)
        if after in (0, len(self.at)):
            end = min(after, len(self.at) - 1)
            return self.low[end], self.high[end]
        left, right = self.at[after - 1], self.at[after]
        part = (place - left) / (right - left)
        low, high = (side[after - 1 : after + 1] for side in (self.low, self.high))
        return low[0] + part * (low[1] - low[0]), high[0] + part * (high[1] - high[0])


class Setting(NamedTuple):
    """What the curves of a run depend on, but for its seed and its length."""

    options: dict[str, Any]
    origins: dict[str, str]  # digests of the weights and rows it is made from, by the option
    rows: int  # of an optimizer step
    weights: int  # numbers in a checkpoint's weights


class Bands(NamedTuple):
    """Bands of a recipe, and what they hold for: what all the runs had in common."""

    runs: int
    options: dict[str, Any]
    origins: dict[str, str]
    rows: int
    weights: int
    steps: list[int]  # of the shortest and the longest run
    metrics: dict[str, Band]
    at_steps: bool = False  # the knots are optimizer steps, not shares of a run

    @property
    def first_steps(self) -> int | None:
        """How far they go in a run of any length; None: to the end of runs as long as theirs."""
        return self.steps[0] if self.at_steps else None

    def bounds(self, metric: str, step: int, total: int | None) -> tuple[float, float]:
        """Of a metric; two NaN where its band says nothing.

        That is before the first knot, as the runs had no value so early, and, in bands at steps,
        after the last.

        Args:
            metric: one that has a band.
            step: optimizer steps done.
            total: of the run, if their number is planned; of no effect on bands at steps.
        """
        band = self.metrics[metric]
        length = 1 if self.at_steps else total
        if not length:
            return math.nan, math.nan
        place = round(step / length, DIGITS)
        if place < band.at[0] or (self.at_steps and place > band.at[-1]):
            return math.nan, math.nan
        return band.bounds(place)

    def others(self, setting: Setting, total: int | None, places: Mapping[str, str]) -> list[str]:
        """What of a run is not as it was in the runs of the bands; then they say nothing of it.

        Args:
            setting: of the run.
            total: optimizer steps of the run, if their number is planned.
            places: where the run's weights and rows lie, by the option.
        """
        found = [] if self.at_steps else self._other_length(total)
        for what, was, now in (
            ("rows a step", self.rows, setting.rows),
            ("trained weights", self.weights, setting.weights),
        ):
            if was != now:
                found.append(f"{now:,} {what} (there {was:,})")
        for name, digest in self.origins.items():
            if setting.origins.get(name, digest) != digest:
                kind = "rows" if name.startswith("data.") else "weights"
                found.append(f"other {kind}, {name} {places[name]}")
        changed = [
            Change(name, was, setting.options[name])
            for name, was in self.options.items()
            if name in setting.options and setting.options[name] != was
        ]
        more = len(changed) - SHOWN_OPTIONS
        found += [change.refused() for change in changed[:SHOWN_OPTIONS]]
        return found + ([f"{more} more options"] if more > 0 else [])

    def _other_length(self, total: int | None) -> list[str]:
        fewest, most = self.steps
        if total is None:
            return ["no planned length"]
        if fewest * (1 - SLACK) <= total <= most * (1 + SLACK):
            return []
        there = f"{fewest:,}" if fewest == most else f"{fewest:,} to {most:,}"
        return [f"{total:,} optimizer steps (there {there})"]


def setting_of(
    config: Mapping[str, Any],
    origins: Mapping[str, Origin],
    batching: Mapping[str, int],
    weights: int,
) -> Setting:
    """What the curves of a run depend on.

    Args:
        config: the configuration of the run.
        origins: what it is made from.
        batching: numbers whose product are the rows of an optimizer step.
        weights: numbers in a checkpoint's weights.
    """
    options = {
        name: value
        for name, value in leaves({key: config[key] for key in ("model", "data", "trainer")})
        if matches(name, PARTS) and not matches(name, NO_PART)
    }
    digests = {name: origin[1] for name, origin in origins.items()}
    return Setting(options, digests, math.prod(batching.values()), weights)


def read_bands(content: Any, place: str = "bands") -> Bands:
    """Check the content of a file of bands.

    Args:
        content: as read from JSON or YAML.
        place: for messages.

    Raises:
        UserError: one line that says what is wrong in it.
    """
    require(isinstance(content, dict), place, "a mapping", repr(content)[:60])
    for key, kind in KINDS.items():
        if key not in content:
            raise UserError(f"{place} must have {key}, got {', '.join(map(str, content))}")
        value = content[key]
        right = isinstance(value, kind) and not isinstance(value, bool)
        right = right and (kind is not int or value >= 1)
        require(right, f"{place}.{key}", NAMES[kind], repr(value)[:60])
    steps = content["steps"]
    rising = len(steps) == 2 and all(isinstance(s, int) for s in steps) and 0 < steps[0] <= steps[1]
    require(rising, f"{place}.steps", "the fewest and the most", steps)
    at_steps = content.get("at_steps", False)
    require(isinstance(at_steps, bool), f"{place}.at_steps", "true or false", repr(at_steps)[:60])
    end = steps[0] if at_steps else 1
    metrics = {name: _band(name, one, end, place) for name, one in content["metrics"].items()}
    require(bool(metrics), f"{place}.metrics", "at least one", "none")
    known = {key: content[key] for key in KINDS}
    return Bands(**{**known, "metrics": metrics, "at_steps": at_steps})


def _band(name: Any, content: Any, end: int, place: str) -> Band:
    place = f"{place}.metrics.{name}"
    logged = isinstance(name, str) and "/" in name and not name.startswith(CLOCKS)
    require(logged, place, "a metric that says something of the training, as val/loss", name)
    there = isinstance(content, dict) and set(content) == set(Band._fields)
    require(there, place, f"a mapping of {', '.join(Band._fields)}", repr(content)[:60])
    for side in Band._fields:
        _check_numbers(content[side], f"{place}.{side}")
    band = Band(**content)
    require(len(band.at) >= 2, f"{place}.at", "at least two knots", band.at)
    for side, values in (("low", band.low), ("high", band.high)):
        rule = f"as long as at ({len(band.at)})"
        require(len(values) == len(band.at), f"{place}.{side}", rule, len(values))
    rising = all(a < b for a, b in pairwise(band.at)) and band.at[0] >= 0 and band.at[-1] <= end
    require(rising, f"{place}.at", f"rising, from 0 to {end}", band.at)
    for knot, low, high in zip(*band, strict=True):
        require(low <= high, f"{place}.low at {knot:g}", f"at most high ({high:g})", f"{low:g}")
    return band


def _check_numbers(values: Any, place: str) -> None:
    def is_number(value: Any) -> bool:
        right = isinstance(value, int | float) and not isinstance(value, bool)
        return right and math.isfinite(value)

    right = isinstance(values, list) and all(map(is_number, values))
    require(right, place, "a list of numbers", repr(values)[:60])


class Watch:
    """Where one metric has left its band, as its values come.

    Args:
        state: of an interrupted run.
    """

    def __init__(self, state: Mapping[str, Any] | None = None) -> None:
        known: Mapping[str, Any] = state or {"values": 0, "outside": 0, "left": []}
        self.values, self.outside = known["values"], known["outside"]
        self.left: list[dict[str, Any]] = [dict(one) for one in known["left"]]

    def state(self) -> dict[str, Any]:
        """Plain values, for a checkpoint and for ``metrics.json``."""
        return {"values": self.values, "outside": self.outside, "left": self.left}

    @property
    def is_outside(self) -> bool:
        """Whether it was outside when it was last seen."""
        return bool(self.left) and self.left[-1]["back"] is None

    def see(self, step: int, value: float, low: float, high: float) -> str:
        """Judge a value.

        Args:
            step: optimizer steps done.
            value: of the metric; what is no number is outside.
            low: of the band.
            high: of the band.

        Returns:
            ``below``, ``above`` or ``not finite`` where it leaves, ``back`` where it comes back,
            else nothing.
        """
        self.values += 1
        inside, was_outside = low <= value <= high, self.is_outside
        self.outside += not inside
        if inside and was_outside:
            self.left[-1]["back"] = step
            return "back"
        if inside or was_outside:
            return ""
        self.left.append({"step": step, "value": value, "low": low, "high": high, "back": None})
        if not math.isfinite(value):
            return "not finite"
        return "below" if value < low else "above"

    def spans(self) -> str:
        """Where it was outside, in words.

        Examples:
            >>> watch = Watch()
            >>> for step, value in ((10, 0.5), (20, 2.0), (30, 0.5), (40, 3.0)):
            ...     _ = watch.see(step, value, 0.0, 1.0)
            >>> watch.spans()
            'from step 20 to 30, from step 40 on; 2 of 4 values'
        """
        ends = (
            f"from step {one['step']} " + (f"to {one['back']}" if one["back"] else "on")
            for one in self.left
        )
        return f"{', '.join(ends)}; {self.outside} of {self.values} values"


def look_at(metric: str, side: str) -> str:
    """What to look at when a metric is on one side of its band.

    Args:
        metric: its name.
        side: as ``Watch.see`` says it.

    Examples:
        >>> look_at("ppo/kl", "below")
        'the policy hardly moves: raise --model.optimizer.lr, or lower --model.kl.kl_coef'
    """
    if side == "not finite":
        return "look at the learning rate and the number format"
    for name in _endings(metric):
        if found := LOOK.get(name, {}).get(side):
            return found
    return "look at what differs from the recipe, and at samples.jsonl"


def _endings(metric: str) -> Iterator[str]:
    parts = metric.split("/")
    for start in range(len(parts)):
        yield "/".join(parts[start:]).removeprefix("greedy_")


RATE = "--model.optimizer.lr"
ROWS = "the example and the counts that the run printed of its rows"
LEAK = "are its rows also trained on? Is there a give-away in them, such as length?"
LOOK: dict[str, dict[str, str]] = {
    "loss": {
        "above": f"look at {RATE} (too high, or too low to move), and at {ROWS}",
        "below": LEAK,
    },
    "perplexity": {"above": f"look at {RATE}, and at {ROWS}", "below": LEAK},
    "accuracy": {"below": f"look at {RATE}, and at {ROWS}: is 1 the best rank?", "above": LEAK},
    "calibration_error": {"above": "it is surer than it is right: fewer epochs, a lower rate"},
    "score": {
        "below": f"it learns less than it should: look at {RATE} and --model.kl.kl_coef",
        "above": "read samples.jsonl: what the reward model likes need not be better",
    },
    "kl": {
        "below": f"the policy hardly moves: raise {RATE}, or lower --model.kl.kl_coef",
        "above": f"the policy runs away: lower {RATE}, or raise --model.kl.kl_coef; read "
        "samples.jsonl",
    },
    "entropy": {
        "below": "answers grow alike: read samples.jsonl; lower the rate or raise the KL penalty",
        "above": "answers grow random: read samples.jsonl; lower the rate",
    },
    "response_length": {
        "below": "short answers pay: read samples.jsonl, with their scores",
        "above": "long answers pay: read samples.jsonl, with their scores",
    },
    "eos_rate": {
        "below": "answers do not end: --data.max_response_tokens, "
        "--model.algorithm.missing_eos_score",
    },
    "rewards/chosen": {
        "below": f"good answers lose likelihood, too: lower {RATE}, or raise "
        "--model.algorithm.beta",
    },
    "value": {"above": "the value model does not follow: look at --model.value.lr"},
    "ptx": {"above": "texts are forgotten: raise --model.pretraining.ptx_coef"},
}
"""By the end of a metric's name: what to look at below its band, and above."""
