"""Weights, tokenizers, adapters and checkpoints of strangers: nothing in them runs."""
# ruff: noqa: E501  one case a line reads best

import io
import json
import os
import pickle
import shutil
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from planted import CODE, MARKER, PICKLE, Evil, refused, unlisted
from rows import write_rows
from safetensors.torch import load_file, save_file
from toy_stage import fit, toy_args

from instructgpt.__main__ import main

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
ADAPTER = "adapter_model.safetensors"


def test_the_payload_works():
    pickle.loads(PICKLE)
    assert Path(MARKER).exists()
    os.remove(MARKER)


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def no_safetensors(folder, name, content):
    (folder / WEIGHTS).unlink()
    (folder / name).write_bytes(content)


def saved(value, **how):
    file = io.BytesIO()
    torch.save(value, file, **how)
    return file.getvalue()


def index(folder, *names):
    """Shards, as a file that lists them says."""
    (folder / WEIGHTS).unlink()
    weights = {f"weight_{name}": name for name in names}
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weights}))


def lying(path, change):
    """Weights whose header says something else than what is there."""
    raw = path.read_bytes()
    size = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8 : 8 + size])
    new = change(header)
    if not isinstance(new, bytes):
        text = json.dumps(new).encode()
        new = struct.pack("<Q", len(text)) + text
    path.write_bytes(new + raw[8 + size :])


def reshaped(header, **facts):
    """With other facts about the first tensor."""
    name = min(header.keys() - {"__metadata__"})
    return {**header, name: header[name] | facts}


CODED = {"auto_map": {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}}
PLANTED = {
    "pickled weights": lambda f: no_safetensors(f, "pytorch_model.bin", saved({"x": Evil()})),
    "a bare pickle": lambda f: no_safetensors(f, "pytorch_model.bin", PICKLE),
    "an old pickle": lambda f: no_safetensors(
        f, "pytorch_model.bin", saved({"x": Evil()}, _use_new_zipfile_serialization=False)
    ),
    "a pickle called safetensors": lambda f: (f / WEIGHTS).write_bytes(PICKLE),
    "a checkpoint called safetensors": lambda f: (f / WEIGHTS).write_bytes(saved({"x": Evil()})),
    "a shard that is a pickle": lambda f: (
        index(f, "pytorch_model.bin"), (f / "pytorch_model.bin").write_bytes(PICKLE)),
    "a shard elsewhere": lambda f: (
        index(f, "../elsewhere.bin"), (f.parent / "elsewhere.bin").write_bytes(PICKLE)),
    "tensorflow": lambda f: no_safetensors(f, "tf_model.h5", b"\x89HDF\r\n\x1a\n" + PICKLE),
    "flax": lambda f: no_safetensors(f, "flax_model.msgpack", PICKLE),
    "code of its own": lambda f: edit(f / "config.json", model_type="own", **CODED),
    "code beside a known type": lambda f: edit(f / "config.json", **CODED),
    "code on the hub": lambda f: edit(
        f / "config.json", model_type="own", auto_map={"AutoConfig": "evil/own--own.Config"}),
    "a class path as type": lambda f: edit(f / "config.json", model_type="os.system"),
    "another architecture": lambda f: edit(f / "config.json", architectures=["os.system"]),
    "a tokenizer with code": lambda f: edit(
        f / "tokenizer_config.json", tokenizer_class="Own", auto_map={"AutoTokenizer": ["own.T", None]}),
    "a tokenizer's class path": lambda f: edit(f / "tokenizer_config.json", tokenizer_class="os.system"),
    "a tokenizer that is a pickle": lambda f: (f / "tokenizer.json").write_bytes(PICKLE),
    "kernels of the hub": lambda f: edit(f / "config.json", attn_implementation="evil/kernels"),
    "sampling code": lambda f: (
        (f / "custom_generate").mkdir(), (f / "custom_generate" / "generate.py").write_text(CODE)),
    "an adapter beside the weights": lambda f: (
        (f / "adapter_config.json").write_text('{"peft_type": "LORA", "task_type": "CAUSAL_LM"}'),
        (f / "adapter_model.bin").write_bytes(PICKLE)),
    "a head that is a pickle": lambda f: (
        edit(f / "instructgpt.json", head="head.bin"), (f / "head.bin").write_bytes(PICKLE)),
    "a header longer than the file": lambda f: lying(f / WEIGHTS, lambda h: struct.pack("<Q", 2**62)),
    "a header of half a terabyte": lambda f: lying(f / WEIGHTS, lambda h: struct.pack("<Q", 2**39) + b"{"),
    "a header that is no JSON": lambda f: lying(f / WEIGHTS, lambda h: struct.pack("<Q", 8) + PICKLE[:8]),
    "places behind the file": lambda f: lying(f / WEIGHTS, lambda h: reshaped(h, data_offsets=[0, 2**40])),
    "places in front of the file": lambda f: lying(f / WEIGHTS, lambda h: reshaped(h, data_offsets=[-64, 0])),
    "shapes that do not fit the bytes": lambda f: lying(f / WEIGHTS, lambda h: reshaped(h, shape=[2**31, 2**31])),
    "a shape that the model does not have": lambda f: lying(f / WEIGHTS, lambda h: reshaped(h, shape=[8, 290])),
    "another type of numbers": lambda f: lying(f / WEIGHTS, lambda h: reshaped(h, dtype="object")),
    "a tensor too few": lambda f: lying(f / WEIGHTS, lambda h: {k: v for k, v in h.items() if "wte" not in k}),
}  # fmt: skip
HARMLESS = {"code beside a known type", "another architecture", "sampling code"}
HARMLESS |= {"a tokenizer with code", "a tokenizer's class path", "kernels of the hub"}
"""The classes that transformers has are used, whatever else is named: the policy answers."""


@pytest.mark.parametrize("what", list(PLANTED))
def test_a_model(model, prompts, capsys, what):
    for place in (model, model.parent):
        (place / "own.py").write_text(CODE)
    PLANTED[what](model)
    args = ["generate", f"--model={model}", f"--prompts={prompts}", "--device=cpu"]
    if what in HARMLESS:
        assert main([*args, "--max_response_tokens=2"]) == 0
    else:
        assert str(model) in refused(capsys, *args)


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ("head.bin", "key 'head' must be score, head.safetensors or base/head.safetensors"),
        ("../head.safetensors", "key 'head' must be score"),
        ("head.safetensors", "cannot load the reward head"),  # which is a pickle
    ],
)
def test_a_head(clean, tmp_path, capsys, head, message):
    model = unlisted(shutil.copytree(clean / "reward", tmp_path / "reward"))
    edit(model / "instructgpt.json", head=head)
    (model / head).resolve().write_bytes(PICKLE)
    write_rows(tmp_path / "a.jsonl", [{"prompt": "x", "responses": ["a", "b"]}])
    args = ["label", "--samples=a.jsonl", "--by=reward", "--reward_model=reward", "--output=out"]
    assert message in refused(capsys, *args)


ADAPTERS = {
    "a pickle": lambda f: (f / ADAPTER).write_bytes(PICKLE),
    "a pickle beside": lambda f: ((f / ADAPTER).unlink(), (f / "adapter_model.bin").write_bytes(PICKLE)),
    "a header longer than the file": lambda f: lying(f / ADAPTER, lambda h: struct.pack("<Q", 2**62)),
    "places behind the file": lambda f: lying(f / ADAPTER, lambda h: reshaped(h, data_offsets=[0, 2**40])),
    "a class of its own": lambda f: edit(
        f / "adapter_config.json", auto_mapping={"base_model_class": "system", "parent_library": "os"}),
    "another type": lambda f: edit(f / "adapter_config.json", peft_type="os.system"),
    "code for its layers": lambda f: edit(f / "adapter_config.json", custom_module_mapping={"a": "os.system"}),
    "a base that is no model": lambda f: edit(f / "adapter_config.json", base_model_name_or_path="/etc"),
    "a name that leads out": lambda f: save_file(
        {f"../../{name}": value for name, value in load_file(f / ADAPTER).items()}, f / ADAPTER),
}  # fmt: skip


@pytest.mark.parametrize("what", list(ADAPTERS))
def test_an_adapter(clean, tmp_path, capsys, what):
    folder = shutil.copytree(clean / "lora" / "adapter", tmp_path / "adapter")
    ADAPTERS[what](folder)
    base = [] if what == "a base that is no model" else [f"--base={clean / 'policy'}"]
    told = refused(capsys, "export", "--adapter=adapter", *base, "--output=merged")
    assert "adapter" in told or "/etc" in told
    assert sorted(os.listdir(tmp_path)) == ["adapter"]


def archive(*names):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as zipped:
        for name in names:
            zipped.writestr(name, PICKLE)
    return file.getvalue()


def with_evil(path):
    """A state of the run itself, with an object beside the weights."""
    return saved(torch.load(path, weights_only=True) | {"extra": Evil()})


def flipped(path):
    """One bit of the weights is another one, as no disk leaves it unsaid."""
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    return bytes(raw)


CHECKPOINTS = {
    "a bare pickle": lambda path: PICKLE,
    "an object in a state": with_evil,
    "an old pickle": lambda path: saved({"x": Evil()}, _use_new_zipfile_serialization=False),
    "an archive with paths outside": lambda path: archive("../ran", "/tmp/ran", "a/../../ran"),
    "a compiled program": lambda path: archive("x/constants.pkl", "x/code/x.py", "x/data.pkl"),
    "arrays of objects": lambda path: array_of_objects(),
    "a checksum that is wrong": flipped,
}


def array_of_objects():
    file = io.BytesIO()
    np.save(file, np.array([Evil()], dtype=object), allow_pickle=True)
    return file.getvalue()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run of the toy."""
    folder = tmp_path_factory.mktemp("run")
    fit(folder)
    return folder


@pytest.mark.parametrize("what", list(CHECKPOINTS))
def test_a_checkpoint(run, tmp_path, capsys, what):
    folder = shutil.copytree(run, tmp_path / "run")
    last = folder / "checkpoints" / "last.ckpt"
    last.write_bytes(CHECKPOINTS[what](last))
    (last.parent / "previous.ckpt").unlink(missing_ok=True)
    args = toy_args(f"--output={folder}", f"--ckpt_path={last}", "--trainer.max_epochs=3")
    told = refused(capsys, *args)
    assert told.startswith("--ckpt_path must be a checkpoint of a run, got")
    assert refused(capsys, "export", f"--run={folder}", "--ckpt_path=last", "--output=out") == told
    assert sorted(os.listdir(tmp_path)) == ["run"]
