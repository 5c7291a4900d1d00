"""What ``evaluate`` writes: results, report, figures, TensorBoard files, a summary."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from instructgpt.evaluation.records import from_json, to_json
from instructgpt.evaluation.report.layout import Contents
from instructgpt.evaluation.report.reading import said
from instructgpt.evaluation.results import (
    Curves,
    OverOptimisation,
    Results,
    RewardModel,
    Verdict,
)
from instructgpt.evaluation.statistics import Estimate
from instructgpt.models.folder import write_text
from instructgpt.terminal import say

DIGITS = 6
"""Significant digits of a number in results.json; fewer than what differs between machines."""


EVENTS = ".evaluate"
"""How the name of our TensorBoard file ends."""


def plain(value: Any) -> Any:
    """JSON data with rounded numbers; what is not finite becomes null.

    >>> plain({"value": 0.12345678, "low": float("nan"), "n": 3})
    {'value': 0.123457, 'low': None, 'n': 3}
    """
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") + 0.0 if math.isfinite(value) else None
    return value


def write_all(
    results: Results,
    curves: dict[str, Curves],
    run: dict[str, Any],
    output: Path,
    contents: Contents,
) -> None:
    """Write everything and say what came out.

    Args:
        results: of the evaluation.
        curves: learning curves for the report, more than those in the results.
        run: what was run.
        output: folder.
        contents: of the report.
    """
    from instructgpt.evaluation.report.page import write_report

    data = plain(to_json(results))
    path = output / "results.json"
    write_text(path, json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    written = from_json(Results, data, str(path))  # all else says what this file says
    shown = from_json(dict[str, Curves], plain(to_json(curves)), "curves")
    page = write_report(replace(written, curves=shown or written.curves), run, output, contents)
    write_events(written, output)
    say(summary(written))
    say(f"wrote {page}")


def write_events(results: Results, output: Path) -> None:
    """Write scalars and figures as a TensorBoard file, instead of that of an earlier call.

    Its name tells it from the files of training, which may lie in the same folder.
    """
    from tensorboard.compat.proto.summary_pb2 import Summary
    from torch.utils.tensorboard import SummaryWriter

    for old in output.glob(f"events.out.tfevents.*{EVENTS}"):
        old.unlink()
    with SummaryWriter(str(output), filename_suffix=EVENTS) as writer:
        for name, value in scalars(results).items():
            writer.add_scalar(name, value, 0)
        for name, value, step in points(results):
            writer.add_scalar(name, value, step)
        for path in sorted((output / "figures").glob("*.png")):
            # As they are on the disk: drawing them again would take seconds.
            data = path.read_bytes()
            width, height = struct.unpack(">II", data[16:24])  # of the header
            image = Summary.Image(encoded_image_string=data, width=width, height=height)
            value = Summary.Value(tag=f"figures/{path.stem}", image=image)
            writer.file_writer.add_summary(Summary(value=[value]), 0)


def scalars(results: Results) -> dict[str, float]:
    """The main numbers by name."""
    found = {
        f"win_rate/{row.judge}/{row.decoding}/{row.model}_over_{row.against}": row.value
        for row in results.win_rates
    }
    for row in results.win_rates:
        if (level := row.length_controlled) is not None:
            name = f"{row.judge}/{row.decoding}/{row.model}_over_{row.against}"
            found[f"win_rate_at_equal_length/{name}"] = level.value
    for part, table in results.tables.items():
        for model, measures in table.items():
            found |= {f"{part}/{key}/{model}": one.value for key, one in measures.items()}
    for part, table in results.ratings.items():
        for decoding, models in table.items():
            found |= {f"{part}/{decoding}/{model}": one.value for model, one in models.items()}
    for part, tables in (("scores", results.scores), ("texts", results.texts)):
        for decoding, table in tables.items():
            for model, measures in table.items():
                named = {f"{part}/{decoding}/{key}/{model}": key for key in measures}
                found |= {name: measures[key].value for name, key in named.items()}
    found |= {f"agreement/{group}": one.value for group, one in results.agreement.items()}
    if results.alignment_tax is not None:
        found["alignment_tax/recovered"] = results.alignment_tax.recovered.value
    for name, tested in results.tested.items():
        found |= {f"{name}/{key}": value for key, value in of_reward_model(tested).items()}
    return {name: value for name, value in found.items() if not math.isnan(value)}


def of_reward_model(found: RewardModel) -> dict[str, float]:
    """The main numbers of a reward model by name."""
    numbers = {f"accuracy/{group}": one.value for group, one in found.accuracy.items()}
    numbers |= {f"longer_wins/{group}": one.value for group, one in found.longer_wins.items()}
    numbers |= {f"bag_of_words/{group}": one.value for group, one in found.bag_of_words.items()}
    numbers |= {f"calibration/{group}": value for group, value in found.calibration.items()}
    numbers |= {f"disagreement/{group}": one.value for group, one in found.disagreement.items()}
    numbers |= {f"ceiling/{group}": value for group, value in found.ceiling.items()}
    if (crossed := found.cross_validation) is not None:
        numbers["cross_validation/in_group"] = crossed.in_group.value
        numbers["cross_validation/held_out"] = crossed.held_out.value
        numbers["cross_validation/difference"] = crossed.difference.value
    if found.ground_truth_accuracy is not None:
        numbers["ground_truth_accuracy"] = found.ground_truth_accuracy.value
    numbers["calibration_error"] = found.calibration_error
    return numbers


def points(results: Results) -> Iterator[tuple[str, float, int]]:
    """Name, value and step of over-optimisation; n is the step of best-of-n."""
    found = results.over_optimisation or OverOptimisation()
    for row in found.best_of_n:
        yield from _points("best_of_n", row.n, row.kl, row.score, row.utility, row.win_rate)
    for model, curve in found.checkpoints.items():
        for one in curve:
            yield from _points(model, one.step, one.kl, one.score, one.utility, None)


def _points(
    name: str, step: int, kl: float, *estimates: Estimate | None
) -> Iterator[tuple[str, float, int]]:
    measured = zip(("score", "utility", "win_rate"), estimates, strict=True)
    values = {"kl": kl} | {key: one.value for key, one in measured if one is not None}
    for key, value in values.items():
        if not math.isnan(value):
            yield f"over_optimisation/{name}/{key}", value, step


def at_equal_length(found: Estimate) -> str:
    """The end of a line about a win rate."""
    return f"  at equal length {found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"


def of_groups(found: RewardModel) -> list[str]:
    """A line for each group of labelers, or set: how often a reward model is right, and others."""
    lines = []
    for group, one in found.accuracy.items():
        parts = [f"right {one.value:.3f} [{one.low:.3f}, {one.high:.3f}]"]
        others = {"longer wins": found.longer_wins, "bag of words": found.bag_of_words}
        parts += [f"{name} {known[group].value:.3f}" for name, known in others.items() if known]
        if group in found.calibration:
            parts.append(f"calibration error {found.calibration[group]:.3f}")
        if group in found.disagreement:
            parts.append(f"the heads are {found.disagreement[group].value:.3f} apart")
        lines.append(f"  {group:28} {', '.join(parts)}  n = {one.n}")
    return lines


def summary(results: Results) -> str:
    """Win rates over the baseline, and how many claims hold, as text."""
    base, labels = results.baseline, results.labels
    judge = next(iter(results.judges), None)
    lines = [] if judge is None else [f"preferred to {labels[base]} by {results.judges[judge]}:"]
    for row in results.over_baseline:
        if row.judge == judge:
            span = f"[{row.low:.3f}, {row.high:.3f}]"
            level = "" if row.length_controlled is None else at_equal_length(row.length_controlled)
            name = f"{labels[row.model]} ({row.decoding})"
            lines.append(f"  {name:28} {row.value:.3f} {span}  n = {row.n}{level}")
    for order in results.showing_orders:
        first, flips = order.first_preferred, order.flips
        if order.judge == judge and first.n:
            name, span = "what is shown first", f"[{first.low:.3f}, {first.high:.3f}]"
            other = f"another winner in the other order: {flips.value:.3f}"
            lines.append(f"  {name:28} {first.value:.3f} {span}  n = {first.n}  {other}")
    for decoding, table in results.scores.items():
        for model, found in table.items():
            if (apart := found.get("disagreement")) is not None:
                name, score = f"{labels[model]} ({decoding})", found["score"].value
                lines.append(
                    f"  {name:28} score {score:.3f}, the heads are {apart.value:.3f} apart"
                )
    for name, tested in results.tested.items():
        lines += [f"{said(name)}, of decided pairs:", *of_groups(tested)]
    if claims := results.claims:
        verdicts = [claim.verdict for claim in claims]
        counts = ", ".join(
            f"{verdicts.count(verdict)} {verdict}"
            for verdict in get_args(Verdict)
            if verdict in verdicts
        )
        own = sum(claim.own for claim in claims)
        lines.append(f"{len(claims)} claims ({len(claims) - own} of them the paper's): {counts}")
    return "\n".join(lines)
