"""One evaluation: its inputs, and the parts of ``results.json`` one after the other."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from instructgpt.evaluation import independence, judging, report_files, reward_tests
from instructgpt.evaluation.answers import GENERAL, Grader, load_answers
from instructgpt.evaluation.files import read_json
from instructgpt.evaluation.history import (
    checkpoint_curve,
    event_curves,
    prompts_by_text,
    validation_curves,
)
from instructgpt.evaluation.judges import Judge
from instructgpt.evaluation.measures import Answers, win_rates
from instructgpt.evaluation.report.layout import Contents
from instructgpt.evaluation.report.page import PLAIN
from instructgpt.evaluation.results import (
    Curves,
    OverOptimisation,
    Results,
    ShownAnswer,
    ShownPrompt,
)
from instructgpt.evaluation.scoring import Scorer, score_measures
from instructgpt.evaluation.texts import text_measures
from instructgpt.feedback.panels import Panel
from instructgpt.rewards.learned import LearnedReward
from instructgpt.terminal import note
from instructgpt.types import UserError, require

Paths = dict[str, str] | None

SHOWN = 20
"""Prompts whose answers are shown side by side."""


class Evaluation:
    """Answers of several models to the same prompts, and what was found out about them.

    Args:
        answers: model -> path of its answers; none where only reward models are tested.
        greedy: the same, decoded greedily.
        baseline: model that win rates are against; default: the first.
        labels: names for the report.
        seed: of the bootstrap and of ratings.
        grader: knows prompts whose answers are to be graded.
    """

    def __init__(
        self,
        answers: dict[str, str],
        greedy: Paths,
        baseline: str | None,
        labels: Paths,
        seed: int,
        grader: Grader | None = None,
    ) -> None:
        baseline = baseline or next(iter(answers), "")
        self.baseline, self.seed, self.grader = baseline, seed, grader
        self.answers = answered(answers, greedy, baseline, grader)
        self.general = {name: found.of(GENERAL) for name, found in self.answers.items()}
        self.graded = bool(answers) and judging.is_graded(self.answers["sampled"])
        self.panels: dict[str, Panel] = {}
        self.panels_path: str | None = None
        self.bench = judging.Bench(None, None, None)
        self.judges: dict[str, Judge] = {}
        self.curves: dict[str, Curves] = {}
        self.results = Results(
            title="Evaluation",
            seed=seed,
            models=list(answers),
            labels={one: (labels or {}).get(one, one) for one in answers},
            baseline=baseline,
            decodings=list(self.answers),
            judges={},
        )

    @property
    def scorer(self) -> Scorer | None:
        """The reward model that policies were trained against."""
        return self.bench.scorer

    def compare(self, wanted: judging.Wanted, folder: Path | None = None) -> None:
        """Win rates by everyone who judges.

        Args:
            wanted: who is to judge.
            folder: for notes of what models said, until everything is written.
        """
        if not self.answers:
            asked = {"judge": wanted.function, "judge_endpoint.url": wanted.endpoint.url}
            check_alone(**asked)
        self.panels, self.panels_path = judging.read_panels(wanted.panels), wanted.panels
        self.bench = judging.take_seats(wanted, folder)
        if self.bench.second is not None and self.bench.scorer is not None:
            self._tell_independence(self.bench.second.reward, self.bench.scorer.reward)
        seen = self.panels if self.graded else {}
        if self.answers:
            self.judges = judging.make_judges(seen, self.bench, wanted.function, self.graded)
        self.results.judges = {name: one.description for name, one in self.judges.items()}
        found = [
            win_rates(answers, self.judges, self.baseline, decoding, self.seed)
            for decoding, answers in self.general.items()
            if answers.questions
        ]
        if self.bench.endpoint is not None:
            self.bench.endpoint.tell()
        self.results.showing_orders = [row for one in found for row in one.orders]
        self.results.win_rates = [row for one in found for row in one.rows]
        between = [row for one in found for row in one.differences]
        self.results.add_differences("win_rate", between)
        if (scorer := self.scorer) is not None:
            self.results.scores = {
                decoding: score_measures(answers, scorer, self.seed)
                for decoding, answers in self.general.items()
                if answers.questions
            }
        self.results.texts = {
            decoding: text_measures(answers, self.seed)
            for decoding, answers in self.general.items()
            if answers.questions
        }

    def test_reward_model(self, comparisons: str | None, folds: Paths) -> None:
        """Agreement of the labelers, and the reward model beside it.

        Args:
            comparisons: path of rankings.
            folds: number of a fold -> its reward model.
        """
        if self.panels_path is not None:
            self.results.agreement = reward_tests.agreement(self.panels_path)
        if comparisons is None and not folds:
            return
        second = self.bench.second
        if comparisons is None or (self.scorer is None and (folds or second is None)):
            raise UserError(
                "--comparisons needs --reward_model or --judge_model, and --folds needs "
                "--comparisons and --reward_model"
            )
        if folds and self.panels_path is None:
            raise UserError("--folds needs --panels of the same `label`")
        rows = reward_tests.read_rankings(comparisons, self.grader)
        if self.scorer is not None:
            self.results.reward_model = reward_tests.check_reward_model(
                rows, self.scorer, self.panels_path, folds or {}, self.seed
            )
        if second is not None:
            self.results.judge_model = reward_tests.on_rankings(rows, second, self.seed)

    def over_optimise(
        self, best_of_n: str | None, checkpoints: Paths, checkpoint_prompts: str | None
    ) -> None:
        """Score and true utility against KL, for best-of-n and for checkpoints of runs.

        Args:
            best_of_n: path of N responses a prompt.
            checkpoints: model -> folder of the run that trained it.
            checkpoint_prompts: path of the prompts that these validated on.
        """
        found = OverOptimisation()
        if best_of_n is not None:
            if self.scorer is None:
                raise UserError("--best_of_n needs --reward_model, which chooses the best")
            judge = self.judges.get("panel")
            found.best_of_n = reward_tests.best_of_samples(
                best_of_n, self.scorer, judge, self.grader, self.seed
            )
        if checkpoints:
            if checkpoint_prompts is None:
                raise UserError("--checkpoints needs --checkpoint_prompts")
            prompts = prompts_by_text(checkpoint_prompts)
            found.checkpoints = {
                name: checkpoint_curve(run, prompts, self.grader, self.scorer, self.seed)
                for name, run in checkpoints.items()
            }
        if found.best_of_n or found.checkpoints:
            self.results.over_optimisation = found

    def look_further(
        self,
        comparisons: str | None,
        folds: Paths,
        best_of_n: str | None,
        checkpoints: Paths,
        checkpoint_prompts: str | None,
        runs: Paths,
    ) -> None:
        """The reward model, over-optimisation and training; arguments as of the three methods."""
        if not (self.answers or comparisons or best_of_n or checkpoints or runs):
            raise UserError("evaluate must have --answers or --comparisons, got neither")
        self.test_reward_model(comparisons, folds)
        self.over_optimise(best_of_n, checkpoints, checkpoint_prompts)
        self.look_back(runs)

    def look_back(self, runs: Paths) -> None:
        """Learning curves.

        Args:
            runs: stage -> folder of its run.
        """
        if not runs:
            return
        found = {stage: validation_curves(run) for stage, run in runs.items()}
        self.results.curves = found
        # What a killed run has left in its TensorBoard files is not always the same, so these
        # are for the report alone.
        self.curves = {stage: event_curves(run) | found[stage] for stage, run in runs.items()}

    def write(
        self, output: str, title: str, run_info: str | None, contents: Contents = PLAIN
    ) -> None:
        """Write everything, say what came out.

        Args:
            output: folder.
            title: of the report.
            run_info: path of a JSON file about the run.
            contents: of the report.
        """
        self.results.title, self.results.samples = title, samples(self.general)
        for scorer in (self.bench.scorer, self.bench.second):
            if scorer is not None:
                note(f"reward model '{scorer.reward.init_from}': {scorer.choice}")
        run = read_json(run_info) if run_info else {}
        report_files.write_all(self.results, self.curves, run, Path(output), contents)
        self.bench.close(done=True)

    def close(self) -> None:
        """Keep what there is to go on with, where not all was written."""
        self.bench.close(done=False)

    def _tell_independence(self, judge: LearnedReward, reward: LearnedReward) -> None:
        self.results.reward_models = independence.trained(judge, reward)
        for line in self.results.reward_models["judge_model"].shares:
            note(f"--judge_model and --reward_model: {line}")


def answered(
    answers: dict[str, str], greedy: Paths, baseline: str, grader: Grader | None
) -> dict[str, Answers]:
    """The answers by decoding; arguments as of ``Evaluation``."""
    if not answers:
        check_alone(greedy=greedy, baseline=baseline or None)
        return {}
    check_models(answers, greedy, baseline)
    found = {"sampled": load_answers(answers, baseline, grader)}
    if greedy:
        found["greedy"] = load_answers(greedy, baseline, grader)
    return found


def check_alone(**given: Any) -> None:
    """Refuse options that are about answers, where there are none."""
    for name, value in given.items():
        require(not value, f"--{name}", "left out without --answers", value)


def check_models(answers: dict[str, str], greedy: Paths, baseline: str) -> None:
    """Refuse a baseline without answers, and models that have no place in the report."""
    names = ", ".join(answers)
    if len(answers) < 2:
        raise UserError(f"--answers must name at least 2 models, got {names or 'none'}")
    require(baseline in answers, "--baseline", f"one of the models ({names})", baseline)
    for model in greedy or {}:
        if model not in answers:
            raise UserError(f"--greedy.{model} must be one of the models of --answers ({names})")
    if greedy and baseline not in greedy:
        raise UserError(f"--greedy must have the baseline {baseline}, got {', '.join(greedy)}")


def samples(general: dict[str, Answers]) -> list[ShownPrompt]:
    """Some prompts with everyone's answers, spread over the use cases.

    Args:
        general: answers by decoding.
    """
    if not general:
        return []
    questions = general["sampled"].questions
    categories = list(dict.fromkeys(question.category for question in questions))
    each = max(1, SHOWN // max(1, len(categories)))
    chosen = []
    for name in categories:
        chosen += [one for one in questions if one.category == name][:each]
    return [
        ShownPrompt(one.id, one.prompt.text, one.category, side_by_side(one.id, general))
        for one in chosen[:SHOWN]
    ]


def side_by_side(identity: str, general: dict[str, Answers]) -> dict[str, dict[str, ShownAnswer]]:
    """Every model's first answer to one prompt, by decoding."""
    shown: dict[str, dict[str, ShownAnswer]] = {}
    for decoding, found in general.items():
        places = [i for i, question in enumerate(found.questions) if question.id == identity]
        for i in places:
            for model, responses in found.by_model.items():
                answer = responses[i][0]
                utility = None if math.isnan(answer.utility) else answer.utility
                shown.setdefault(model, {})[decoding] = ShownAnswer(answer.text, utility)
    return shown
