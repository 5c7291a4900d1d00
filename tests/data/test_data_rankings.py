"""Ties and scores: which pairs a row decides."""

import pytest
from refusals import parse_comparison
from rows import write_rows

from instructgpt.data.comparisons import ComparisonDataModule
from instructgpt.data.opening import Item
from instructgpt.data.rankings import settle
from instructgpt.types import UserError


def parse(value):
    return parse_comparison(Item("a.jsonl:7", "a.jsonl", value)).row


def pair(chosen="Pink.", rejected="Blue.", **scores):
    return {"prompt": "p", "chosen": chosen, "rejected": rejected, **scores}


@pytest.mark.parametrize(
    ("texts", "ranking", "settled"),
    [
        # a at 1 and 2: both are better than b
        (["a", " a\n", "b"], [1, 2, 3], [1, 1, 3]),
        (["a", "b", "a"], [2, 1, 3], [2, 1, 2]),
        # already tied; nothing to do
        (["a", "a", "b"], [2, 2, 1], [2, 2, 1]),
        # a at 1 and 3 has the mean rank 2, which is b's: nothing is decided
        (["a", "b", "a"], [1, 2, 3], [1, 1, 1]),
        # a at 1 and 4 has the mean 2.5: behind b (2), before c (3)
        (["a", "b", "c", "a"], [1, 2, 3, 4], [2, 1, 4, 2]),
        (["a", "b", "c"], [1, 3, 3], [1, 3, 3]),
    ],
)
def test_equal_texts_tie_at_their_mean_rank(texts, ranking, settled):
    assert settle(texts, ranking, []) == settled


def test_a_text_ranked_around_others_is_counted():
    notes = []
    settle(["a", "b", "a"], [1, 2, 3], notes)
    assert any(note.startswith("warning: ") and "around others" in note for note in notes)
    notes = []
    settle(["a", "a", "b"], [1, 2, 3], notes)
    assert notes == ["with the same text twice: a tie"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("score_chosen", "score_rejected"),
        ("chosen_score", "rejected_score"),
        ("chosen-rating", "rejected-rating"),
        ("rating_chosen", "rating_rejected"),
        ("chosen_avg_rating", "rejected_avg_rating"),
        ("reward_chosen", "reward_rejected"),
    ],
)
def test_equal_scores_tie_and_reversed_ones_warn(one, other):
    row = parse(pair(**{one: 8.0, other: 3}))
    assert (row.ranking, row.told.notes, row.prompt.meta) == ([1, 2], [], {})
    row = parse(pair(**{one: 7, other: "7.0"}))
    assert (row.ranking, row.told.notes) == ([1, 1], ["with equal scores: a tie"])
    row = parse(pair(**{one: 3, other: 8}))
    assert row.ranking == [1, 2]
    assert [note.startswith("warning: ") for note in row.told.notes] == [True]
    row = parse(pair(**{one: 3, other: None}))
    assert row.ranking == [1, 2]
    with pytest.raises(UserError, match=f"\"{one}\" must be a finite number, got 'good'"):
        parse(pair(**{one: "good", other: 1}))


def test_margins():
    assert parse(pair(margin=0.5)).ranking == [1, 2]
    assert parse(pair(margin=0)).ranking == [1, 1]
    assert len(parse(pair(margin=-1)).told.notes) == 1


def test_empty_cells_are_no_scores():
    for empty in ("", None):
        assert parse(pair(margin=empty)).ranking == [1, 2]
        assert parse(pair(score_chosen="1", score_rejected=empty)).ranking == [1, 2]


def test_ratings_that_contradict_the_ranking_warn():
    value = {"prompt": "p", "responses": ["a", "b"], "ranking": [1, 2], "ratings": [2, 5]}
    assert [note.startswith("warning: ") for note in parse(value).told.notes] == [True]
    assert parse({**value, "ratings": [5, 2]}).told.notes == []
    assert parse({**value, "ranking": None, "ratings": None, "scores": [2, 5]}).ranking == [2, 1]


def test_the_summary_counts_decided_pairs_and_ties(tmp_path, tokenizer_folder):
    scores = [(8.0, 3.0), (8.0, 8.0), (7.0, 7.0), (7.0, 7.0), (8.0, 3.0), (3.0, 8.0)]
    rows = [
        {
            "prompt": f"pig {i}?",
            "chosen": "Pink.",
            "rejected": "Blue.",
            "score_chosen": c,
            "score_rejected": r,
        }
        for i, (c, r) in enumerate(scores)
    ]
    rows.append({"prompt": "pig 7?", "chosen": "Pink.", "rejected": " Pink.\n"})
    texts = ["Pink.", "Pink.", "Blue."]
    rows += [{"prompt": f"{i}?", "responses": texts, "ranking": [1, 2, 3]} for i in range(3)]
    path = tmp_path / "pairs.jsonl"
    write_rows(path, rows)
    data = ComparisonDataModule(train=str(path), validation=None, tokenizer=tokenizer_folder)
    data.setup("fit")
    # pairs: 3 decided, 3 of equal scores, 1 of equal texts; of each list 2 decided and 1 tie
    assert "rankings: K=2 7, K=3 3; 9 decided pairs, 7 ties" in data.summary
    assert sum("3 rows with equal scores: a tie" in line for line in data.summary) == 1
    assert sum("4 rows with the same text twice: a tie" in line for line in data.summary) == 1
    assert sum("warning: 1 row whose scores" in line for line in data.summary) == 1
