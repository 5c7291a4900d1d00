"""``export --push``: what would be uploaded is shown, and nothing is without a yes."""

import io
import json
import sys

import huggingface_hub
import pytest
from huggingface_hub.errors import OfflineModeIsEnabled
from stand_in_hub import Hub

from instructgpt.__main__ import main as run

CARD = "---\nlicense: unknown\ntags:\n- a\n---\n\nText of mine.\n"


@pytest.fixture
def hub(monkeypatch):
    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_x")
    monkeypatch.setattr(Hub, "there", {})
    monkeypatch.setattr(Hub, "uploads", [])
    return Hub


@pytest.fixture
def folder(tmp_path):
    export = tmp_path / "export"
    (export / "adapter").mkdir(parents=True)
    (export / ".cache").mkdir()
    facts = {"format": 1, "config": {"data": {"train": ["/home/ann/pigs.jsonl"]}}}
    (export / "instructgpt.json").write_text(json.dumps(facts))
    (export / "README.md").write_text(CARD)
    (export / "model.safetensors").write_bytes(b"x" * 1500)
    (export / "adapter/adapter.safetensors").write_bytes(b"x" * 12)
    (export / ".cache/secret").write_text("x")
    (export / ".env").write_text("x")
    return export


FILES = ["README.md", "adapter/adapter.safetensors", "instructgpt.json", "model.safetensors"]


def push(folder, *more, name="ann/pig"):
    return run(["export", f"--output={folder}", f"--push={name}", *more])


def answer(monkeypatch, text):
    terminal = io.StringIO(text)
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stdin", terminal)


def test_what_is_uploaded_is_what_was_shown(hub, folder, capsys):
    assert push(folder, "--yes=true") == 0
    out = capsys.readouterr().out
    total = sum((folder / name).stat().st_size for name in FILES)
    where = "-> https://huggingface.co/ann/pig, a new repository, private"
    assert f"{where}: 4 files, {total / 1000:.1f} kB" in out
    for line in ("model.safetensors  1.5 kB", "adapter/adapter.safetensors  12 B"):
        assert f"  {line}\n" in out
    assert "instructgpt.json names paths of this machine, such as /home/ann/pigs.jsonl" in out
    assert "uploaded to https://huggingface.co/ann/pig" in out
    assert hub.uploads == [("create", "ann/pig", True, True), ("upload", "ann/pig", FILES)]


@pytest.mark.parametrize(("text", "uploads"), [("y\n", 2), ("n\n", 0), ("\n", 0), ("", 0)])
def test_only_a_yes_uploads(hub, folder, monkeypatch, capsys, text, uploads):
    answer(monkeypatch, text)
    assert push(folder) == 0
    assert len(hub.uploads) == uploads
    assert ("nothing was uploaded" in capsys.readouterr().out) == (not uploads)


def test_without_a_terminal_nobody_can_be_asked(hub, folder, capsys):
    assert push(folder) == 2
    assert "--yes true must be given where no terminal can be asked" in capsys.readouterr().err
    assert hub.uploads == []


def test_public_only_if_asked_for(hub, folder, capsys):
    assert push(folder, "--yes=true", "--public=true") == 0
    assert hub.uploads[0] == ("create", "ann/pig", False, True)
    hub.there["ann/pig"], hub.uploads[:] = False, []
    assert push(folder, "--yes=true") == 2
    assert "--public true must be given: ann/pig is there and public" in capsys.readouterr().err
    hub.there["ann/pig"] = True
    assert push(folder, "--yes=true", "--public=true") == 2
    assert "--public must be left out: ann/pig is there and private" in capsys.readouterr().err
    assert hub.uploads == []


@pytest.mark.parametrize("name", ["pig", "ann/", "a/b/c", "ann/pi g", "../pig", "ann/a--b", ""])
def test_a_name_that_is_none(hub, folder, capsys, name):
    assert push(folder, "--yes=true", name=name) == 2
    err = capsys.readouterr().err
    assert "--push" in err
    assert err.count("\n") == 1


def test_other_errors_are_one_line(hub, folder, monkeypatch, capsys):
    assert push(folder / "nowhere", "--yes=true") == 2
    assert "--output must be the folder of an artefact" in capsys.readouterr().err

    def offline(self, repo_id):
        raise OfflineModeIsEnabled("cannot reach the hub\nmore")

    monkeypatch.setattr(Hub, "repo_info", offline)
    assert push(folder, "--yes=true") == 2
    assert capsys.readouterr().err.endswith("--push ann/pig: cannot reach the hub\n")
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    assert push(folder, "--yes=true") == 2
    assert "--push needs a token of the hub, found none" in capsys.readouterr().err
    assert run(["export", "--run=x", "--public=true"]) == 2
    assert "--public must be left out without --push" in capsys.readouterr().err


def test_a_licence_is_named_and_what_people_wrote_stays(hub, folder, capsys):
    assert push(folder, "--yes=true", "--license=apache-2.0") == 0
    assert (folder / "README.md").read_text() == CARD.replace("unknown", "apache-2.0")
    (folder / "README.md").write_text("Mine.\n")
    assert push(folder, "--yes=true", "--license=mit") == 0
    assert (folder / "README.md").read_text() == "---\nlicense: mit\n---\n\nMine.\n"
    assert push(folder, "--yes=true", "--license=my own") == 2
    assert "--license must be a licence identifier" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["README.md", "notes", "adapter/more"])
def test_a_link_out_of_the_folder_is_neither_written_to_nor_uploaded(
    hub, folder, tmp_path, capsys, name
):
    (tmp_path / "mine").mkdir()
    target = tmp_path / "mine" if name == "notes" else tmp_path / "mine/id_rsa"
    (tmp_path / "mine/id_rsa").write_text("secret\n")
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(target)
    assert push(folder, "--yes=true", "--license=mit") == 2
    error = f"{folder / name} must lie in that folder, got a link to {target}"
    assert error in capsys.readouterr().err
    assert (tmp_path / "mine/id_rsa").read_text() == "secret\n"
    assert hub.uploads == []
    (folder / name).unlink()
    (folder / "README.md").write_text(CARD)
    (folder / "same").symlink_to("README.md")
    assert push(folder, "--yes=true") == 0
