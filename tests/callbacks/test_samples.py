"""Samples as JSONL and as a table that a response cannot break."""

from rows import read_rows
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from toy_stage import fit

from instructgpt.callbacks.common import json_lines
from instructgpt.modules.shown import SHOWN_ROWS, first_cells, markdown_table


def rows_of(folder):
    return read_rows(folder / "samples.jsonl")


def test_rows_of_every_validation_are_appended(tmp_path):
    fit(tmp_path)
    assert [row["step"] for row in rows_of(tmp_path)] == [6] * 5 + [12] * 5


def test_a_new_run_starts_a_new_file_and_a_resumed_one_goes_on(tmp_path):
    fit(tmp_path)
    fit(tmp_path)
    assert len(rows_of(tmp_path)) == 10
    fit(tmp_path, "--ckpt_path=last", "--trainer.max_epochs=3")
    assert [row["step"] for row in rows_of(tmp_path)] == [6] * 5 + [12] * 5 + [18] * 5


def test_a_run_that_goes_on_in_another_folder_counts_the_rows_there(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    fit(old)
    fit(new, f"--ckpt_path={old}/checkpoints/last.ckpt", "--trainer.max_epochs=3")
    with (new / "samples.jsonl").open("a") as file:
        file.write('{"step": 24}\n')  # written after the checkpoint, so it will be again
    fit(new, "--ckpt_path=last", "--trainer.max_epochs=4")
    assert [row["step"] for row in rows_of(new)] == [18] * 5 + [24] * 5


def test_the_table_is_in_tensorboard_directly_in_the_folder(tmp_path):
    fit(tmp_path)
    events = EventAccumulator(str(tmp_path)).Reload()
    texts = events.Tensors("samples/text_summary")
    assert [event.step for event in texts] == [6, 12]
    assert b"a\\|" in texts[0].tensor_proto.string_val[0]
    assert {"train/loss", "val/loss", "lr-SGD/toy"} <= set(events.Tags()["scalars"])


def test_responses_are_escaped():
    rows = [{"response": "<b>x</b> | *y*\n# z", "score": 0.123456}]
    table = markdown_table(list(rows[0]), first_cells(rows))
    assert table.splitlines() == [
        "| response | score |",
        "| --- | --- |",
        "| &lt;b&gt;x&lt;/b&gt; \\| \\*y\\*<br>\\# z | 0.123 |".replace("&gt;", "&gt;"),
    ]


def test_long_tables_are_cut():
    assert len(first_cells([{"a": 1}] * 100)) == SHOWN_ROWS


def test_a_half_written_line_is_dropped(tmp_path):
    fit(tmp_path)
    with (tmp_path / "samples.jsonl").open("a") as file:
        file.write('{"step": 12, "prompt": "a|0')  # killed here
    fit(tmp_path, "--ckpt_path=last", "--trainer.max_epochs=3")
    assert [row["step"] for row in rows_of(tmp_path)] == [6] * 5 + [12] * 5 + [18] * 5


def test_rows_are_json_also_where_a_score_is_not_finite():
    assert json_lines([{"score": float("nan")}]) == '{"score": null}\n'
