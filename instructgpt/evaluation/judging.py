"""Who judges in ``evaluate``."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from instructgpt.evaluation.files import read_json
from instructgpt.evaluation.judges import CallableJudge, Judge, PanelJudge, ScoreJudge
from instructgpt.evaluation.measures import Answers
from instructgpt.evaluation.scoring import Scorer
from instructgpt.feedback.panels import Panel, panel_from_json
from instructgpt.types import UserError

RESERVED = ("panel", "held_out", "shifted", "reward_model", "ground_truth")
"""Judges whom the claims and the report know by name."""


def read_panels(path: str | None) -> dict[str, Panel]:
    """The groups of labelers in ``panels.json``."""
    if path is None:
        return {}
    groups = read_json(path).get("panels")
    if not isinstance(groups, dict) or not groups:
        raise UserError(f'{path}: must have "panels", as `label` writes them')
    return {name: panel_from_json(value, f"{path}: {name}") for name, value in groups.items()}


def is_graded(answers: Answers) -> bool:
    """Whether the world's grader knows the prompts."""
    return any(one.attributes for rows in answers.by_model.values() for r in rows for one in r)


def make_judges(
    panels: dict[str, Panel], scorer: Scorer | None, function: str | None, graded: bool
) -> dict[str, Judge]:
    """Everyone who can compare two responses.

    Args:
        panels: groups of simulated labelers.
        scorer: a reward model.
        function: ``module:function`` of a user.
        graded: whether responses have a true utility.
    """
    judges: dict[str, Judge] = {}
    for name, panel in panels.items():
        about = f"expected vote of {len(panel.labelers)} {name.replace('_', '-')} labelers"
        judges["panel" if name == "training" else name] = PanelJudge(about, panel.prefers)
    if scorer is not None:
        judges["reward_model"] = ScoreJudge("the reward model's higher score", scorer)
    if graded:
        judges["ground_truth"] = ScoreJudge(
            "the higher true utility", lambda answers: [answer.utility for answer in answers]
        )
    if function is not None:
        name = function.rpartition(":")[2]
        if name in RESERVED:
            raise UserError(f"--judge must have another name than our own judge {name}: rename it")
        judges[name] = CallableJudge(function, import_function(function))
    if not judges:
        raise UserError(
            "evaluate must have a judge: --judge, --reward_model, or prompts of the world with "
            "their meta, got none"
        )
    return judges


def import_function(name: str) -> Any:
    """The function that ``module:function`` names."""
    module, _, attribute = name.partition(":")
    try:
        found = getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"--judge must be module:function, got {name}: {error}") from None
    if not callable(found):
        raise UserError(f"--judge must be a function, got {name}, a {type(found).__name__}")
    return found
