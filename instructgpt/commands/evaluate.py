"""``evaluate``: compare policies by their answers; win rates, ground truth, claims, a report."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from instructgpt.evaluation.endpoint import Endpoint
from instructgpt.evaluation.roles import Claims, Roles
from instructgpt.rewards.combine import Combined


def evaluate(
    answers: dict[str, str] | None = None,
    baseline: str | None = None,
    output: str = "runs/evaluation",
    title: str = "Evaluation",
    labels: dict[str, str] | None = None,
    greedy: dict[str, str] | None = None,
    nlp: dict[str, str] | None = None,
    judge: str | None = None,
    panels: str | None = None,
    reward_model: str | None = None,
    heads: Combined = Combined(),
    judge_model: str | None = None,
    judge_endpoint: Endpoint = Endpoint(),
    comparisons: str | None = None,
    folds: dict[str, str] | None = None,
    best_of_n: str | None = None,
    checkpoints: dict[str, str] | None = None,
    checkpoint_prompts: str | None = None,
    runs: dict[str, str] | None = None,
    claims: Claims = "off",
    roles: Roles = Roles(),
    run_info: str | None = None,
    seed: int = 0,
) -> None:
    """Compare policies by their answers to the same prompts; write results.json and report.html.

    Args:
        answers: model -> JSONL of ``generate`` at temperature 1; none: with ``comparisons`` only.
        baseline: the model that win rates are against; default: the first of ``answers``.
        output: folder to write, sections for what is given; the same command goes on where it was.
        title: of the report.
        labels: model -> its name in the report.
        greedy: model -> answers to the same prompts by ``generate --greedy``.
        nlp: model -> greedy answers to public NLP tasks (``nlp.jsonl`` of ``world``).
        judge: ``module:function`` of (prompt, first, second): probability that the first is better.
        panels: ``panels.json`` of ``label``: its labelers judge.
        reward_model: folder of the reward model that policies were trained against: it judges, too.
        heads: of ``reward_model``, where it has several.
        judge_model: folder of another reward model, which took no part: from other rows, say.
        judge_endpoint: a model behind an OpenAI-compatible endpoint, which judges.
        comparisons: held-out rows, or ``validation.jsonl`` of ``label``, to test reward models on.
        folds: number of a fold of ``label`` -> reward model trained on its comparisons.
        best_of_n: N responses of the baseline a prompt; win rates need one more than n.
        checkpoints: model -> folder of its run, whose validations become a curve.
        checkpoint_prompts: the validation prompts of these runs.
        runs: stage -> folder of its run, for learning curves.
        claims: put the paper's claims beside the results, and judge them or not.
        roles: which model has which role in the claims.
        run_info: JSON about the run for the report, such as ``pipeline.json``.
        seed: of the bootstrap and of ratings.
    """
    from instructgpt.miniature import paper  # `--help` should not wait for it

    who = panels, reward_model, judge_model, judge, judge_endpoint, heads
    with closing(paper.opened(answers, greedy, baseline, labels, seed, claims, roles)) as found:
        found.compare(paper.Wanted(*who), Path(output))
        found.look_further(comparisons, folds, best_of_n, checkpoints, checkpoint_prompts, runs)
        paper.add(found, nlp, claims, roles)
        found.write(output, title, run_info, paper.CONTENTS)
