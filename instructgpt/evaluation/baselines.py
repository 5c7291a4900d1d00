"""A reward model beside what is cheaper: the longer response, and a bag of words."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from instructgpt.callbacks.export import Beside
from instructgpt.data.rows import ComparisonRow
from instructgpt.evaluation.bag_of_words import BAG_FILE, BagOfWords, RankedTexts, fit_words
from instructgpt.evaluation.reward_accuracy import Counts, Ranked, margins, sums
from instructgpt.evaluation.statistics import Estimate
from instructgpt.functional.intervals import Interval, ratio_interval
from instructgpt.functional.ranking import calibration_error
from instructgpt.modules.base import StageModule
from instructgpt.modules.reward import RewardModule
from instructgpt.seeds import permutation
from instructgpt.terminal import printable

MOST_RESPONSES = 20_000
"""A bag of words is fitted on training rows with at most so many responses."""

MOST_ROWS = 5_000
"""So many validation rows are compared at most."""

MOST_SETS = 12
"""So many are printed; ``metrics.json`` has all."""


class BesideBaselines(NamedTuple):
    """How often each picks the preferred response of a decided pair, and how sure the model is."""

    reward_model: Estimate
    longer_wins: Estimate
    bag_of_words: Estimate
    calibration_error: float
    lean: float  # mean confidence of the reward model minus its accuracy
    prompts: int

    @property
    def plain(self) -> dict[str, Any]:
        """As JSON: of an estimate the value and its interval."""
        shares = {name: list(getattr(self, name)[:3]) for name in self._fields[:3]}
        pairs = {"pairs": self.reward_model.n, "prompts": self.prompts}
        return {**pairs, **shares, "calibration_error": self.calibration_error}


def beside(stage: StageModule, step: int, seconds: float) -> Beside | None:
    """Accuracy of a reward model's exported weights beside that of both baselines.

    Args:
        stage: that was trained; nothing is said of another than the reward stage.
        step: of the exported weights; nothing is said where they were not validated.
        seconds: that training took.
    """
    if not isinstance(stage, RewardModule):
        return None
    began, data, scores = time.monotonic(), stage.data, stage.row_scores.at(step)
    numbers, every = sorted(scores), len(scores)
    if every > MOST_ROWS:
        numbers = sorted(numbers[i] for i in permutation(every, data.seed)[:MOST_ROWS].tolist())
    rows = [data.validation_rows[number] for number in numbers]
    if not any(min(row.ranking) < max(row.ranking) for row in rows):
        return None
    bag, fitted_on = fit_rows(data)
    read = step * data.step_rows
    if not data.streaming and read < len(data.train_rows):
        fitted_on += f", of which the model had read {read:,}"
    ranked = [ranked_row(row, scores[n].numpy()) for row, n in zip(rows, numbers, strict=True)]
    bagged = [
        one._replace(scores=bag.scores(texts))
        for one, texts in zip(ranked, texts_of(rows, data.tokenizer), strict=True)
    ]
    whole, sets = compare(ranked, bagged), compare_sets(ranked, bagged)
    took = time.monotonic() - began
    measured_on = f"a sample of {len(rows):,} of {every:,}" if every > len(rows) else f"{every:,}"
    before = (
        f", {features:.1f} of features before" if (features := stage.seconds_of_features) else ""
    )
    lines = [
        f"reward model of step {step} on {measured_on} validation rows; 95 % intervals, by prompts",
        *table({"all": whole, **(sets if len(sets) > 1 else {})}),
        f"  bag of words: Bradley-Terry on log(1 + count) of {len(bag.weights):,} words, "
        f"fitted on {bag.pairs:,} pairs of {fitted_on}",
        f"  calibration: the model's confidence is off by {whole.calibration_error:.3f} on average "
        f"over {whole.reward_model.n:,} pairs, {_tendency(whole)}",
        f"  seconds: {seconds:.1f} of training, {took:.1f} of the baselines{before}",
    ]
    summary = {
        "step": step,
        "all": whole.plain,
        "by_source": {printable(name): one.plain for name, one in sets.items()},
        "bag_of_words": {"words": len(bag.weights), "pairs": bag.pairs, "rows": fitted_on},
        "seconds": round(took, 3),
        "seconds_of_features": round(stage.seconds_of_features, 3),
    }
    bags = bags_of(whole, sets)
    metrics = {name: one.bag_of_words.value for name, one in bags.items()}
    intervals = {
        name: Interval(one.bag_of_words.low, one.bag_of_words.high, one.prompts)
        for name, one in bags.items()
        if one.prompts > 1
    }
    kept = json.dumps({**bag._asdict(), "rows": fitted_on}, ensure_ascii=False)
    return Beside(metrics, intervals, {"baselines": summary}, lines, {BAG_FILE: kept + "\n"})


def fit_rows(data: Any) -> tuple[BagOfWords, str]:
    """A bag of words on the rows that a reward model was trained on, and what they were.

    Rows weigh as often as they are drawn. Of many, some are taken that are a function of the seed.

    Args:
        data: a ``ComparisonDataModule``.
    """
    rows = data.train_rows
    weights = [share for g in data.train_sets.groups for share in [g.share / g.size] * g.size]
    chosen: list[int] = []
    some, responses = [], 0
    for number in permutation(len(rows), data.seed).tolist():
        row = rows[number]
        responses += len(row.responses)
        if responses > MOST_RESPONSES:
            break
        chosen.append(number)
        some.append(row)
    order = sorted(range(len(chosen)), key=chosen.__getitem__)
    some = [some[i] for i in order]
    texts = texts_of(some, data.tokenizer)
    choices = [
        RankedTexts(text, row.ranking, weights[chosen[i]] if weights else 1.0)
        for i, row, text in zip(order, some, texts, strict=True)
    ]
    kind = f"{len(rows):,} training rows"
    if data.streaming:
        kind = f"the first {kind} of the stream"
    if len(some) < len(rows):
        kind = f"a sample of {len(some):,} of {kind}"
    elif not data.streaming:
        kind = f"all {kind}"
    return fit_words(choices), kind


def texts_of(rows: Sequence[ComparisonRow], tokenizer: Any) -> list[list[str]]:
    """The responses of each row as the model has read them: cut where they were too long.

    Args:
        rows: with tokens.
        tokenizer: of the run.
    """
    tokens = [response.tolist() for row in rows for response in row.responses]
    every = iter(tokenizer.batch_decode(tokens, skip_special_tokens=True))
    return [[next(every) for _ in row.responses] for row in rows]


def ranked_row(row: ComparisonRow, scores: np.ndarray) -> Ranked:
    """A validation row as a ranking; its group is the set it is from.

    Args:
        row: of comparisons.
        scores: [K] of its responses.
    """
    lengths = np.array([len(response) for response in row.responses], dtype=np.float64)
    prompt = str(row.prompt.tolist())  # the same prompt may stand in several rows
    ranking = np.array(row.ranking, dtype=np.float64)
    unknown = np.full(len(lengths), np.nan)
    return Ranked(
        prompt, row.source, row.labeler, ranking, scores.astype(np.float64), lengths, unknown
    )


def compare_sets(ranked: Sequence[Ranked], bagged: Sequence[Ranked]) -> dict[str, BesideBaselines]:
    """Name of a set -> what is found in its rows, those with most pairs first.

    Args:
        ranked: rankings with the scores of the reward model.
        bagged: the same with those of the bag of words.
    """
    pairs = Counter({row.group: 0 for row in ranked})
    for row in ranked:
        pairs[row.group] += len(margins(row))
    found = {}
    for name, count in sorted(pairs.items(), key=lambda item: (-item[1], item[0])):
        if name and count:
            chosen = [i for i, row in enumerate(ranked) if row.group == name]
            found[name] = compare([ranked[i] for i in chosen], [bagged[i] for i in chosen])
    return found


def compare(ranked: Sequence[Ranked], bagged: Sequence[Ranked]) -> BesideBaselines:
    """All measures of some rows, of which one at least decides something.

    Args:
        ranked: rankings with the scores of the reward model.
        bagged: the same with those of the bag of words.
    """
    found = torch.from_numpy(np.concatenate([margins(row) for row in ranked])).float()
    right = share(ranked, lambda one: one.right)
    return BesideBaselines(
        right,
        share(ranked, lambda one: one.longer),
        share(bagged, lambda one: one.right),
        float(calibration_error(found)),
        float(found.abs().sigmoid().mean()) - right.value,
        len({row.prompt for row in ranked if len(margins(row))}),
    )


def share(rows: Sequence[Ranked], part: Callable[[Counts], float]) -> Estimate:
    """Share of decided pairs, with the interval that a validation logs; NaN for a single prompt.

    Args:
        rows: rankings.
        part: what is counted.
    """
    above, below = sums(rows, part, list(dict.fromkeys(row.prompt for row in rows)))
    found = ratio_interval(torch.from_numpy(above), torch.from_numpy(below), share=True)
    limits = (np.nan, np.nan) if found is None else found[:2]
    return Estimate(float(above.sum() / below.sum()), *limits, int(below.sum()))


def _tendency(found: BesideBaselines) -> str:
    if abs(found.lean) < 0.01:
        return "neither too sure nor too unsure"
    return "too sure" if found.lean > 0 else "too unsure"


def bags_of(whole: BesideBaselines, sets: dict[str, BesideBaselines]) -> dict[str, BesideBaselines]:
    """Name of a metric of the bag of words -> what it is of; a validation logs all others.

    Args:
        whole: all rows.
        sets: each set.
    """
    named = {f"val/bag_of_words_by_source/{printable(name)}": one for name, one in sets.items()}
    return {"val/accuracy_bag_of_words": whole, **named}


def table(rows: dict[str, BesideBaselines]) -> list[str]:
    """Lines of a table.

    Args:
        rows: by name.
    """
    cells: list[tuple[str, ...]] = [
        ("", "pairs", "reward model", "longer wins", "bag of words", "calibration error")
    ]
    for name, one in list(rows.items())[: MOST_SETS + 1]:
        shares = one.reward_model, one.longer_wins, one.bag_of_words
        numbers = [f"{s.value:.3f} [{s.low:.3f}, {s.high:.3f}]" for s in shares]
        cells.append((name, f"{one.reward_model.n:,}", *numbers, f"{one.calibration_error:.3f}"))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  " + "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])])
        for row in cells
    ]
    left = len(rows) - len(cells) + 1
    return [*lines, f"  and {left} more sets, in metrics.json"] if left else lines
