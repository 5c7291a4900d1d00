"""What ``evaluate`` writes: results, report, figures, TensorBoard files, a summary."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from instructgpt.data.opening import check_file, kind_of
from instructgpt.evaluation.report.layout import Contents
from instructgpt.models.folder import write_text
from instructgpt.terminal import say
from instructgpt.types import UserError

DIGITS = 6
"""Significant digits of a number in results.json; fewer than what differs between machines."""


EVENTS = ".evaluate"
"""How the name of our TensorBoard file ends."""


def read_json(path: str) -> dict[str, Any]:
    """An object in a JSON file."""
    if kind_of(path):  # what is not there is told below
        check_file(path)
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: must be JSON, got: {error}") from None
    if not isinstance(value, dict):
        raise UserError(f"{path}: must hold a JSON object, got {str(value)[:60]}")
    return value


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
    results: dict[str, Any],
    curves: dict[str, Any],
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

    results = plain(results)
    text = json.dumps(results, indent=1, ensure_ascii=False, allow_nan=False)
    write_text(output / "results.json", text + "\n")
    shown = results | ({"curves": plain(curves)} if curves else {})
    page = write_report(shown, run, output, contents)
    write_events(results, output)
    say(summary(results))
    say(f"wrote {page}")


def write_events(results: dict[str, Any], output: Path) -> None:
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


def scalars(results: dict[str, Any]) -> dict[str, float]:
    """The main numbers by name."""
    found = {}
    for row in results["win_rates"]:
        name = f"win_rate/{row['judge']}/{row['decoding']}/{row['model']}_over_{row['against']}"
        found[name] = row["value"]
    for part in ("metadata", "use_cases", "closed_domain", "truthfulness", "toxicity", "nlp"):
        for model, measures in results.get(part, {}).items():
            found |= {f"{part}/{key}/{model}": one["value"] for key, one in measures.items()}
    for part in ("likert", "utility"):
        for decoding, models in results.get(part, {}).items():
            found |= {f"{part}/{decoding}/{m}": one["value"] for m, one in models.items()}
    for group, one in results.get("agreement", {}).items():
        found[f"agreement/{group}"] = one["value"]
    for key, one in results.get("alignment_tax", {}).items():
        found[f"alignment_tax/{key}"] = one["value"]
    found |= of_reward_model(results.get("reward_model", {}))
    return {name: value for name, value in found.items() if value is not None}


def of_reward_model(results: dict[str, Any]) -> dict[str, float]:
    """The main numbers of the reward model by name."""
    found = {}
    for part in ("accuracy", "longer_wins"):
        for group, one in results.get(part, {}).items():
            found[f"reward_model/{part}/{group}"] = one["value"]
    for group, value in results.get("ceiling", {}).items():
        found[f"reward_model/ceiling/{group}"] = value
    for key, one in results.get("cross_validation", {}).items():
        if key != "folds":
            found[f"reward_model/cross_validation/{key}"] = one["value"]
    if "ground_truth_accuracy" in results:
        found["reward_model/ground_truth_accuracy"] = results["ground_truth_accuracy"]["value"]
    if "calibration_error" in results:
        found["reward_model/calibration_error"] = results["calibration_error"]
    return found


def points(results: dict[str, Any]) -> Iterator[tuple[str, float, int]]:
    """Name, value and step of over-optimisation; n is the step of best-of-n."""
    found = results.get("over_optimisation", {})
    rows = [("best_of_n", row["n"], row) for row in found.get("best_of_n", [])]
    for model, curve in found.get("checkpoints", {}).items():
        rows += [(model, row["step"], row) for row in curve]
    for name, step, row in rows:
        for key in ("kl", "score", "utility", "win_rate"):
            one = row.get(key)
            value = one["value"] if isinstance(one, dict) else one
            if value is not None:
                yield f"over_optimisation/{name}/{key}", value, step


def summary(results: dict[str, Any]) -> str:
    """Win rates over the baseline, and how many claims hold, as text."""
    base, labels = results["baseline"], results["labels"]
    judge = next(iter(results["judges"]))
    lines = [f"preferred to {labels[base]} by {results['judges'][judge]}:"]
    for row in results["win_rates"]:
        if row["against"] == base and row["judge"] == judge:
            span = f"[{row['low']:.3f}, {row['high']:.3f}]"
            name = f"{labels[row['model']]} ({row['decoding']})"
            lines.append(f"  {name:28} {row['value']:.3f} {span}  n = {row['n']}")
    if claims := results.get("claims"):
        verdicts = [claim["verdict"] for claim in claims]
        counts = ", ".join(
            f"{verdicts.count(verdict)} {verdict}"
            for verdict in ("holds", "does not hold", "not judged")
            if verdict in verdicts
        )
        own = sum(claim["own"] for claim in claims)
        lines.append(f"{len(claims)} claims ({len(claims) - own} of them the paper's): {counts}")
    return "\n".join(lines)
