"""What the paper in miniature adds to an evaluation: the truth of its world, and the claims."""

from __future__ import annotations

from instructgpt.evaluation.answers import load_answers
from instructgpt.evaluation.evaluation import Evaluation
from instructgpt.evaluation.judging import Wanted as Wanted
from instructgpt.evaluation.measures import Answers
from instructgpt.evaluation.report import sections_run, sections_training
from instructgpt.evaluation.report.figures import draw_win_rates
from instructgpt.evaluation.report.figures_training import DRAWERS as TRAINING_FIGURES
from instructgpt.evaluation.report.layout import Contents
from instructgpt.evaluation.report.sections import trained, win_rates
from instructgpt.evaluation.report.sections_texts import texts
from instructgpt.evaluation.roles import Claims, Roles
from instructgpt.miniature import claims_section, report_figures, report_sections
from instructgpt.miniature.claims import judge_claims
from instructgpt.miniature.grading import WORLD
from instructgpt.miniature.nlp_tasks import add_nlp
from instructgpt.miniature.ratings import likert
from instructgpt.miniature.truth import add_ground_truth
from instructgpt.types import UserError

CONTENTS = Contents(
    (
        claims_section.claims_section,
        win_rates,
        texts,
        trained,
        *report_sections.SECTIONS,
        *sections_training.SECTIONS,
        *sections_run.SECTIONS,
    ),
    (draw_win_rates, *report_figures.DRAWERS, *TRAINING_FIGURES),
    claims_section.summary,
    claims_section.judged_here,
)
"""The report of the miniature."""


def opened(
    answers: dict[str, str] | None,
    greedy: dict[str, str] | None,
    baseline: str | None,
    labels: dict[str, str] | None,
    seed: int,
    claims: Claims,
    roles: Roles,
) -> Evaluation:
    """An evaluation that grades prompts of the world; arguments as of ``evaluate``."""
    roles.check(answers or {}, claims)
    return Evaluation(answers or {}, greedy, baseline, labels, seed, WORLD)


def add(found: Evaluation, nlp: dict[str, str] | None, claims: Claims, roles: Roles) -> None:
    """All that needs the world's ground truth, and the paper's claims beside it.

    Args:
        found: everything else.
        nlp: model -> path of answers to public NLP tasks.
        claims: whether to show them, and to say which hold.
        roles: of the models.
    """
    add_truth(found, nlp, roles)
    add_claims(found, claims, roles)


def add_truth(found: Evaluation, nlp: dict[str, str] | None, roles: Roles) -> None:
    """All that needs the world's ground truth.

    Args:
        found: so far.
        nlp: model -> path of answers to public NLP tasks.
        roles: of the models.
    """
    if found.graded and "training" in found.panels and found.general["sampled"].questions:
        found.results.likert = {
            decoding: likert(answers, found.panels["training"], decoding, found.seed)
            for decoding, answers in found.general.items()
        }
    if found.graded:
        add_ground_truth(found.results, found.answers["sampled"], found.general, found.seed)
    if nlp:
        first = found.baseline if found.baseline in nlp else next(iter(nlp))
        add_nlp(found.results, nlp_answers(nlp, first), roles, found.seed)


def nlp_answers(paths: dict[str, str], first: str) -> Answers:
    """Answers to public NLP tasks.

    Args:
        paths: model -> file.
        first: the model whose file says what the prompts are.
    """
    answers = load_answers(paths, first, WORLD)
    every = (one for rows in answers.by_model.values() for row in rows for one in row)
    if not all("correct" in one.metadata for one in every):
        raise UserError(f"{paths[first]}: must be answers to nlp.jsonl of the world")
    return answers


def add_claims(found: Evaluation, claims: Claims, roles: Roles) -> None:
    """The paper's claims beside the results.

    Args:
        found: everything else.
        claims: whether to show them, and to say which hold.
        roles: of the models.
    """
    if claims != "off":
        found.results.claims = judge_claims(found.results, roles, claims == "judged")
