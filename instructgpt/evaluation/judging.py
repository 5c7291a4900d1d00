"""Who judges in ``evaluate``."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from instructgpt.evaluation.endpoint import Endpoint
from instructgpt.evaluation.endpoint_judge import EndpointJudge
from instructgpt.evaluation.files import read_json
from instructgpt.evaluation.judges import CallableJudge, Judge, PanelJudge, ScoreJudge
from instructgpt.evaluation.measures import Answers
from instructgpt.evaluation.scoring import Scorer
from instructgpt.feedback.panels import Panel, panel_from_json
from instructgpt.rewards.combine import Combined
from instructgpt.types import UserError, require

RESERVED = (
    *("panel", "held_out", "shifted", "reward_model", "judge_model", "endpoint"),
    "ground_truth",
)
"""Judges whom the claims and the report know by name."""


class Wanted(NamedTuple):
    """Who is to judge."""

    panels: str | None = None  # path of panels.json
    reward_model: str | None = None  # that policies were trained against
    judge_model: str | None = None  # another, that took no part
    function: str | None = None  # module:function
    endpoint: Endpoint = Endpoint()
    heads: Combined = Combined()  # of the reward model


class Bench(NamedTuple):
    """What judges."""

    scorer: Scorer | None
    second: Scorer | None  # took no part in training
    endpoint: EndpointJudge | None

    def close(self, done: bool) -> None:
        """Keep what the endpoint said; scores are kept as they come.

        Args:
            done: everything is written: there is nothing to go on with.
        """
        if self.endpoint is not None:
            self.endpoint.close(done)


def take_seats(wanted: Wanted, folder: Path | None) -> Bench:
    """Load the models that judge.

    Args:
        wanted: who is to judge.
        folder: for notes of what the endpoint said; None: nothing is noted.
    """
    first, second, endpoint = wanted.reward_model, wanted.judge_model, None
    fits = first is not None or wanted.heads == Combined()
    require(fits, "--heads", "left out without --reward_model", wanted.heads)
    # What can be wrong is found before models are loaded, and asked nothing yet.
    if wanted.endpoint.url is not None:
        notes = None if folder is None else folder / "judgements.jsonl"
        endpoint = EndpointJudge(wanted.endpoint, notes)
    bench = Bench(None, None, endpoint)
    try:
        if first is not None:
            scorer = Scorer(first, "--reward_model", wanted.heads)
            bench = bench._replace(scorer=scorer)
        if second is not None:
            scorer = Scorer(second, "--judge_model")
            bench = bench._replace(second=scorer)
            if bench.scorer is not None and bench.scorer.digest == scorer.digest:
                raise UserError(
                    f"--judge_model must be another model than --reward_model, got {second}: both "
                    "have the same weights"
                )
    except BaseException:
        bench.close(done=False)
        raise
    return bench


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
    panels: dict[str, Panel], bench: Bench, function: str | None, graded: bool
) -> dict[str, Judge]:
    """Everyone who can compare two responses.

    Args:
        panels: groups of simulated labelers.
        bench: models.
        function: ``module:function`` of a user.
        graded: whether responses have a true utility.
    """
    judges: dict[str, Judge] = {}
    for name, panel in panels.items():
        about = f"expected vote of {len(panel.labelers)} {name.replace('_', '-')} labelers"
        judges["panel" if name == "training" else name] = PanelJudge(about, panel.prefers)
    # Who took no part first: the summary is by the first.
    if bench.second is not None:
        about = "a second reward model's higher score"
        judges["judge_model"] = ScoreJudge(about, bench.second)
    if bench.endpoint is not None:
        judges["endpoint"] = bench.endpoint
    if function is not None:
        name = function.rpartition(":")[2]
        if name in RESERVED:
            raise UserError(f"--judge must have another name than our own judge {name}: rename it")
        judges[name] = CallableJudge(function, import_function(function))
    if bench.scorer is not None:
        judges["reward_model"] = ScoreJudge("the reward model's higher score", bench.scorer)
    if graded:
        judges["ground_truth"] = ScoreJudge(
            "the higher true utility", lambda answers: [answer.utility for answer in answers]
        )
    if not judges:
        raise UserError(
            "evaluate must have a judge: --judge, --judge_model, --judge_endpoint.url, "
            "--reward_model, or prompts of the world with their meta, got none"
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
