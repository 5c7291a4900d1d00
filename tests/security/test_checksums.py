"""Checksums of an artefact: what was changed, cut, swapped or added is named, and not used."""
# ruff: noqa: E501  one case a line reads best

import hashlib
import json
import os
import shutil

import pytest
from planted import refused, unlisted

from instructgpt.__main__ import main
from instructgpt.models.artefact import save_policy
from instructgpt.models.load import Network, load_policy, load_scalar
from instructgpt.models.template import get_template
from instructgpt.types import UserError

FACTS, WEIGHTS, TEMPLATE = "instructgpt.json", "model.safetensors", "chat_template.jinja"
RULE = "must name files of its folder, with bytes and sha256"


@pytest.fixture(scope="module")
def written(clean, tmp_path_factory, tiny_tokenizer):
    """A policy with a chat template, as a stage writes it."""
    folder = tmp_path_factory.mktemp("written") / "export"
    tiny_tokenizer.chat_template = (
        "{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}"
    )
    policy = load_policy(str(clean / "policy"), None, Network(), tiny_tokenizer)
    about = {"template": get_template("plain"), "parent": None, "config": {}, "metrics": {}}
    save_policy(policy, tiny_tokenizer, folder, stage="sft", **about)
    tiny_tokenizer.chat_template = None
    return folder


@pytest.fixture
def folder(written, tmp_path):
    return shutil.copytree(written, tmp_path / "export")


def generate(folder, prompts):
    return (
        "generate",
        f"--model={folder}",
        f"--prompts={prompts}",
        "--device=cpu",
        "--max_response_tokens=2",
    )


def listing(folder, change):
    """Another list of files in the facts."""
    facts = json.loads((folder / FACTS).read_text())
    facts["files"] = change(facts["files"])
    (folder / FACTS).write_text(json.dumps(facts))


def flip(path):
    """One bit of the weights of a kind that no check of their values sees."""
    raw = bytearray(path.read_bytes())
    raw[-3] ^= 1
    path.write_bytes(raw)


def link(path, to):
    path.unlink()
    path.symlink_to(to)


def swap(path, other):
    """Another file of the same kind, from beside."""
    path.write_bytes(other)


def other_words(raw):
    """A tokenizer with two tokens the other way round: as long, and a whole tokenizer."""
    state = json.loads(raw)
    words = state["model"]["vocab"]
    words["a"], words["b"] = words["b"], words["a"]
    return json.dumps(state, indent=2, ensure_ascii=False).encode()


CHANGES = {
    "one bit of the weights": (WEIGHTS, flip, "its SHA-256 is "),
    "weights of another model": (WEIGHTS, lambda p: swap(p, p.read_bytes()[:-8] + bytes(8)), "its SHA-256 is "),
    "half of the weights": (WEIGHTS, lambda p: os.truncate(p, p.stat().st_size // 2), " bytes instead of "),
    "no byte of the weights": (WEIGHTS, lambda p: os.truncate(p, 0), "has 0 bytes instead of "),
    "weights that are gone": (WEIGHTS, os.unlink, "is missing"),
    "half a terabyte of nothing": (WEIGHTS, lambda p: os.truncate(p, 2**39), "has 549755813888 bytes instead of "),
    "a tokenizer with two words swapped": ("tokenizer.json", lambda p: swap(p, other_words(p.read_bytes())), ""),
    "settings of the tokenizer": ("tokenizer_config.json", lambda p: swap(p, p.read_bytes() + b" "), " bytes instead of "),
    "no chat template": (TEMPLATE, os.unlink, "is missing"),
    "another chat template": (TEMPLATE, lambda p: swap(p, p.read_bytes().replace(b"content", b"CONTENT")), "its SHA-256 is "),
    "another configuration": ("config.json", lambda p: swap(p, p.read_bytes().replace(b"gelu", b"silu")), ""),
    "where it stops": ("generation_config.json", lambda p: swap(p, p.read_bytes().replace(b": 0", b": 7")), "its SHA-256 is "),
    "a link to outside": (WEIGHTS, lambda p: link(p, "/etc/passwd"), " bytes instead of "),
    "a link to a device": (WEIGHTS, lambda p: link(p, "/dev/zero"), "is missing"),
    "a link to itself": (WEIGHTS, lambda p: link(p, WEIGHTS), "is missing"),
    "a pipe": (WEIGHTS, lambda p: (p.unlink(), os.mkfifo(p)), "is missing"),
    "an adapter that was added": ("adapter_config.json", lambda p: p.write_text("{}"), "is not among them"),
    "a template that was added": ("additional_chat_templates/x.jinja", lambda p: (p.parent.mkdir(), p.write_text("x")), "is not among them"),
}  # fmt: skip


@pytest.mark.parametrize("what", list(CHANGES))
def test_a_file_that_was_changed(folder, prompts, capsys, what):
    name, change, why = CHANGES[what]
    change(folder / name)
    told = refused(capsys, *generate(folder, prompts))
    assert told.startswith(f"{folder / name}: must be as instructgpt.json lists it, ")
    assert why in told
    assert told.endswith(f"to take it as it is, remove 'files' from {folder / FACTS})")


def test_what_is_written_is_listed_and_answers(folder, prompts):
    """Whole, with a card of one's own, with files of one's own, or by links to the same bytes."""
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    listed = json.loads((folder / FACTS).read_text())["files"]
    assert set(listed) == names - {FACTS, "README.md"}
    raw = (folder / WEIGHTS).read_bytes()
    assert listed[WEIGHTS] == {"bytes": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}
    (folder / "README.md").write_text("A card of mine.\n")
    (folder / "results.json").write_text("{}")
    shutil.move(folder / WEIGHTS, folder.parent / "blob")
    (folder / WEIGHTS).symlink_to(folder.parent / "blob")
    assert main([*generate(folder, prompts)]) == 0
    flip(folder.parent / "blob")  # seen also by a process that has read it before
    with pytest.raises(UserError, match=r"model\.safetensors: must be as "):
        load_policy(str(folder), None, Network())


def test_one_that_lists_nothing_is_read_as_before(folder, prompts):
    (unlisted(folder) / TEMPLATE).unlink()
    assert main([*generate(folder, prompts)]) == 0


HEX = "0" * 64
LISTS = {
    "outside": lambda files: {"../../etc/passwd": {"bytes": 1, "sha256": HEX}},
    "absolute": lambda files: files | {"/etc/passwd": {"bytes": 1, "sha256": HEX}},
    "in and out": lambda files: files | {"adapter/../../x": {"bytes": 1, "sha256": HEX}},
    "backslashes": lambda files: files | {"..\\x": {"bytes": 1, "sha256": HEX}},
    "one file by two names": lambda files: files | {f"./{WEIGHTS}": files[WEIGHTS]},
    "the folder": lambda files: files | {".": {"bytes": 1, "sha256": HEX}},
    "no name": lambda files: files | {"": {"bytes": 1, "sha256": HEX}},
    "a zero in a name": lambda files: files | {"a\0b": {"bytes": 1, "sha256": HEX}},
    "names alone": lambda files: list(files),
    "a digest that is none": lambda files: files | {WEIGHTS: {"bytes": 1, "sha256": HEX[1:]}},
    "a digest of another kind": lambda files: files | {WEIGHTS: {"bytes": 1, "sha256": 0}},
    "a size below zero": lambda files: files | {WEIGHTS: files[WEIGHTS] | {"bytes": -1}},
    "half a byte": lambda files: files | {WEIGHTS: files[WEIGHTS] | {"bytes": 0.5}},
    "a size that is true": lambda files: files | {WEIGHTS: files[WEIGHTS] | {"bytes": True}},
    "no facts": lambda files: files | {WEIGHTS: None},
}  # fmt: skip


@pytest.mark.parametrize("what", list(LISTS))
def test_a_list_that_leads_out_or_says_nothing(folder, prompts, capsys, what):
    listing(folder, LISTS[what])
    told = refused(capsys, *generate(folder, prompts))
    assert told.startswith(f"{folder / FACTS}: key 'files' {RULE}, got ")
    assert len(told) < len(str(folder)) + 300


def test_other_lists(folder, prompts, capsys):
    """A size that no file has; a weight that is left out; nothing listed; a name that is long."""
    facts = (folder / FACTS).read_text()
    huge = {"bytes": 2**70, "sha256": HEX}
    for change, why in {
        lambda files: files | {WEIGHTS: huge}: f"{WEIGHTS}: must be as .* bytes instead of {2**70}",
        lambda files: {n: f for n, f in files.items() if n != WEIGHTS}: f"{WEIGHTS}: .* not among",
        lambda files: {}: "is not among them",
        lambda files: files | {"x" * 5000: huge}: "is missing",
    }.items():
        listing(folder, change)
        with pytest.raises(UserError, match=why):
            load_policy(str(folder), None, Network())
        (folder / FACTS).write_text(facts)
    weights = f'"{WEIGHTS}": {{'
    (folder / FACTS).write_text(facts.replace(weights, f'"{WEIGHTS}": null, {weights}'))
    told = refused(capsys, *generate(folder, prompts))
    assert told == (
        f"{folder / FACTS}: must be JSON, in which '{WEIGHTS}' stands once, got it twice"
    )
    (folder / FACTS).write_text("[" * 10**5)
    assert refused(capsys, *generate(folder, prompts)).startswith(f"{folder / FACTS}: must be JSON")


def test_heads_adapters_and_what_is_uploaded(clean, tmp_path, capsys, monkeypatch):
    reward = shutil.copytree(clean / "reward", tmp_path / "reward")
    flip(reward / WEIGHTS)
    with pytest.raises(
        UserError, match=r"reward/model\.safetensors: must be as .* its SHA-256 is "
    ):
        load_scalar(str(reward), None, Network(), None, head="stored")
    lora = shutil.copytree(clean / "lora", tmp_path / "lora")
    flip(lora / "adapter" / "adapter_model.safetensors")
    args = [
        "export",
        f"--adapter={lora / 'adapter'}",
        f"--base={clean / 'policy'}",
        "--output=merged",
    ]
    told = refused(capsys, *args)
    assert told.startswith(f"{lora}/adapter/adapter_model.safetensors: must be as ")
    assert not (tmp_path / "merged").exists()
    monkeypatch.setenv("HF_TOKEN", "hf_x")
    told = refused(capsys, "export", f"--output={reward}", "--push=ann/pig", "--yes=true")
    assert told.startswith(f"{reward / WEIGHTS}: must be as ")
