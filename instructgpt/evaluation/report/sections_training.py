"""Sections on the reward model, the labelers, over-optimisation and training."""

from __future__ import annotations

import math

from instructgpt.evaluation.report.estimates import (
    MINUS,
    MISSING,
    SCORE,
    SHARE,
    count,
    interval,
    written,
)
from instructgpt.evaluation.report.figures_training import MOST_PANELS
from instructgpt.evaluation.report.layout import (
    Make,
    Section,
    View,
    cell,
    folded,
    model_name,
    table,
)
from instructgpt.evaluation.report.markup import Html, join
from instructgpt.evaluation.report.reading import (
    curve_panels,
    in_order,
    label,
    safe,
    said,
)
from instructgpt.evaluation.results import CrossValidation, Fold, RewardModel

AT_MOST = f"at most log n {MINUS} (n {MINUS} 1)/n; less where samples repeat"
BARS = "Whiskers are 95 % intervals over prompts."


def reward_model(view: View) -> Section | None:
    """Accuracy against the ceiling, generalisation to other labelers, calibration."""
    tested = view.results.tested
    if not tested:
        return None
    parts = [part for name, one in tested.items() for part in of_one(view, name, one)]
    return Section(
        "reward_model",
        "The reward model" if len(tested) == 1 else "The reward models",
        "section 4.1 (72.4 ± 0.4 % on labelers it was trained on, 69.6 ± 0.9 % on others)",
        "50 % is chance, and the best possible is below 100 % because labelers disagree; a "
        "calibrated model lies on the dashed line.",
        join(parts),
    )


def of_one(view: View, name: str, found: RewardModel) -> list[Html]:
    """Figures and tables of a reward model.

    Args:
        view: of the results.
        name: of the judge that it is; figures are of the one that policies were trained against.
        found: about it.
    """
    pairs = sum(row.pairs for row in found.reliability)
    prompts, error = count(found.calibration_prompts), found.calibration_error
    captions = {
        "reward_accuracy": "Share of decided pairs in which the preferred response scores higher; "
        "the orange mark is the best that any model could reach, since labelers disagree.",
        "reliability": f"n = {prompts} prompts with {count(pairs)} pairs; expected calibration "
        f"error {written(error, SHARE._replace(suffix=' points'))}. {BARS}",
    }
    rows = accuracy_rows(found)
    columns = ["judged by", "accuracy", "best possible", "longer response wins", "bag of words"]
    columns += ["calibration error", "heads apart by"]
    caption = (
        f"The {said(name)}: % of decided pairs, [95 % interval over prompts], n pairs. The bag of "
        "words was fitted on the training rows of the model. Calibration error: how far its "
        "confidence is from its accuracy. Heads: standard deviation of what they say of a margin."
    )
    parts = [view.figures(captions)] if name == "reward_model" else []
    parts += [table(caption, columns, rows)] if rows else []
    if found.cross_validation is not None:
        parts.append(folds_table(found.cross_validation))
    return parts


def accuracy_rows(found: RewardModel) -> list[list[str]]:
    """Accuracy, ceiling and "longer wins" of every group."""
    rows: list[list[str]] = [
        [
            said(group),
            cell(one, SHARE),
            written(found.ceiling.get(group, math.nan), SHARE),
            cell(found.longer_wins.get(group), SHARE),
            cell(found.bag_of_words.get(group), SHARE),
            written(found.calibration.get(group, math.nan), SHARE._replace(suffix=" points")),
            cell(found.disagreement.get(group), SCORE, with_n=False),
        ]
        for group, one in found.accuracy.items()
    ]
    if (truth := found.ground_truth_accuracy) is not None:
        rows.append(["the true utility", cell(truth, SHARE), *[MISSING] * 5])
    return rows


def folds_table(crossed: CrossValidation) -> Html:
    """Cross-validation over labelers."""
    lines = {"all folds": Fold(crossed.in_group, crossed.held_out)}
    lines |= {f"fold {i + 1}": fold for i, fold in enumerate(crossed.folds)}
    rows: list[list[str]] = [
        [name, cell(line.in_group, SHARE), cell(line.held_out, SHARE)]
        for name, line in lines.items()
    ]
    caption = (
        "Cross-validation: each fold's reward model never saw the labelers that it leaves out. "
        "% of decided pairs, [95 % interval over prompts], n pairs; a ranking that several folds "
        "score counts once."
    )
    gap = crossed.difference
    if gap.value == gap.value:
        points = SHARE._replace(suffix=" points")
        caption += f" Left out minus trained on: {written(gap.value, points)}"
        caption += f" {interval(gap, SHARE)}, n = {count(gap.n)} prompts."
    return table(caption, ["", "labelers it was trained on", "labelers left out"], rows)


def agreement(view: View) -> Section | None:
    """How often labelers agree with each other."""
    found = view.results.agreement
    if not found:
        return None
    captions = {}
    for group, one in found.items():
        text = f"Mean over pairs of labelers {written(one.value, SHARE)}"
        if one.target is not None:
            text += f", noise set for {written(one.target, SHARE)}"
        captions[f"agreement_{safe(group)}"] = f"{text}; n = {count(one.pairs)} pairs."
    rows: list[list[str]] = [
        [
            said(group),
            str(len(one.labelers)),
            written(one.value, SHARE),
            MISSING if one.target is None else written(one.target, SHARE),
            count(one.pairs),
        ]
        for group, one in found.items()
    ]
    columns = ["group", "labelers", "agreement", "noise set for", "n pairs"]
    numbers = table("Mean over pairs of labelers, % of pairs on which both decide.", columns, rows)
    return Section(
        "agreement",
        "Agreement of the labelers",
        "section 3.4 (72.6 ± 1.5 % among training labelers, 77.3 ± 1.3 % among held-out labelers)",
        "Each cell is how often two labelers prefer the same response when both have a "
        "preference; 50 % would be chance.",
        view.figures(captions, numbers),
    )


def over_optimisation(view: View) -> Section | None:
    """What optimising an imperfect reward does to the true utility."""
    found = view.results.over_optimisation
    if found is None:
        return None
    base = label(view.results, view.results.baseline)
    captions = {
        "over_optimisation_utility": "True utility. Numbers beside the dots are n of best-of-n; "
        f"its KL is {AT_MOST}.",
        "over_optimisation_score": "Score of the reward model that was optimised.",
    }
    tables = []
    if found.best_of_n:
        rows: list[list[str]] = [
            [
                f"best of {row.n}",
                written(row.kl),
                cell(row.score, SCORE),
                cell(row.utility, SCORE),
                cell(row.win_rate, SHARE),
                cell(row.disagreement, SCORE),
            ]
            for row in found.best_of_n
        ]
        columns = ["answer", "KL, nats, at most", "reward model", "true utility"]
        columns += ["preferred to one sample", "disagreement of the heads"]
        caption = f"Best of n samples of {base}; [95 % interval], n prompts. KL is {AT_MOST}."
        tables.append(table(caption, columns, rows))
    lines: list[list[str]] = [
        [
            join([model_name(view.results, model), f", step {one.step}"]),
            written(one.kl),
            cell(one.score, SCORE),
            cell(one.utility, SCORE),
        ]
        for model in in_order(view.results, found.checkpoints)
        for one in found.checkpoints[model]
    ]
    if lines:
        columns = ["checkpoint", "KL, nats", "reward model", "true utility"]
        tables.append(table("During training; [95 % interval], n prompts.", columns, lines))
    return Section(
        "over_optimisation",
        "Over-optimisation",
        "none; Gao et al. 2022, Fig. 1, is the counterpart",
        f"Where the score still rises with the distance from {base} but the true utility falls, "
        "the reward model is being exploited.",
        join([view.figures(captions), folded("As tables", *tables)]),
    )


def curves(view: View) -> Section | None:
    """Learning curves of every stage."""
    found = {name: one for name, one in view.results.curves.items() if curve_panels(one)}
    if not found:
        return None
    captions = {}
    for stage, one in found.items():
        left = max(len(curve_panels(one)) - MOST_PANELS, 0)
        more = f" {left} more are in TensorBoard." if left else ""
        grey = " Grey: training, blue: validation." if len(curve_panels(one)) < len(one) else ""
        captions[f"curves_{safe(stage)}"] = f"Against optimizer steps or iterations.{grey}{more}"
    return Section(
        "curves",
        "Learning curves",
        "none for these stages",
        "Losses should fall and accuracies and scores rise; a validation loss that turns up again "
        "means overfitting.",
        view.figures(captions),
    )


SECTIONS: tuple[Make, ...] = (reward_model, agreement, over_optimisation, curves)
