"""Near duplicates: the estimate against the definition, and which row of a cluster stays."""

import random
from itertools import pairwise

import numpy as np
import pytest
from hygiene_rows import demonstration, document, prompt

from instructgpt.hygiene.minhash import HASHES, band_rows, clusters, signatures
from instructgpt.hygiene.near import NearDuplicates
from instructgpt.hygiene.words import ngrams, numbers, words
from instructgpt.types import UserError


def jaccard(first, second, size):
    """The definition, word by word."""
    sets = [
        {tuple(one[at : at + size]) for at in range(max(1, len(one) - size + 1))}
        for one in (first, second)
    ]
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def signed(texts, size=3):
    return signatures(ngrams(numbers([words(text) for text in texts]), size))


def text_of(rng, length):
    return [f"w{rng.randrange(5000)}" for _ in range(length)]


def test_words():
    assert words("What's 3 - 4, RENÉ?") == ["what", "s", "3", "-", "4", "rené"]
    assert words("你好 world") == ["你", "好", "world"]
    assert words(" ?! ") == ["?", "!"]
    assert words("") == []


def test_runs_of_words_are_the_same_wherever_they_stand_and_only_they():
    texts = [["a", "b", "c", "d"], ["x", "b", "c", "d"], ["a"], ["b", "a"], []]
    flat = ngrams(numbers(texts), 3)
    first, second, one, two, none = np.split(flat.values, flat.starts[1:])
    assert flat.counts.tolist() == [2, 2, 1, 1, 1]
    assert first[1] == second[1]
    assert len({*first, *second, *one, *two, *none}) == 6


@pytest.mark.parametrize("size", [1, 3, 13])
def test_the_set_of_runs_has_as_many_members_as_counted_by_hand(size):
    rng = random.Random(size)
    texts = [[rng.choice("abc") for _ in range(rng.randrange(0, 40))] for _ in range(50)]
    flat = ngrams(numbers(texts), size)
    for text, found in zip(texts, np.split(flat.values, flat.starts[1:]), strict=True):
        runs = {tuple(text[at : at + size]) for at in range(max(1, len(text) - size + 1))}
        assert len(set(found.tolist())) == len(runs)


def test_the_estimate_is_jaccard_to_within_its_standard_error():
    # 200 pairs: the mean of their errors in standard errors is 0 +- 0.07, the mean square 1.
    rng = random.Random(3)
    errors = []
    for _ in range(200):
        one = text_of(rng, rng.randrange(30, 120))
        other = [word if rng.random() < 0.95 else "new" for word in one] + text_of(rng, 5)
        pair = signed([" ".join(one), " ".join(other)])
        true = jaccard(one, other, 3)
        errors.append(((pair[0] == pair[1]).mean() - true) / (true * (1 - true) / HASHES) ** 0.5)
    assert abs(np.mean(errors)) < 0.25
    assert 0.7 < np.mean(np.square(errors)) < 1.4


def test_bands_miss_no_more_than_one_pair_in_a_hundred():
    for similarity in (0.3, 0.5, 0.7, 0.85, 1.0):
        rows = band_rows(similarity)
        assert (1 - similarity**rows) ** (HASHES // rows) <= 0.01
    assert band_rows(0.9) > band_rows(0.5)  # and compare no more than they have to


def test_clusters_are_those_of_comparing_every_pair():
    rng = random.Random(5)
    texts = [text_of(rng, 60) for _ in range(40)]
    for _ in range(60):
        copy = list(rng.choice(texts))
        for _ in range(rng.randrange(0, 6)):
            copy[rng.randrange(len(copy))] = "new"
        texts.append(copy)
    signs = signed([" ".join(text) for text in texts])
    near = [[(one == other).mean() >= 0.7 for other in signs] for one in signs]
    expected = list(range(len(texts)))  # the first of each cluster, by chains of similar pairs
    for _ in range(10):
        expected = [min(expected[j] for j in range(100) if near[i][j]) for i in range(100)]
    found = clusters(signs, 0.7)
    # A pair just at the threshold may share no band: the others are all joined.
    assert (found == np.array(expected)).mean() > 0.98
    assert len(set(found.tolist())) < 60


def test_no_texts_have_no_clusters():
    assert len(clusters(np.zeros((0, HASHES), np.uint32), 0.7)) == 0


LONG = "Write a story about a dragon who learns to bake bread in a small town by the sea, please."


def verdict(rule, rows, parts=1):
    edges = np.linspace(0, len(rows), parts + 1).astype(int)
    keys = [rule.keys(rows[a:b]) for a, b in pairwise(edges) if a < b]
    joined = {name: np.concatenate([one[name] for one in keys]) for name in keys[0]}
    return rule.decide(joined, np.zeros(len(rows), np.uint8))


def test_the_first_stays_and_the_report_says_which():
    other = "Explain how a bill becomes a law in three short steps for a child of ten."
    rows = [prompt(LONG), prompt(other), prompt(LONG.upper()), prompt(LONG + " Thanks!")]
    decision = verdict(NearDuplicates(), rows)
    assert decision.dropped.tolist() == [False, False, True, True]
    assert decision.because.tolist() == [-1, -1, 0, 0]
    assert decision.notes == ("1 clusters; the largest have 3 rows",)
    backwards = verdict(NearDuplicates(), rows[::-1])
    assert backwards.dropped.tolist() == [False, True, False, True]


def test_it_does_not_matter_how_rows_are_spread_over_processes():
    rng = random.Random(1)
    rows = [document(" ".join(text_of(rng, rng.randrange(0, 30)))) for _ in range(40)] * 2
    whole = verdict(NearDuplicates(), rows)
    for parts in (2, 7, 80):
        other = verdict(NearDuplicates(), rows, parts)
        assert (whole.dropped == other.dropped).all()
        assert (whole.because == other.because).all()
    assert whole.dropped[40:].all()
    kept = [row for row, gone in zip(rows, whole.dropped, strict=True) if not gone]
    assert not verdict(NearDuplicates(), kept).dropped.any()


def test_sums_and_short_questions_are_no_copies_of_each_other():
    rows = ["What is 3 + 4?", "What is 3 - 4?", "What is 3 * 4?", "Who is he?", "Who is she?"]
    assert not verdict(NearDuplicates(), [prompt(row) for row in rows]).dropped.any()
    assert verdict(NearDuplicates(), [prompt(rows[0]), prompt("what is 3 + 4 ?!")]).dropped[1]


def test_a_whole_row_is_its_responses_too():
    rows = [demonstration("Sing.", LONG), demonstration("Sing.", "La la la, the sun is up.")]
    assert verdict(NearDuplicates(), rows).dropped.tolist() == [False, True]
    assert not verdict(NearDuplicates(of="row"), rows).dropped.any()


def test_options_that_cannot_be():
    with pytest.raises(UserError, match=r"near_duplicates.similarity must be 0.3 to 1, got 1.5"):
        NearDuplicates(similarity=1.5).check_options("prompts")
    assert not NearDuplicates(similarity=None).is_on("prompts")
