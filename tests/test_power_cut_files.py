"""What says that something is finished: after a power cut at any moment that is so."""

import shutil

import pytest
from power_cut import cut, run_until

from instructgpt.callbacks.unfinished import UnfinishedRows
from instructgpt.models.folder import replacing, write_text
from instructgpt.pipeline.folder import Record, begin, is_finished, read_record, write_record

WAYS = ("lost", "names", "mixed")


def after_every_cut(tmp_path, way, before, work):
    """The folder after a power cut at every moment of some work, in turn."""
    root, kept, start = (tmp_path / name for name in ("root", "kept", "start"))
    start.mkdir()
    before(start)
    moment, ended = 0, None
    while ended is None:
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(start, root)
        ended = run_until(lambda: work(root) or 0, root, kept, moment)
        cut(root, kept, way, moment)
        yield root, ended is not None
        moment += 2
    assert moment > 8


def stage(root, text):
    """What a stage of a pipeline leaves, and the pipeline after it."""
    folder = root / "stage"
    begin(folder, text, "fit")
    with replacing(folder / "export", "mark") as export:
        for name in ("mark", "weights"):
            (export / name).write_text(text * 99)
    write_text(folder / "metrics.json", text * 99)
    write_record(folder, Record("finished", text))


@pytest.mark.parametrize("way", WAYS)
def test_a_stage_that_says_it_is_finished_is_whole(tmp_path, way):
    seen = set()
    cuts = after_every_cut(tmp_path, way, lambda root: stage(root, "a"), lambda r: stage(r, "b"))
    for root, ended in cuts:
        folder = root / "stage"
        record = read_record(folder)
        seen.add(record.state)
        assert is_finished(folder, "b") or not ended
        if record.state == "finished":
            files = [folder / "metrics.json", *(folder / "export" / n for n in ("mark", "weights"))]
            assert {file.read_text() for file in files} == {record.fingerprint * 99}
    assert seen == {"finished", "stale", "running"}


def rows(root, stop=6):
    """Rows in pairs, from where they are."""
    file = UnfinishedRows(root / "made" / "rows.jsonl", {"what": "squares"})
    if not file.path.exists():
        for number in range(file.open(2), stop, 2):
            file.add([{"square": n * n} for n in (number, number + 1)])
        file.finish()


@pytest.mark.parametrize("way", WAYS)
def test_rows_under_their_name_are_all_there_and_others_are_gone_on_with(tmp_path, way):
    whole = "".join(f'{{"square": {n * n}}}\n' for n in range(6))
    for root, ended in after_every_cut(tmp_path, way, lambda root: None, rows):
        file = root / "made" / "rows.jsonl"
        assert file.exists() or not ended
        rows(root)
        assert file.read_text() == whole
