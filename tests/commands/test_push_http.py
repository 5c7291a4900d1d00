"""``export --push`` by the real client, to a hub on this machine."""

import json

import pytest
from hub_server import TOKEN, local_hub
from huggingface_hub import constants
from last_line import last_line

from instructgpt.__main__ import main as run

WEIGHTS = b"x" * 100_000


@pytest.fixture
def hub(monkeypatch):
    with local_hub() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # large files by LFS
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield hub


@pytest.fixture
def folder(tmp_path):
    export = tmp_path / "export"
    (export / "adapter").mkdir(parents=True)
    (export / "instructgpt.json").write_text(json.dumps({"format": 1, "config": {}}))
    (export / "README.md").write_text("---\nlicense: mit\n---\n\nMine.\n")
    (export / "model.safetensors").write_bytes(WEIGHTS)
    (export / "adapter/adapter_model.safetensors").write_bytes(b"y" * 1000)
    (export / ".env").write_text("secret")
    return export


def push(folder, *more):
    return run(["export", f"--output={folder}", "--push=ann/pig", "--yes=true", *more])


def contents(folder):
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != ".env"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def test_a_new_repository_is_private_and_gets_the_files_in_one_commit(hub, folder, capsys):
    assert push(folder) == 0
    assert hub.private == {"ann/pig": True}
    assert hub.files["ann/pig"] == contents(folder)
    assert len(hub.commits) == 1
    out = capsys.readouterr().out
    assert f"-> {hub.url}/ann/pig, a new repository, private: 4 files" in out
    assert f"uploaded to {hub.url}/ann/pig" in out


def test_public_if_asked_for(hub, folder):
    assert push(folder, "--public=true") == 0
    assert hub.private == {"ann/pig": False}


def test_a_second_time_only_what_changed_is_uploaded(hub, folder, capsys):
    assert push(folder) == 0
    assert push(folder) == 0
    assert len(hub.commits) == 1
    (folder / "README.md").write_text("---\nlicense: mit\n---\n\nMore.\n")
    assert push(folder) == 0
    assert hub.commits[1:] == [["README.md"]]
    assert sorted(hub.puts) == [1000, len(WEIGHTS)]
    assert hub.files["ann/pig"] == contents(folder)
    assert "which is there and private" in capsys.readouterr().out


def test_what_the_repository_has_besides_is_named_and_stays(hub, folder, capsys):
    hub.private["ann/pig"] = True
    hub.files["ann/pig"] = {".gitattributes": b"", "base/model.safetensors": b"old"}
    assert push(folder) == 0
    assert "there and not among these, stays: base/model.safetensors\n" in capsys.readouterr().out
    assert hub.files["ann/pig"]["base/model.safetensors"] == b"old"


def test_cut_in_the_middle_nothing_counts_and_the_next_goes_on(hub, folder, capsys):
    hub.cut = True
    assert push(folder) == 2
    said = last_line(capsys)
    assert said.startswith("instructgpt: error: --push ann/pig: Error while uploading '")
    assert "the same command goes on" in said
    assert hub.commits == []
    assert push(folder) == 0
    assert hub.files["ann/pig"] == contents(folder)
    assert sorted(hub.puts) == [1000, len(WEIGHTS)]  # what had arrived is not sent again


def test_what_the_hub_refuses_is_one_line(hub, folder, monkeypatch, capsys):
    (folder / "README.md").write_text("---\nlicense: [mit]\n---\n")
    assert push(folder) == 2
    expected = "--push ann/pig: Invalid metadata in README.md. - license must be one of a list"
    assert expected in last_line(capsys)
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert push(folder) == 2
    said = last_line(capsys)
    assert said.startswith("instructgpt: error: --push ann/pig: ")
    assert "401" in said
    assert "hf_wrong" not in said
    assert hub.files["ann/pig"] == {}
