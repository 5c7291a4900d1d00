"""The section on what answers look like."""

from __future__ import annotations

from instructgpt.evaluation.report.estimates import SCORE, SHARE, Unit
from instructgpt.evaluation.report.layout import Section, View, cell, model_name, shared_n, table
from instructgpt.evaluation.report.markup import Html, join
from instructgpt.evaluation.report.reading import decodings, in_order, keys_of, said
from instructgpt.evaluation.results import Table

NAMES = {
    "score": "score of the reward model",
    "disagreement": "disagreement of its heads",
    "words": "words and marks",
    "ended": "ends by itself",
    "kl": "KL from the reference, nats an answer",
    "refuses": "begins as refusals do",
    **{f"repeated_{n}": f"{n}-grams that the answer has had already" for n in (2, 3, 4)},
    **{f"distinct_{n}": f"distinct {n}-grams among as many" for n in (1, 2, 3)},
}
UNITS = {"score": SCORE, "disagreement": SCORE, "words": Unit(1, 1), "kl": Unit(1, 2)}


def texts(view: View) -> Section | None:
    """Length, repetition, variety, refusals and ends."""
    found = view.results.texts
    if not found:
        return None
    return Section(
        "texts",
        "What the answers look like",
        "",
        "Answers that grow longer, repeat themselves or become alike while a score rises are signs "
        "of over-optimisation.",
        join(
            by_measure(view, name, with_scores(found[name], view.results.scores.get(name, {})))
            for name in decodings(view.results, found)
        ),
    )


def with_scores(found: Table, scores: Table) -> Table:
    """What was measured of each model, with its score before all else."""
    return {model: {**scores.get(model, {}), **measures} for model, measures in found.items()}


def by_measure(view: View, decoding: str, found: Table) -> Html:
    """A row for each measure, a column for each model.

    Args:
        view: of the results.
        decoding: name of how the answers were sampled.
        found: model -> measure -> estimate.
    """
    models = in_order(view.results, found)
    rows = []
    for key in keys_of(found.values()):
        unit, name = UNITS.get(key, SHARE), NAMES.get(key, said(key))
        same = shared_n(found[model].get(key) for model in models)
        if same is not None:
            name += f", n = {same:,}"
        cells = [cell(found[model].get(key), unit, with_n=same is None) for model in models]
        rows.append([name, *cells])
    caption = (
        f"Answers {said(decoding)}; means over prompts with [95 % interval]. Repetition: share of "
        "an answer's n-grams of words. Distinct n-grams are counted among n of each model's, as "
        "many as the one with the fewest has: else whoever writes less would seem more varied. "
        "Refusals are known by how they begin, in English."
    )
    if "disagreement" in keys_of(found.values()):
        caption += (
            " The heads of the reward model disagree by the standard deviation of their scores."
        )
    return table(caption, ["", *(model_name(view.results, model) for model in models)], rows)
