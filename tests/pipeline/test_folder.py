"""Which folders are finished, gone on from, cleared, kept or refused."""

import zipfile

import pytest

from instructgpt.models.folder import replacing
from instructgpt.pipeline import folder as module
from instructgpt.pipeline.folder import (
    PEOPLE,
    Record,
    answers_of,
    begin,
    is_finished,
    locked_output,
    read_record,
    wait_until_free,
    write_record,
)
from instructgpt.types import UserError


@pytest.fixture
def stage(tmp_path):
    """A folder of a stage in which something is."""
    folder = tmp_path / "stage"
    (folder / "checkpoints").mkdir(parents=True)
    with zipfile.ZipFile(folder / "checkpoints/last.ckpt", "w") as file:
        file.writestr("a", "b")
    return folder


def names(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


@pytest.mark.parametrize(
    ("record", "verb", "resumes", "kept"),
    [
        (Record("running", "f"), "fit", True, True),
        (Record("running", "f"), "predict", False, False),
        (Record("running", "other"), "fit", False, False),
        (Record("stale", "f"), "fit", False, False),
        (Record("finished", "other"), "fit", False, False),
        (Record("running", "f", people=True), "predict", False, True),
        (Record("stale", "f", people=True), "predict", False, True),
        (Record("finished", "f", people=True), "predict", False, True),
        (Record("running", "f", 1.0, False, ("own.jsonl",)), "fit", True, True),
    ],
)
def test_how_a_stage_begins(stage, record, verb, resumes, kept):
    write_record(stage, record)
    start = begin(stage, "f", verb, record.files)
    assert start.resumes == resumes
    assert names(stage) == (["checkpoints/last.ckpt"] if kept else []) + ["stage.json"]
    assert read_record(stage) == record._replace(state="running", fingerprint="f")
    assert not is_finished(stage, "f")


@pytest.mark.parametrize(
    ("record", "kept"),
    [
        (Record("running", "f", 3.0), True),
        (Record("running", "other"), False),
        (Record("stale", "f"), False),
    ],
)
def test_rows_that_were_growing_are_gone_on_with(stage, record, kept):
    """By ``generate`` and ``predict`` themselves, where they are of the same work."""
    grown = ["responses.jsonl.partial", "responses.jsonl.partial.facts"]
    for name in [*grown, "other.txt"]:
        (stage / name).write_text("")
    write_record(stage, record)
    start = begin(stage, "f", "generate")
    assert not start.resumes, "there is no checkpoint"
    assert ("goes on behind the rows" in start.note) == kept
    assert names(stage) == [*(grown if kept else []), "stage.json"]
    assert read_record(stage) == Record("running", "f", record.seconds)


def test_a_new_folder(tmp_path):
    assert not begin(tmp_path / "a/b", "f", "fit").resumes
    assert names(tmp_path) == ["a/b/stage.json"]


def test_seconds_of_an_interrupted_fit_count(stage):
    write_record(stage, Record("running", "f", 30.0))
    assert begin(stage, "f", "fit").record.seconds == 30.0


def test_half_a_checkpoint_is_not_gone_on_from(stage):
    path = stage / "checkpoints/last.ckpt"
    path.write_bytes(path.read_bytes()[:-10])
    write_record(stage, Record("running", "f"))
    assert not begin(stage, "f", "fit").resumes


def test_the_checkpoint_before_a_half_one_is_gone_on_from(stage):
    path = stage / "checkpoints/last.ckpt"
    path.with_name("previous.ckpt").write_bytes(path.read_bytes())
    path.write_bytes(path.read_bytes()[:-10])
    write_record(stage, Record("running", "f"))
    assert begin(stage, "f", "fit").resumes


def test_what_people_wrote_is_set_aside_when_the_question_changes(stage):
    for number in (1, 2):
        (stage / "comparisons.jsonl").write_text(f"by hand {number}")
        write_record(stage, Record("finished", f"old {number}", people=True))
        start = begin(stage, "new", "predict")
        kept = stage.with_name(f"stage.kept_{number}")
        assert (kept / "comparisons.jsonl").read_text() == f"by hand {number}"
        assert str(kept) in start.note
        assert names(stage) == ["stage.json"]
        assert read_record(stage) == Record("running", "new")


def test_killed_before_it_could_say_that_people_are_asked_a_stage_is_not_cleared(stage):
    """However it was told to ask them: on the command line, or by a config file."""
    (stage / PEOPLE).write_text("")
    (stage / "comparisons.jsonl").write_text("by hand")
    write_record(stage, Record("running", "f"))
    begin(stage, "f", "label")
    assert (stage / "comparisons.jsonl").read_text() == "by hand"
    assert read_record(stage).people
    begin(stage, "other", "label")
    assert (stage.with_name("stage.kept_1") / "comparisons.jsonl").read_text() == "by hand"


def test_rankings_put_where_the_stage_wrote_others_are_set_aside(stage):
    """Such as a copy of what was set aside before, put back into a folder that is not people's."""
    (stage / "comparisons.jsonl").write_text("by simulated labelers")
    write_record(stage, Record("finished", "old", answers=answers_of(stage)))
    begin(stage, "new", "label")
    assert names(stage) == ["stage.json"], "what the stage itself has written is cleared"
    (stage / "comparisons.jsonl").write_text("by hand")
    start = begin(stage, "newer", "label")
    kept = stage.with_name("stage.kept_1")
    assert (kept / "comparisons.jsonl").read_text() == "by hand"
    assert str(kept) in start.note


def test_what_people_correct_makes_a_stage_unfinished(stage):
    (stage / "comparisons.jsonl").write_text("by hand")
    write_record(stage, Record("finished", "f", people=True, answers=answers_of(stage)))
    assert is_finished(stage, "f")
    (stage / "comparisons.jsonl").write_text("corrected")
    assert not is_finished(stage, "f")
    write_record(stage, Record("finished", "f", answers="of simulated labelers"))
    assert is_finished(stage, "f")


def test_a_link_to_nowhere_is_refused(tmp_path):
    (tmp_path / "stage").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match="must be a folder of the pipeline"):
        begin(tmp_path / "stage", "f", "fit")


def test_a_folder_of_which_only_the_old_one_is_left_comes_back(tmp_path):
    """Killed between the two renames of ``replacing``."""
    old = tmp_path / ".export.old"
    old.mkdir()
    (old / "mark").write_text("the old one")
    with pytest.raises(KeyboardInterrupt), replacing(tmp_path / "export", "mark"):
        raise KeyboardInterrupt
    assert (tmp_path / "export/mark").read_text() == "the old one"
    with replacing(tmp_path / "export", "mark") as new:
        (new / "mark").write_text("the new one")
    assert names(tmp_path) == ["export/mark"]
    assert (tmp_path / "export/mark").read_text() == "the new one"


@pytest.mark.parametrize("marker", [None, "{", "[]", '{"state": "finished"}'])
def test_a_folder_of_somebody_else_is_refused_and_untouched(stage, marker):
    if marker is not None:
        (stage / "stage.json").write_text(marker)
    before = names(stage)
    with pytest.raises(UserError, match="must be a folder of the pipeline"):
        begin(stage, "f", "fit")
    assert names(stage) == before


def test_a_file_in_the_place_of_a_folder_is_refused(tmp_path):
    (tmp_path / "stage").write_text("mine")
    with pytest.raises(UserError, match="must be a folder of the pipeline"):
        begin(tmp_path / "stage", "f", "fit")


def test_a_link_in_a_folder_is_removed_and_not_followed(stage, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/rows").write_text("x")
    (stage / "link").symlink_to(tmp_path / "mine")
    write_record(stage, Record("running", "other"))
    begin(stage, "f", "fit")
    assert names(stage) == ["stage.json"]
    assert (tmp_path / "mine/rows").exists()


class Power(BaseException):
    """Goes out."""


def test_wherever_clearing_stops_the_rest_is_cleared_later(stage, monkeypatch):
    """The folder was begun with the same settings: half emptied, it must not be resumed."""
    (stage / "a").write_text("old")
    (stage / "b").write_text("old")
    write_record(stage, Record("finished", "old"))

    def unlink(path, *args, **kwargs):
        raise Power

    with monkeypatch.context() as patch:
        patch.setattr(type(stage), "unlink", unlink)
        with pytest.raises(Power):
            begin(stage, "f", "fit")
    assert read_record(stage).state == "stale"
    assert not begin(stage, "f", "fit").resumes
    assert names(stage) == ["stage.json"]


def test_where_the_first_marker_was_not_finished_the_folder_is_ours(tmp_path):
    (tmp_path / "stage").mkdir()
    (tmp_path / "stage/.stage.json.12.tmp").write_text("{")
    begin(tmp_path / "stage", "f", "fit")
    assert read_record(tmp_path / "stage").state == "running"


def test_one_pipeline_in_one_folder(tmp_path):
    with locked_output(tmp_path), pytest.raises(UserError, match="in use by another pipeline"):
        locked_output(tmp_path).__enter__()
    with locked_output(tmp_path):
        pass


def test_an_output_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        locked_output(tmp_path / "file/below").__enter__()


def test_a_stage_waits_for_what_still_writes_to_its_log(tmp_path):
    log = tmp_path / "a.log"
    with log.open("ab") as file:
        module.fcntl.flock(file, module.fcntl.LOCK_EX)
        with pytest.raises(UserError, match="still runs"):
            wait_until_free(log, patience=0.1)
    wait_until_free(log, patience=0.1)
