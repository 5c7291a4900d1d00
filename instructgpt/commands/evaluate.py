"""``evaluate``: compare policies by their answers; win rates, ground truth, claims, a report."""

from __future__ import annotations

from typing import Literal


def evaluate(
    answers: dict[str, str],
    baseline: str = "sft",
    output: str = "runs/evaluation",
    title: str = "Evaluation",
    labels: dict[str, str] | None = None,
    greedy: dict[str, str] | None = None,
    nlp: dict[str, str] | None = None,
    judge: str | None = None,
    panels: str | None = None,
    reward_model: str | None = None,
    comparisons: str | None = None,
    folds: dict[str, str] | None = None,
    best_of_n: str | None = None,
    checkpoints: dict[str, str] | None = None,
    checkpoint_prompts: str | None = None,
    runs: dict[str, str] | None = None,
    claims: Literal["off", "shown", "judged"] = "off",
    run_info: str | None = None,
    seed: int = 0,
) -> None:
    """Compare policies by their answers to the same prompts; write results.json and report.html.

    Sections exist for what is given; prompts of the miniature world are graded by its truth.

    Args:
        answers: model -> JSONL of ``generate`` at temperature 1; in the order of the report.
        baseline: the model that win rates are against.
        output: folder to write: also figures, and TensorBoard files.
        title: of the report.
        labels: model -> its name in the report.
        greedy: model -> answers to the same prompts by ``generate --greedy``.
        nlp: model -> greedy answers to public NLP tasks (``nlp.jsonl`` of ``world``).
        judge: ``module:function`` of (prompt, first, second) that returns how probable it is, from
            0 to 1, that the first is better; both orders are asked.
        panels: ``panels.json`` of ``label``: its labelers judge.
        reward_model: folder of a reward model: it judges.
        comparisons: ``validation.jsonl`` of ``label``, to test the reward model on.
        folds: number of a fold of ``label`` -> reward model trained on its comparisons.
        best_of_n: N responses of the baseline a prompt; win rates need one more than n.
        checkpoints: model -> folder of its PPO run, whose validations become a curve.
        checkpoint_prompts: the validation prompts of these runs.
        runs: stage -> folder of its run, for learning curves.
        claims: put the paper's claims beside the results, and judge them or not.
        run_info: JSON about the run for the report, such as ``pipeline.json``.
        seed: of the bootstrap and of ratings.
    """
    from instructgpt.evaluation.evaluation import Evaluation  # `--help` should not wait for it
    from instructgpt.miniature.grading import WORLD
    from instructgpt.miniature.paper import CONTENTS, add_claims, add_truth

    found = Evaluation(answers, greedy, baseline, labels, seed, WORLD)
    found.compare(panels, reward_model, judge)
    add_truth(found, nlp)
    found.test_reward_model(comparisons, folds)
    found.over_optimise(best_of_n, checkpoints, checkpoint_prompts)
    found.look_back(runs)
    found.close(title)
    add_claims(found, claims)
    found.write(output, run_info, CONTENTS)
