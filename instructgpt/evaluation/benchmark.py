"""Public sets asked of several models, and how far each is from the first: the alignment tax."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from instructgpt.data.checks import object_of
from instructgpt.data.files import read_file
from instructgpt.evaluation.public_sets import REWARD_BENCH, SETS, Problem, PublicSet
from instructgpt.evaluation.records import to_json
from instructgpt.evaluation.report_files import plain
from instructgpt.evaluation.results import Difference
from instructgpt.evaluation.statistics import (
    Array,
    Estimate,
    by_cluster,
    clustered,
    interval,
    mean,
    rate,
    ratio_draws,
)
from instructgpt.models.folder import write_text
from instructgpt.types import UserError, require


@dataclass(frozen=True)
class Questions:
    """The problems of one file.

    Args:
        asks: the set it belongs to.
        path: of the file.
        places: file and line of each problem.
        problems: in the order of the file, behind the worked examples.
        examples: how many worked ones stand before each.
    """

    asks: PublicSet
    path: str
    places: list[str]
    problems: list[Problem]
    examples: int

    @property
    def name(self) -> str:
        """Of the set."""
        return self.asks.name

    @property
    def title(self) -> str:
        """Of the set, for people."""
        return self.asks.title

    def row(self, number: int, found: list[float] | str) -> dict[str, Any]:
        """What is noted of a problem.

        Args:
            number: of the problem.
            found: the log-probability of each choice, or what the model has said.
        """
        problem, about = self.problems[number], {"set": self.asks.name, "id": self.places[number]}
        if isinstance(found, str):
            return {**about, "response": found, **self.asks.said(problem, found)}
        return {**about, "logprobs": found, **self.asks.measures(problem, found)}

    def results(self, rows: Mapping[str, Sequence[dict[str, Any]]], seed: int) -> SetResults:
        """Measures of all models, and what they differ by from the first.

        Args:
            rows: model -> a row a problem.
            seed: of the bootstrap.
        """
        clusters = [problem.cluster for problem in self.problems]
        first = next(iter(rows))
        names = [key for key in rows[first][0] if key not in ("set", "id", "logprobs", "response")]
        measures: dict[str, dict[str, Estimate]] = {}
        differences: dict[str, list[Difference]] = {}
        for name in names:
            values = {
                model: np.array([row[name] for row in those]) for model, those in rows.items()
            }
            measures[name] = {m: _estimate(one, clusters, seed) for m, one in values.items()}
            differences[name] = [
                Difference(model, first, *_difference(one - values[first], clusters, seed))
                for model, one in values.items()
                if model != first
            ]
        return SetResults(self.path, len(self.problems), self.examples, measures, differences)


class ProblemSet(Protocol):
    """A set with its problems, of policies or of reward models."""

    @property
    def name(self) -> str:
        """Of the set."""

    @property
    def title(self) -> str:
        """Of the set, for people."""

    @property
    def places(self) -> list[str]:
        """File and line of each problem."""

    @property
    def problems(self) -> Sequence[Any]:
        """In the order of the file."""

    def row(self, number: int, found: Any) -> dict[str, Any]:
        """What is noted of a problem."""

    def results(self, rows: Mapping[str, Sequence[dict[str, Any]]], seed: int) -> SetResults:
        """Measures of all models, and what they differ by from the first."""


class SetResults(NamedTuple):
    """What was measured on one set."""

    file: str
    problems: int
    examples: int  # worked ones before each problem
    measures: dict[str, dict[str, Estimate]]  # measure -> model
    differences: dict[str, list[Difference]]  # measure -> models minus the first one


@dataclass(kw_only=True)
class BenchmarkResults:
    """Everything in ``results.json``."""

    models: dict[str, str]  # name -> where it is from
    seed: int
    sets: dict[str, SetResults] = field(default_factory=dict)


def check_sets(sets: Mapping[str, str], examples: Mapping[str, str]) -> None:
    """Refuse sets that are not known, and worked examples where none can be.

    Args:
        sets: name of a set -> file.
        examples: name of a set -> file of problems that stand before each, with their solutions.
    """
    known = ", ".join((*SETS, REWARD_BENCH))
    for name in (*sets, *examples):
        option = "--sets" if name in sets else "--examples"
        require(name in SETS or name == REWARD_BENCH, option, f"one of {known}", name)
    for name in examples:
        if name not in sets or name == REWARD_BENCH or not SETS[name].examples:
            why = "is not among --sets" if name not in sets else "has a prompt of its own"
            raise UserError(f"--examples.{name} must be left out: the set {why}")


def read_questions(sets: Mapping[str, str], examples: Mapping[str, str]) -> list[Questions]:
    """The problems of all files; arguments as of ``check_sets``, which they have passed.

    Raises:
        UserError: a row is not of its set.
    """
    return [_questions(SETS[name], path, examples.get(name)) for name, path in sets.items()]


def _questions(asks: PublicSet, path: str, examples: str | None) -> Questions:
    shown = [] if examples is None else _problems(asks, examples)
    before = "".join(asks.worked(problem) for _, problem in shown)
    found = _problems(asks, path)
    problems = [one._replace(context=before + one.context) for _, one in found]
    return Questions(asks, path, [where for where, _ in found], problems, len(shown))


def _problems(asks: PublicSet, path: str) -> list[tuple[str, Problem]]:
    return [
        (item.where, asks.problem(item.where, object_of(item))) for item in read_file(Path(path))
    ]


def results_of(
    questions: Sequence[ProblemSet], rows: Mapping[str, Sequence[dict[str, Any]]], seed: int
) -> dict[str, SetResults]:
    """Measures of all models on each set, and what they differ by from the first.

    Args:
        questions: of all sets, in order.
        rows: model -> a row a problem of all sets, in order.
        seed: of the bootstrap.
    """
    found: dict[str, SetResults] = {}
    start = 0
    for asked in questions:
        stop = start + len(asked.problems)
        of_set = {model: those[start:stop] for model, those in rows.items()}
        found[asked.name] = asked.results(of_set, seed)
        start = stop
    return found


def _estimate(values: Array, clusters: list[str], seed: int) -> Estimate:
    if all(clusters):
        return clustered(values.tolist(), clusters, seed)
    return rate(values.tolist()) if np.isin(values, (0, 1)).all() else mean(values, seed)


def _difference(values: Array, clusters: list[str], seed: int) -> tuple[float, float, float, int]:
    """The mean of paired differences, its interval, and of how many."""
    if not all(clusters):
        value, low, high, count, *_ = mean(values, seed)
        return value, low, high, count
    found = ratio_draws(*by_cluster(values, clusters), seed)
    return float(found.value), *interval(found.resampled), len(values)


def write_results(results: BenchmarkResults, output: Path) -> Path:
    """Write ``results.json``; its path.

    Args:
        results: of all sets.
        output: folder.
    """
    path = output / "results.json"
    data = plain(to_json(results))
    write_text(path, json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    return path


def table(results: BenchmarkResults) -> str:
    """The results as text: a line a measure, then a line for each later model.

    Args:
        results: of all sets.
    """
    first, *others = results.models
    width = max(map(len, results.models)) + 2
    lines = []
    for name, found in results.sets.items():
        shots = f", {found.examples} worked examples before each" if found.examples else ""
        title = "RewardBench 2" if name == REWARD_BENCH else SETS[name].title
        lines.append(f"{title} ({found.problems:,} problems{shots})")
        for measure, models in found.measures.items():
            lines.append(f"  {measure:22}{first:{width}}{_shown(models[first])}")
            for row in found.differences[measure]:
                apart = f"{row.value:+.3f} [{row.low:+.3f}, {row.high:+.3f}]"
                shown = f"{_shown(models[row.model])}  {apart}{_verdict(row)}"
                lines.append(f"  {'':22}{row.model:{width}}{shown}")
    if others:
        lines.append(f"(behind the 95 % intervals: minus {first}, problem by problem)")
    return "\n".join(lines)


def _shown(found: Estimate) -> str:
    return f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"


def _verdict(row: Difference) -> str:
    if row.low <= 0 <= row.high or f"{row.value:.3f}" in ("0.000", "-0.000"):
        return ""
    return "  higher" if row.value > 0 else "  lower"
