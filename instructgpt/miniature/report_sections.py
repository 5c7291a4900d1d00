"""Sections of the report on what only a world with a truth can tell of the answers."""

from __future__ import annotations

from instructgpt.evaluation.measures import turned
from instructgpt.evaluation.report.estimates import SCORE
from instructgpt.evaluation.report.layout import Make, Section, View, by_model, folded
from instructgpt.evaluation.report.markup import join
from instructgpt.evaluation.report.sections import BARS, everything, ns, simple


def ratings(view: View) -> Section | None:
    """Likert ratings and true utility."""
    results = view.results
    parts = {
        "likert": "Mean of ratings from 1 to 7 by the training labelers",
        "utility": "Mean true utility from 1 to 7, which labelers see only with noise",
    }
    parts = {part: text for part, text in parts.items() if results.ratings[part]}
    if not parts:
        return None
    captions = {
        part: f"{text}; {ns(everything(results.ratings[part]), 'answers')}. {BARS}"
        for part, text in parts.items()
    }
    tables = [
        by_model(
            results, turned(results.ratings[part]), f"{text}, [95 % interval], n answers.", SCORE
        )
        for part, text in parts.items()
    ]
    return Section(
        "ratings",
        "How good the answers are",
        "Fig. 5 and Fig. 31 (ratings); it had no true utility",
        "Further right is better: 1 is the worst answer and 7 the best.",
        join([view.figures(captions), folded("As tables", *tables)]),
    )


SECTIONS: tuple[Make, ...] = (
    ratings,
    simple(
        "metadata",
        lambda results: results.metadata,
        "What the answers are like",
        "Table 3 (the questions) and Fig. 4 (the rates)",
        "The arrow says which way is better: ↑ more, ↓ less.",
        "Share of sampled answers to ordinary prompts that have the property, where it applies; "
        "toxic: where rudeness was not asked for",
        "answers",
        models_down=False,
    ),
    simple(
        "use_cases",
        lambda results: results.use_cases,
        "By use case",
        "Table 1 (the use cases); it reports no result by use case",
        "Further right is better; a model that is good at one use case only would show here.",
        "Mean true utility, 1 to 7, of sampled answers",
        "prompts",
        unit=SCORE,
        models_down=False,
    ),
    simple(
        "closed_domain",
        lambda results: results.closed_domain,
        "Closed-domain tasks",
        "section 1 (41 % of answers hallucinate with GPT-3, 21 % with InstructGPT) and Fig. 4",
        "A hallucination is content that the prompt does not give; fewer (↓) are better only "
        "together with following the instruction more often (↑).",
        "Share of sampled answers to tasks whose answer stands in the prompt",
        "prompts",
    ),
    simple(
        "truthfulness",
        lambda results: results.truthfulness,
        "Truthfulness",
        "Fig. 6 (TruthfulQA)",
        "The full bar counts most, because an answer that says nothing is never false. The "
        "questions are about held-out misconceptions. No demonstration, ranked prompt or PPO "
        "prompt asks about them or shows them; the web does, and people there mostly state the "
        "myth.",
        "Share of sampled answers about held-out misconceptions",
        "prompts",
        "Whiskers are 95 % intervals over facts.",
    ),
    simple(
        "toxicity",
        lambda results: results.toxicity,
        "Toxicity",
        "Fig. 7 (no instruction, respectful) and Table 14 (also asked to be biased)",
        "Less is better with a respectful or no instruction; asked to be rude, a model that "
        "follows instructions is rude.",
        "Share of sampled continuations of rude text that are toxic",
        "prompts",
    ),
    simple(
        "nlp",
        lambda results: results.nlp,
        "The alignment tax",
        "Table 14, Fig. 28 and Fig. 29 (public NLP tasks)",
        "More is better; the tax is what SFT and PPO lose against GPT, and PPO-ptx is meant to win "
        "it back. The items are few enough to be in the pretraining text, answers and all, and "
        "PPO-ptx goes on reading that text: what it wins back is memory more than skill.",
        "Share of greedy answers that are exactly right, two examples in the prompt; items that "
        "end in the same question are resampled together",
        "items",
        "Whiskers are 95 % intervals over questions.",
    ),
)
