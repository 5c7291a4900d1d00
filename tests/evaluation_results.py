"""Results of an evaluation from the parts of ``results.json`` that a test is about."""

from typing import Any

from instructgpt.evaluation.records import from_json
from instructgpt.evaluation.results import Results

LEAST: dict[str, Any] = {
    "title": "Evaluation",
    "seed": 0,
    "models": [],
    "labels": {},
    "baseline": "",
    "decodings": [],
    "judges": {},
}


def results_of(parts: dict[str, Any]) -> Results:
    """As they are read from the file."""
    return from_json(Results, LEAST | parts, "results.json")
