"""Which files a name stands for, and what is refused before it is opened."""

import json
import os
import socket
import struct

import datasets
import pyarrow
import pytest

from instructgpt.__main__ import main
from instructgpt.callbacks.common import json_lines
from instructgpt.data.demonstrations import DemonstrationDataModule
from instructgpt.data.files import read_file
from instructgpt.types import UserError


def rows(name, count=3):
    return [{"prompt": f"{name} {i}", "response": "yes"} for i in range(count)]


@pytest.fixture
def make(tokenizer_folder):
    """A module that has read what a name stands for; the files of its rows, and the summary."""

    def build(name, validation=None):
        data = DemonstrationDataModule(
            train=str(name),
            tokenizer=tokenizer_folder,
            validation=validation and str(validation),
        )
        data.setup("fit")
        return data

    return build


def shown(data, rows):
    """The first words of the prompts."""
    decode = data.tokenizer.decode
    return sorted({decode(row.tokens).split()[0] for row in rows})


def refusal(make, name):
    with pytest.raises(UserError) as error:
        make(name)
    assert "\n" not in str(error.value)
    return str(error.value)


# -- what is no ordinary file


def special(kind, path):
    if kind == "named pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    elif kind == "loop":
        path.symlink_to(path.name)
    elif kind == "dangling":
        path.symlink_to("nowhere.jsonl")


RULES = {
    "named pipe": "must be an ordinary file, got a named pipe",
    "socket": "must be an ordinary file, got a socket",
    "device": "must be an ordinary file, got a device",
    "loop": "cannot be read: Too many levels of symbolic links",
    "dangling": "no such file",
}


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.json", "a.csv", "a.parquet"])
@pytest.mark.parametrize("kind", RULES)
def test_what_is_no_file_is_refused_at_once(tmp_path, monkeypatch, make, kind, name):
    monkeypatch.chdir(tmp_path)  # the path of a socket must be short
    path = tmp_path / "set" / name
    path.parent.mkdir()
    special(kind, path.relative_to(tmp_path))
    assert refusal(make, path) == f"{path}: {RULES[kind]}"
    (tmp_path / "set" / "b.jsonl").write_text('{"prompt": "a", "response": "b"}\n')
    assert refusal(make, tmp_path / "set") == f"{path}: {RULES[kind]}"  # inside a folder too
    assert refusal(make, tmp_path / "set" / "*") == f"{path}: {RULES[kind]}"


@pytest.mark.parametrize(
    "arguments",
    [
        ["label", "--samples", "{}"],
        ["evaluate", "--answers", "{{a: '{}', b: '{}'}}", "--baseline", "a"],
        [
            "evaluate",
            "--answers",
            "{{a: x.jsonl, b: x.jsonl}}",
            "--baseline",
            "a",
            "--panels",
            "{}",
        ],
        ["generate", "--model", "m", "--prompts", "{}"],
    ],
)
@pytest.mark.parametrize("kind", ["named pipe", "device", "loop"])
def test_verbs_refuse_them_in_one_line(tmp_path, monkeypatch, capsys, kind, arguments):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.jsonl").write_text('{"prompt": "a", "responses": ["b"]}\n')
    path = tmp_path / "a.jsonl"
    special(kind, path)
    assert main([one.format(path, path) for one in arguments]) == 2
    error = capsys.readouterr().err
    assert error == f"instructgpt: error: {path}: {RULES[kind]}\n"


def test_devices_folders_and_names_that_are_none(tmp_path, make):
    assert refusal(make, "/dev/zero") == "/dev/zero: must be an ordinary file, got a device"
    (tmp_path / "a.jsonl").mkdir()
    assert "the folder must hold files" in refusal(make, tmp_path / "a.jsonl")
    with pytest.raises(UserError, match="must be an ordinary file, got a folder"):
        list(read_file(tmp_path / "a.jsonl"))
    assert refusal(make, "a\0.jsonl").endswith("cannot be read: embedded null byte")
    assert refusal(make, "a" * 9000 + ".jsonl").endswith("cannot be read: File name too long")


def test_names_that_lead_nowhere(make):
    assert refusal(make, "~no_such_user/a.jsonl") == "~no_such_user/a.jsonl: no such file"
    with pytest.raises(UserError, match="must be a file, a folder or a data set, got ' '"):
        make(" ")


def test_a_file_whose_name_is_not_utf8(tmp_path, make):
    path = os.fsencode(tmp_path) + b"/caf\xe9.jsonl"
    with open(path, "w") as file:
        file.write("".join(json.dumps(row) + "\n" for row in rows("a")))
    data = make(tmp_path, validation=tmp_path)
    name = data.prompt_rows[0].prompt.id
    assert name == r"caf\udce9.jsonl:1"
    assert json.loads(json_lines([{"id": name}]).encode()) == {"id": name}


def test_a_folder_that_leads_to_itself(write, make):
    folder = write("set/a.jsonl", rows("a")).parent
    (folder / "again").symlink_to(folder)
    assert len(make(folder).train_rows) == 3
    (folder / "a.jsonl").unlink()
    assert "the folder must hold files" in refusal(make, folder)


# -- folders, patterns, data sets as others write them


def test_a_snapshot_of_the_hub(tmp_path, make):
    (tmp_path / "data").mkdir()
    (tmp_path / "README.md").write_text("# A data set\n")
    (tmp_path / "dataset_infos.json").write_text("{}")
    for name, part in (("train", "a"), ("test", "b")):
        table = datasets.Dataset.from_list(rows(part))
        for shard in range(2):
            table.to_parquet(tmp_path / "data" / f"{name}-0000{shard}-of-00002.parquet")
    data = make(tmp_path)
    assert len(data.train_rows) == 6
    assert shown(data, data.train_rows) == ["a"]
    text = "\n".join(data.summary)
    assert f"ignored in {tmp_path}: README.md, dataset_infos.json" in text
    assert (
        f"read of {tmp_path}/data: what is called train; not read: test-00000-of-00002.parquet, "
        "test-00001-of-00002.parquet" in text
    )
    held = make(tmp_path, validation=tmp_path)
    assert shown(held, held.train_rows) == ["a"]
    assert shown(held, held.validation_rows) == ["b"]


@pytest.mark.parametrize("parts", [None, ("train", "test"), ("train", "validation", "test")])
def test_a_folder_of_save_to_disk(tmp_path, make, parts):
    if parts is None:
        datasets.Dataset.from_list(rows("train")).save_to_disk(tmp_path / "set", num_shards=2)
    else:
        sets = {part: datasets.Dataset.from_list(rows(part)) for part in parts}
        datasets.DatasetDict(sets).save_to_disk(tmp_path / "set")
    data = make(tmp_path / "set")
    assert len(data.train_rows) == 3
    assert shown(data, data.train_rows) == ["train"]
    if parts:
        others = ", ".join(sorted(set(parts) - {"train"}))
        assert f"what is called train; not read: {others}" in "\n".join(data.summary)
        held = make(tmp_path / "set", validation=tmp_path / "set")
        expected = "validation" if "validation" in parts else "test"
        assert shown(held, held.validation_rows) == [expected]


def test_a_broken_folder_of_save_to_disk(tmp_path, make):
    folder = tmp_path / "set"
    datasets.Dataset.from_list(rows("a")).save_to_disk(folder)  # prompts "a 0", "a 1", "a 2"
    arrow = folder / "data-00000-of-00001.arrow"
    whole = arrow.read_bytes()
    offset = struct.pack("<ii", 3, 6)  # of texts of three bytes: where the second begins and ends
    assert whole.count(offset) == 2
    arrow.write_bytes(whole.replace(offset, struct.pack("<ii", 3, 2**30)))
    assert refusal(make, folder).startswith(f"{arrow}: must be an Arrow file, got: ")
    arrow.write_bytes(b"no arrow at all")
    assert refusal(make, folder).startswith(f"{arrow}: must be an Arrow file, got: ")
    arrow.unlink()
    assert refusal(make, folder) == f"{arrow}: no such file"
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "../a.arrow"}]}))
    assert refusal(make, folder) == f"{folder}/a.arrow: no such file"  # nothing outside is read
    (folder / "state.json").write_text("[]")
    assert refusal(make, folder) == f"{folder}/state.json: must be as save_to_disk writes it"


def test_a_pattern(write, make):
    write("set/a-1.jsonl", rows("a"))
    write("set/a-2.jsonl", rows("b"))
    folder = write("set/notes.txt", "no data").parent
    assert len(make(folder / "a-*.jsonl").train_rows) == 6
    assert len(make(folder / "a-[1].jsonl").train_rows) == 3
    assert f"ignored in {folder}/*: notes.txt" in "\n".join(make(folder / "*").summary)
    none = f"{folder}/*.csv: must match files (.jsonl, "
    assert refusal(make, folder / "*.csv").startswith(none)
    odd = write("set/what?.jsonl", rows("c"))
    data = make(odd)  # a file of that very name
    assert shown(data, data.train_rows) == ["c"]


def test_files_whose_names_do_not_say_what_they_are_for(write, make):
    folder = write("set/chats.jsonl", rows("a")).parent
    write("set/test.jsonl", rows("b"))
    assert refusal(make, folder) == (
        f"{folder}: must say by names which files are for train, got chats.jsonl, test.jsonl, …: "
        "name the files"
    )
    held = make(folder / "chats.jsonl", validation=folder)
    assert shown(held, held.validation_rows) == ["b"]


def test_several_data_sets_in_one_folder(write, make):
    folder = write("en/a.jsonl", rows("a")).parent.parent
    write("de/a.jsonl", rows("b"))
    assert refusal(make, folder) == (
        f"{folder}: must hold one data set, got the folders de, en: name one"
    )


def test_the_cache_of_the_hub(tmp_path, make):
    """Files are links into a folder of blobs; one of several revisions is the one to read."""
    cache = tmp_path / "datasets--me--pigs"
    for revision, part in (("aaa", "a"), ("bbb", "b")):
        data = cache / "snapshots" / revision / "en" / "data"
        data.mkdir(parents=True)
        blob = cache / "blobs" / part
        blob.parent.mkdir(exist_ok=True)
        datasets.Dataset.from_list(rows(part)).to_parquet(blob)
        (data / "train-00000-of-00001.parquet").symlink_to(blob)
        (data.parent.parent / "README.md").write_text("# Pigs\n")
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("bbb")
    (cache / ".no_exist").mkdir()
    data = make(cache)
    assert shown(data, data.train_rows) == ["b"]
    assert shown(data, make(cache / "snapshots" / "aaa").train_rows) == ["a"]
    hidden = cache / "snapshots" / "aaa" / ".cache" / "huggingface"  # of a download to a folder
    hidden.mkdir(parents=True)
    (hidden / "train.jsonl").write_text("{}")
    text = "\n".join(make(cache / "snapshots" / "aaa").summary)
    assert "README.md" in text
    assert ".cache" not in text


def test_folders_of_splits_and_of_configurations(write, make, tmp_path):
    for config, split in (("en", "train"), ("en", "test"), ("de", "train")):
        write(f"set/{config}/{split}/0.jsonl", rows(f"{config}{split}"))
    data = make(tmp_path / "set" / "en", validation=tmp_path / "set" / "en")
    assert shown(data, data.train_rows) == ["entrain"]
    assert shown(data, data.validation_rows) == ["entest"]
    assert refusal(make, tmp_path / "set") == (
        f"{tmp_path}/set: must hold one data set, got the folders de, en: name one"
    )


@pytest.mark.parametrize("name", ["set", "set/*", "set/**"])
@pytest.mark.parametrize("held", ["test.jsonl", "eval-1.csv", "valid-00000-of-00001.jsonl.zst"])
def test_what_is_only_held_out_is_not_trained_on(write, make, tmp_path, name, held):
    content = "prompt,response\na,b\n" if ".csv" in held else rows("a")
    if ".zst" in held:
        content = "".join(json.dumps(row) + "\n" for row in content)
    write(f"set/{held}", content)
    message = refusal(make, tmp_path / name)
    assert message.startswith(f"{tmp_path}/{name}: must hold files for train, got only what is")
    assert message.endswith(f"({held}, …): name the files")
    assert make(tmp_path / "set" / held).train_rows  # the user says so
    assert make(tmp_path / "set" / f"{held[:5]}*").train_rows


def test_what_is_only_trained_on_is_not_held_out(write, make, tmp_path):
    write("set/train.jsonl", rows("a"))
    with pytest.raises(UserError, match="must hold files for validation, got only what is called"):
        make(tmp_path / "set", validation=tmp_path / "set")


def test_several_splits_to_train_on(tmp_path, make):
    """They have their prompts in common, so that all of them would be everything twice."""
    for name in ("train_sft", "train_gen", "test_sft"):
        path = tmp_path / "set" / "data" / f"{name}-00000-of-00001.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        datasets.Dataset.from_list(rows(name.replace("_", ""))).to_parquet(path)
    folder = tmp_path / "set" / "data"
    assert refusal(make, tmp_path / "set") == (
        f"{folder}: must hold one data set, got train_gen, train_sft: name one, as train_gen-*"
    )
    assert len(make(folder / "train_sft-*").train_rows) == 3


@pytest.mark.parametrize("twin", ["train.csv", "train.jsonl.gz", "train.json"])
def test_the_same_name_with_two_endings(write, make, twin):
    folder = write("set/train.jsonl", rows("a")).parent
    write(f"set/{twin}", "prompt,response\na,b\n" if "csv" in twin else json.dumps(rows("a")))
    message = refusal(make, folder)
    assert message.startswith(f"{folder}: must hold its rows once, got ")
    assert twin in message


def test_a_pattern_over_folders(tmp_path, write, make):
    for name in ("x", "y/z"):
        write(f"set/{name}/a.jsonl", rows(name[-1]))
    datasets.Dataset.from_list(rows("saved")).save_to_disk(tmp_path / "set" / "w")
    (tmp_path / "set" / "w" / "cache-12ab.arrow").write_text("what map computed")
    data = make(tmp_path / "set" / "**")
    assert shown(data, data.train_rows) == ["saved", "x", "z"]
    assert len(data.train_rows) == 9  # each once
    assert "ignored" not in "\n".join(data.summary)
    data = make(tmp_path / "set" / "**" / "*.jsonl")
    assert shown(data, data.train_rows) == ["x", "z"]


@pytest.mark.parametrize("indexed", [True, False])
def test_arrow_files(tmp_path, make, indexed):
    table = pyarrow.Table.from_pylist(rows("a", 3000))
    for part in ("train", "test"):
        path = tmp_path / "set" / f"pigs-{part}.arrow"
        path.parent.mkdir(exist_ok=True)
        new = pyarrow.ipc.new_file if indexed else pyarrow.ipc.new_stream
        with path.open("wb") as file, new(file, table.schema) as writer:
            writer.write_table(table)
    assert len(make(tmp_path / "set").train_rows) == 3000
    assert list(read_file(path))[-1].where == f"{path}:3000"
    whole = path.read_bytes()
    for broken in (whole[: len(whole) // 2], b"", b"ARROW1", b"no arrow at all"):
        path.write_bytes(broken)
        assert refusal(make, path).startswith(f"{path}: must be an Arrow file, got: ")
