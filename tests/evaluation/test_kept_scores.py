"""Scores of reward models are kept for later commands."""

import math

from instructgpt.evaluation.kept_scores import KeptScores, key_of

ONE, OTHER, THIRD = (key_of([1, 2], [3]), key_of([1], [2, 3]), key_of([1, 2], [3, 0]))


def made(tmp_path, monkeypatch, facts):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return KeptScores(facts, "reward model x")


def test_prompt_and_response_are_told_apart():
    """The same tokens in a row are other answers where the response begins elsewhere or ends."""
    assert len({ONE, OTHER, THIRD}) == 3
    assert key_of([1, 2], [3]) == ONE


def test_what_is_added_is_read_to_the_last_bit(tmp_path, monkeypatch):
    """By the same facts alone; what is not finite is not kept."""
    kept = made(tmp_path, monkeypatch, {"model": "a"})
    assert kept.read() == {}
    kept.add({ONE: [0.1 + 0.2], OTHER: [1e-17, -3.0, 2.5]})
    kept.add({THIRD: [math.nan]})
    assert made(tmp_path, monkeypatch, {"model": "a"}).read() == {
        ONE: (0.1 + 0.2,),
        OTHER: (1e-17, -3.0, 2.5),
    }
    assert made(tmp_path, monkeypatch, {"model": "b"}).read() == {}


def test_half_a_line_of_a_killed_command_spoils_no_other(tmp_path, monkeypatch):
    kept = made(tmp_path, monkeypatch, {"model": "a"})
    kept.add({ONE: [1.0]})
    with kept.path.open("a") as file:
        file.write(f'["{OTHER}", 0.')
    kept.add({THIRD: [2.0]})
    assert kept.read() == {ONE: (1.0,), THIRD: (2.0,)}


def test_a_cache_that_cannot_be_written_stops_nothing(tmp_path, monkeypatch, capsys):
    (tmp_path / "instructgpt").write_text("a file where the folder should be")
    kept = made(tmp_path, monkeypatch, {"model": "a"})
    kept.add({ONE: [1.0]})
    said = capsys.readouterr()
    assert "scores are not kept for later commands" in said.out + said.err
    assert kept.read() == {}
