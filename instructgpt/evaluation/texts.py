"""What answers look like: how long, how repetitive, how varied; whether they refuse, and end."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from math import exp, lgamma

import numpy as np

from instructgpt.evaluation.bag_of_words import words
from instructgpt.evaluation.judges import Answer
from instructgpt.evaluation.measures import Answers, estimates, values
from instructgpt.evaluation.results import Table
from instructgpt.evaluation.statistics import Array, Estimate

REPEATED = (2, 3, 4)
DISTINCT = (1, 2, 3)
LEFT_OUT = 20
"""Parts of the prompts, each left out once: how sure a number of distinct n-grams is."""

CANNOT = (
    r"i(?: (?:can'?t|cannot|can not|am unable|am not able|won't|will not)|'m (?:unable|not able))"
)
FINE = r"(?: (?:wait|help but|believe|imagine|remember|stress|say enough|recommend \S+ enough))"
REFUSALS = (
    rf"(?:no, |unfortunately,? |sorry,? |i'?m sorry,? |i am sorry,? )?{CANNOT}(?!{FINE})\b",
    r"(?:i'?m |i am )?(?:so |very |really |truly )?sorry,? but\b",
    r"i (?:sincerely )?apologi[sz]e,? but\b",
    r"my apologies,? but\b",
    r"as an? (?:ai|artificial intelligence|(?:large )?language model)"
    r"(?: (?:language model|assistant|model))?,? i\b",
    r"i(?:'m| am) (?:just |only )?an? (?:ai|artificial intelligence|(?:large )?language model)\b",
    r"i (?:do not|don't) feel comfortable\b",
    r"i(?:'m| am) not comfortable\b",
    r"i (?:must|have to|need to) (?:respectfully )?(?:decline|refuse)\b",
    r"i(?:'d| would) rather not\b",
    r"i refuse to\b",
)
"""How refusals begin, in English: lower case, straight apostrophes. A list, not a judgement."""

_REFUSES = re.compile("|".join(f"(?:{one})" for one in REFUSALS))


def refuses(text: str) -> bool:
    """Whether an answer begins as refusals do.

    >>> refuses("I'm sorry, but I can't help with that."), refuses("Sorry to hear that!")
    (True, False)
    """
    plain = text.lower().replace("\u2019", "'").lstrip(" \t\r\n*_\"'>#-")
    return _REFUSES.match(plain) is not None


def repeated(text: str, n: int) -> float | None:
    """The share of an answer's n-grams of words that it has had already; None without n-grams.

    >>> repeated("no no no no", 1)  # three of four
    0.75
    """
    found = grams(text, n)
    return 1 - len(set(found)) / len(found) if found else None


def _repeated(answer: Answer, n: int) -> float | None:
    return repeated(answer.text, n)


def grams(text: str, n: int) -> list[tuple[str, ...]]:
    """All runs of n words or punctuation marks."""
    parts = words(text)
    return list(zip(*(parts[i:] for i in range(n)), strict=False))


def text_measures(answers: Answers, seed: int) -> Table:
    """All measures of every model.

    ``distinct_n`` counts the distinct n-grams among as many of them as the model with the fewest
    has (a little less, as parts are left out): a share of distinct ones falls with their number, so
    that else whoever writes less would seem more varied. Its ``n`` are these n-grams.

    Args:
        answers: of the models.
        seed: of the bootstrap.
    """
    found: Table = {model: {} for model in answers.by_model}

    def add(name: str, measured: Mapping[str, Estimate]) -> None:
        for model, one in measured.items():
            found[model][name] = one

    add("words", estimates(values(answers, lambda one: len(words(one.text))), seed, share=False))
    add("ended", estimates(values(answers, lambda one: one.finished), seed))
    add("kl", estimates(values(answers, lambda one: one.kl), seed, share=False))
    add("refuses", estimates(values(answers, lambda one: refuses(one.text)), seed))
    for n in REPEATED:
        found_again = values(answers, partial(_repeated, n=n))
        add(f"repeated_{n}", estimates(found_again, seed, share=False))
    texts = {
        model: [[one.text for one in row] for row in rows]
        for model, rows in answers.by_model.items()
    }
    for n in DISTINCT:
        add(f"distinct_{n}", distinct(texts, n))
    return found


def distinct(texts: Mapping[str, Sequence[Sequence[str]]], n: int) -> dict[str, Estimate]:
    """The share of distinct n-grams among equally many of every model, in expectation.

    The interval is a jackknife over parts of the prompts: a bootstrap would draw prompts twice,
    and every n-gram of theirs would be a repetition.

    Args:
        texts: model -> answers to each prompt.
        n: of the n-grams.
    """
    counted = {model: _counts(rows, n) for model, rows in texts.items()}
    totals = {model: table.sum() for model, table in counted.items()}
    least = min(
        (float(totals[model] - table.sum(1).max()) for model, table in counted.items()), default=0
    )
    if least < 1:
        return {}
    size, found = int(least), {}
    for model, table in counted.items():
        whole = table.sum(0)
        value = distinct_among(whole, size) / size
        parts = [distinct_among(whole - part, size) / size for part in table if part.any()]
        low = high = float("nan")
        if len(parts) > 1:
            spread = 1.96 * float(np.std(parts)) * (len(parts) - 1) ** 0.5
            low, high = max(0.0, value - spread), min(1.0, value + spread)
        found[model] = Estimate(value, low, high, size)
    return found


def distinct_among(counts: Array, size: int) -> float:
    """How many kinds are expected among so many things drawn without putting back (Hurlbert 1971).

    Args:
        counts: things of each kind.
        size: at most as many as there are things.

    Example:
        >>> round(distinct_among(np.array([2.0, 1.0]), 2), 4)  # 2 of 3 draws have both kinds
        1.6667
    """
    total = float(counts.sum())
    kinds, times = np.unique(counts[counts > 0], return_counts=True)
    expected = 0.0
    for kind, many in zip(kinds.tolist(), times.tolist(), strict=True):
        rest = total - kind
        missed = 0.0  # the chance that none of this kind is among them
        if rest >= size:
            missed = exp(
                lgamma(rest + 1)
                - lgamma(rest - size + 1)
                - lgamma(total + 1)
                + lgamma(total - size + 1)
            )
        expected += many * (1 - missed)
    return expected


def _counts(rows: Sequence[Sequence[str]], n: int) -> Array:
    """How often each n-gram is in each part of the prompts, [parts, kinds]."""
    numbers: dict[tuple[str, ...], int] = {}
    parts: list[list[int]] = [[] for _ in range(min(LEFT_OUT, max(1, len(rows))))]
    for place, row in enumerate(rows):
        for text in row:
            parts[place % len(parts)] += [
                numbers.setdefault(g, len(numbers)) for g in grams(text, n)
            ]
    table = [np.bincount(np.array(part, dtype=np.int64), minlength=len(numbers)) for part in parts]
    return np.array(table, dtype=np.float64)
