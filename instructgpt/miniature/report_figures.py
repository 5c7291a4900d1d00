"""Figures of the report on what only a world with a truth can tell of the answers."""

from __future__ import annotations

from instructgpt.evaluation.report.estimates import SCORE, SHARE
from instructgpt.evaluation.report.figures import Drawn, by_key, by_model, draw_pairs
from instructgpt.evaluation.report.layout import Draw
from instructgpt.evaluation.report.plots import Series, dots, legend
from instructgpt.evaluation.report.reading import (
    all_models,
    decodings,
    in_order,
    keys_of,
    label,
    said,
)
from instructgpt.evaluation.report.style import MUTED, looks, new_figure
from instructgpt.evaluation.results import Results


def draw_ratings(results: Results) -> Drawn:
    """Mean ratings and mean utility, from 1 to 7 (Fig. 5 and 31 of the paper)."""
    titles = {"likert": "Rating by the labelers", "utility": "True utility"}
    for part, title in titles.items():
        found = results.ratings[part]
        if not found:
            continue
        models = in_order(results, keys_of(found.values()))
        colours = [looks(all_models(results))[m].colour for m in models]
        series = [
            Series(
                said(decoding),
                [found[decoding].get(model) for model in models],
                colours,
                open=place > 0,
            )
            for place, decoding in enumerate(decodings(results, found))
        ]
        figure = new_figure(title, 1.3 + 0.36 * len(models))
        axes = figure.subplots()
        dots(axes, [label(results, model) for model in models], series, SCORE)
        axes.set(xlim=(1, 7), xlabel="mean, 1 = worst, 7 = best; 95 % interval")
        legend(figure, series, MUTED)
        yield part, figure


DRAWERS: tuple[Draw, ...] = (
    draw_ratings,
    by_key(
        "use_cases",
        lambda results: results.use_cases,
        "Utility by use case",
        "mean true utility, 1 to 7; 95 % interval",
        SCORE,
        0.4,
    ),
    by_key(
        "metadata",
        lambda results: results.metadata,
        "Properties of the answers",
        "% of answers, 95 % interval",
        SHARE,
        0.48,
    ),
    draw_pairs(
        "closed_domain",
        lambda results: results.closed_domain,
        "Closed-domain tasks",
        "% of answers",
    ),
    draw_pairs(
        "truthfulness",
        lambda results: results.truthfulness,
        "Held-out misconceptions",
        "% of answers",
    ),
    by_model("toxicity", lambda results: results.toxicity, "Toxic answers", "% of answers"),
    by_model("nlp", lambda results: results.nlp, "Public NLP tasks, few-shot", "% correct"),
)
