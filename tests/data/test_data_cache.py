"""Rows are prepared once: the same for any number of processes, found again, whole or not there."""

import copy
import errno
import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

import instructgpt.data.build as build_module
from instructgpt.data.cache import cache_folder, entries, remove
from instructgpt.data.demonstrations import DemonstrationDataModule
from instructgpt.data.digest import file_digest
from instructgpt.data.row_format import RowFormat
from instructgpt.data.store import Store
from instructgpt.data.text import TextDataModule
from instructgpt.types import UserError

ROWS = 2500  # in three batches


@pytest.fixture
def rows(write):
    texts = [f"say {i} " + "hello " * (i % 7) for i in range(ROWS)]
    made = [{"prompt": text, "response": text[::-1], "meta_": i} for i, text in enumerate(texts)]
    return write("rows.jsonl", made)


@pytest.fixture
def prepare(tmp_path, tokenizer_folder):
    """Set a module up, and return it with the folder of its one set of rows."""

    def run(train, kind=DemonstrationDataModule, cache="cache", **options):
        folder = tmp_path / cache
        before = set(folder.glob("*/rows.arrow"))
        data = kind(
            train=str(train),
            **{"tokenizer": tokenizer_folder, "validation": None, "cache": str(folder), **options},
        )
        data.setup("fit")
        made = {path.parent for path in set(folder.glob("*/rows.arrow")) - before}
        return data, made

    return run


def stop(run, *args, **options):
    with pytest.raises(UserError) as caught:
        run(*args, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def everything(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("kind", [DemonstrationDataModule, TextDataModule])
def test_any_number_of_processes_writes_the_same_bytes(prepare, write, rows, kind):
    if kind is TextDataModule:
        lines = [{"text": f"{i} " + "some text\n" * (3000 * (i % 40 == 0))} for i in range(300)]
        rows = write("text.jsonl", lines)
    found = []
    for count in (1, 2, 3):
        data, (folder,) = prepare(rows, kind, f"cache{count}", num_proc=count)
        found.append((everything(folder), data.summary, data.find_origins()))
    assert found[0] == found[1] == found[2]
    assert len(found[0][0]["rows.arrow"]) > 2**16


def test_the_folder_is_a_data_set_of_the_library(prepare, rows):
    import datasets

    _, (folder,) = prepare(rows)
    found = datasets.Dataset.from_file(str(folder / "rows.arrow"))
    assert len(found) == ROWS
    row = found[2499]
    assert row["where"] == f"{rows}:{ROWS}"
    assert json.loads(row["prompt"]) == {"text": "say 2499 ", "meta": {"meta_": 2499}}
    store = Store(folder)
    assert row["prompt_tokens"] == store.lists("prompt_tokens")[2499].tolist()
    assert row["responses"] == [ids.tolist() for ids in store.nested("responses")[2499]]
    assert store.lists("prompt_tokens")[0].dtype == np.uint16


def test_a_second_start_reads_no_rows_and_says_the_same(prepare, rows, monkeypatch):
    first, made = prepare(rows)
    monkeypatch.setattr(build_module, "raw_items", None)  # nothing can be read any more
    second, again = prepare(rows)
    assert made
    assert not again
    assert second.summary == first.summary
    assert second.find_origins() == first.find_origins()
    assert [r.tokens.tolist() for r in second.train_rows[:9]] == [
        r.tokens.tolist() for r in first.train_rows[:9]
    ]


def test_what_rows_depend_on_makes_others_and_what_they_do_not_does_not(
    prepare, rows, eos_padded_folder
):
    options = {"on_error": "skip"}
    assert prepare(rows, **options)[1]
    for same in ({"batch_size": 3}, {"seed": 4}, {"validation": 0.5}):
        assert not prepare(rows, **options, **same)[1]
    for other in (
        {"max_prompt_tokens": 20},
        {"max_response_tokens": 20},
        {"template": "hh"},
        {"on_error": "stop"},
        {"drop_long_prompts": True},
        {"columns": {"prompt": "response", "response": "prompt"}},
    ):
        assert prepare(rows, **{**options, **other})[1], other
    rows.write_text(rows.read_text().replace("say 77 ", "say 78 "))
    data, made = prepare(rows, **options)
    assert made
    assert data.tokenizer.decode(data.train_rows[77].tokens).startswith("say 78 ")


@pytest.mark.parametrize("processes", [1, 2])
def test_the_first_bad_row_in_the_order_of_the_file_stops(prepare, rows, tmp_path, processes):
    lines = rows.read_text().splitlines()
    lines[1345] = '{"prompt": "x"}'
    lines[2001] = "not JSON"
    rows.write_text("\n".join(lines[:2200]) + "\n")
    message = stop(prepare, rows, num_proc=processes)
    assert message.startswith(f'{rows}:1346: "response" is missing')
    assert [path.name for path in (tmp_path / "cache").iterdir()] == []
    data, _ = prepare(rows, num_proc=processes, on_error="skip")
    assert len(data.train_rows) == 2198
    (line,) = [line for line in data.summary if line.startswith("read ")]
    assert line.startswith(f"read {rows}: 2,198 demonstration")
    assert line.endswith(", 2 bad")


def test_a_fault_of_the_file_comes_behind_bad_rows_before_it(prepare, write, rows):
    whole = write("rows.jsonl.gz", rows.read_text().replace('"response": "', '"answer_": "', 1))
    whole.write_bytes(whole.read_bytes()[:-2000])
    assert ':1: "response" is missing' in stop(prepare, whole, num_proc=2)
    whole = write("rows.jsonl.gz", rows.read_text())
    whole.write_bytes(whole.read_bytes()[:-2000])
    assert "must be a whole gzip file" in stop(prepare, whole, num_proc=2)


def _killed(items):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("words", [1, 2_000])  # of which a batch does not fit into a pipe
def test_a_killed_worker_is_one_line_and_leaves_nothing(
    prepare, write, rows, tmp_path, monkeypatch, words
):
    monkeypatch.setattr(build_module, "_record", _killed)
    lines = [json.loads(line) for line in rows.read_text().splitlines()]
    lines = [{**line, "response": " ".join([line["response"]] * words)} for line in lines]
    long = write("long.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    message = stop(prepare, long, num_proc=2)
    assert message.startswith("data: a process that prepares rows was killed")
    assert list((tmp_path / "cache").iterdir()) == []


def test_ctrl_c_leaves_nothing_and_no_process(prepare, rows, tmp_path, monkeypatch):
    def interrupted(self, rows, read):
        raise KeyboardInterrupt

    monkeypatch.setattr(build_module.Progress, "add", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare(rows, num_proc=2)
    assert list((tmp_path / "cache").iterdir()) == []
    assert multiprocessing.active_children() == []


def test_a_full_disk_is_one_line(prepare, rows, tmp_path, monkeypatch):
    def full(number):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    message = stop(prepare, rows)
    assert message.startswith(f"--data.cache {tmp_path / 'cache'} has no room left")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_cache_that_cannot_be_written_is_said_and_the_run_goes_on(
    prepare, rows, tmp_path, capsys
):
    (tmp_path / "cache").write_text("a file")
    data, _ = prepare(rows)
    assert len(data.train_rows) == ROWS
    assert "cannot be written to" in capsys.readouterr().err


class Opaque(RowFormat):
    """A format with an object that JSON cannot hold."""

    def __init__(self):
        self.inside = object()

    def convert(self, row):
        return {"prompt": row["prompt"], "response": row["response"]}


def test_rows_that_nobody_can_name_are_said_not_to_be_kept(prepare, rows, tmp_path, capsys):
    data, _ = prepare(rows, format=Opaque())
    assert len(data.train_rows) == ROWS
    assert f"{rows} is prepared for this run only, not kept" in capsys.readouterr().err
    assert not (tmp_path / "cache").exists()


def _prepare_at_once(train, cache, tokenizer, barrier, results):
    data = DemonstrationDataModule(
        train=train, cache=cache, tokenizer=tokenizer, validation=None, num_proc=1
    )
    barrier.wait()
    data.setup("fit")
    results.put((len(data.train_rows), data.find_origins()["data.train"].digest))


def test_runs_that_prepare_the_same_rows_at_once_do_not_hurt_each_other(
    rows, tmp_path, tokenizer_folder
):
    forking = multiprocessing.get_context("fork")
    barrier, results = forking.Barrier(3), forking.Queue()
    arguments = (str(rows), str(tmp_path / "cache"), tokenizer_folder, barrier, results)
    runs = [forking.Process(target=_prepare_at_once, args=arguments) for _ in range(3)]
    for run in runs:
        run.start()
    found = [results.get(timeout=60) for _ in runs]
    for run in runs:
        run.join()
    assert found[0] == found[1] == found[2]
    assert len(list(entries(tmp_path / "cache"))) == 1
    assert len(list((tmp_path / "cache").iterdir())) == 1


@pytest.mark.parametrize("damage", ["half", "gone", "record"])
def test_a_damaged_entry_is_made_anew(prepare, rows, damage):
    first, (folder,) = prepare(rows)
    origins = first.find_origins()
    file = folder / ("made_from.json" if damage == "record" else "rows.arrow")
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    if damage == "gone":
        file.unlink()
    second, _ = prepare(rows)
    assert second.find_origins() == origins
    assert (folder / "rows.arrow").read_bytes()[-8:] == build_module.END


def test_entries_know_their_size_and_when_they_were_used(prepare, rows, tmp_path):
    _, (folder,) = prepare(rows)
    (entry,) = entries(tmp_path / "cache")
    assert entry.size == sum(path.stat().st_size for path in folder.iterdir())
    assert entry.made_from["sources"][0][0] == str(rows)
    os.utime(folder / "made_from.json", (1, 1))
    begun = time.time()
    data, _ = prepare(rows)
    (entry,) = entries(tmp_path / "cache")
    assert entry.used >= begun - 1
    remove(folder)
    assert list(entries(tmp_path / "cache")) == []
    assert len(data.train_rows[2499].tokens) > 0  # a run that has it open reads on


def test_the_place_of_the_cache(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/a")
    assert cache_folder(None) == Path("/a/instructgpt/data")
    assert cache_folder("~/b") == Path.home() / "b"


def test_digests_of_large_files_are_remembered_unless_they_have_just_changed(tmp_path, monkeypatch):
    import instructgpt.data.digest as module

    path, known = tmp_path / "large", tmp_path / "known"
    path.write_bytes(b"a" * 2**20)
    first = file_digest(path, known)
    assert not known.exists()  # it may change again within this tick of the clock
    later = time.time() + 60
    monkeypatch.setattr(module.time, "time", lambda: later)
    assert file_digest(path, known) == first
    (remembered,) = known.iterdir()
    record = json.loads(remembered.read_text())
    remembered.write_text(json.dumps(record | {"digest": "as remembered"}))
    assert file_digest(path, known) == "as remembered"
    state = path.stat()
    path.write_bytes(b"b" * 2**20)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))  # as some programs do
    assert file_digest(path, known) not in (first, "as remembered")


def _killed_while_building(train, cache, tokenizer):
    def killed(self, rows, read):
        os.kill(os.getpid(), signal.SIGKILL)

    build_module.Progress.add = killed
    data = DemonstrationDataModule(
        train=train, cache=cache, tokenizer=tokenizer, validation=None, num_proc=2
    )
    data.setup("fit")


def test_a_build_after_one_that_was_killed(prepare, rows, tmp_path, tokenizer_folder):
    whole, (folder,) = prepare(rows, cache="other")
    forking = multiprocessing.get_context("fork")
    arguments = (str(rows), str(tmp_path / "cache"), tokenizer_folder)
    build = forking.Process(target=_killed_while_building, args=arguments)
    build.start()
    build.join(60)
    assert build.exitcode == -signal.SIGKILL
    assert list((tmp_path / "cache").glob("*.partial"))  # half of it, which nobody takes for whole
    assert list(entries(tmp_path / "cache")) == []
    data, (again,) = prepare(rows)
    assert everything(again).keys() == everything(folder).keys()
    assert (again / "rows.arrow").read_bytes() == (folder / "rows.arrow").read_bytes()
    assert data.find_origins() == whole.find_origins()
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [again.name]


def test_workers_read_the_store_and_give_the_same_batches(prepare, rows):
    batches = []
    for workers in (0, 2):
        data, _ = prepare(rows, num_workers=workers, batch_size=500)
        batches.append([batch.rows.tokens.tolist() for batch in data.train_dataloader()])
    assert batches[0] == batches[1]
    assert len(batches[0]) == 5


def test_ids_of_a_large_vocabulary_have_four_bytes(prepare, write, tiny_tokenizer, tmp_path):
    large = copy.deepcopy(tiny_tokenizer)
    large.add_tokens([f"<{i}>" for i in range(2**16)])
    large.save_pretrained(tmp_path / "large")
    last = f"<{2**16 - 1}>"
    train = write("large.jsonl", [{"prompt": "say", "response": last}])
    data, (folder,) = prepare(train, tokenizer=str(tmp_path / "large"))
    (row,) = data.train_rows
    assert row.tokens.tolist()[-2] == len(tiny_tokenizer) + 2**16 - 1 > 2**16
    assert str(Store(folder).lists("prompt_tokens")[0].dtype) == "uint32"


def test_a_second_start_says_in_one_line_where_rows_come_from(prepare, rows, capsys):
    _, (folder,) = prepare(rows)
    assert "from the cache" not in capsys.readouterr().err
    prepare(rows)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"note: {ROWS:,} rows of {rows} are from the cache, ")
    assert line.endswith(f" ago: {folder}")
