"""A run that never begins leaves nothing behind, also where several ranks clean up."""

from instructgpt.callbacks.traces import Traces


def test_what_another_rank_has_removed_is_no_fault(tmp_path):
    run = tmp_path / "runs" / "one"
    traces = Traces(run, "logs")
    (run / "logs").mkdir(parents=True)
    (run / "logs" / "events.out.tfevents.1").touch()
    gone = run / "logs" / "events.out.tfevents.2"
    gone.symlink_to(run / "nowhere")  # is listed, and cannot be looked at
    traces.remove(tokenizer=True)
    assert [path.name for path in (run / "logs").iterdir()] == [gone.name]
    gone.unlink()
    traces.remove(tokenizer=True)
    assert list(tmp_path.iterdir()) == []


def test_what_holds_something_stays(tmp_path):
    run = tmp_path / "run"
    traces = Traces(run, "logs")
    (run / "logs").mkdir(parents=True)
    (run / "logs" / "events.out.tfevents.1").write_bytes(b"0" * 200)
    traces.remove(tokenizer=True)
    assert (run / "logs" / "events.out.tfevents.1").is_file()
