"""Configurations name classes and nothing else: no tag, function or file of theirs runs a command."""

# ruff: noqa: E501  one case a line reads best

import json

import pytest
from planted import CODE, TOUCH, refused
from rows import write_rows

FIT = ["fit", "--model=SFTModule", "--model.init_from=model", "--data=DemonstrationDataModule"]
FIT += ["--data.train=rows.jsonl", "--output=out", "--trainer.accelerator=cpu"]
PPO = ["fit", "--model=PPOModule", "--model.init_from=model", "--data=PromptDataModule"]
PPO += ["--data.train=rows.jsonl", "--output=out", "--trainer.accelerator=cpu"]


@pytest.fixture(autouse=True)
def _inputs(model, tmp_path):
    rows = [{"prompt": f"say {i}", "response": "hello"} for i in range(8)]
    write_rows(tmp_path / "rows.jsonl", rows)
    answers = [{"prompt": "x", "responses": ["a"]}]
    for name in "ab":
        write_rows(tmp_path / f"{name}.jsonl", answers)
    yield
    assert not (tmp_path / "out" / "config.yaml").exists()


TAGS = {
    "apply": f"!!python/object/apply:os.system ['{TOUCH}']",
    "new": f"!!python/object/new:os.system ['{TOUCH}']",
    "object": "!!python/object:planted.Evil {}",
    "name": "!!python/name:os.system",
    "a tag of its own": f"!run '{TOUCH}'",
}
NO_TAG = "could not determine a constructor for the tag"


@pytest.mark.parametrize("tag", list(TAGS))
def test_tags(tmp_path, capsys, tag):
    for verb, key in {"fit": "data", "pipeline": "stages"}.items():
        (tmp_path / "x.yaml").write_text(f"{key}: {TAGS[tag]}\n")
        assert NO_TAG in refused(capsys, verb, "--config=x.yaml")
    told = refused(capsys, *FIT, f"--data.columns={TAGS[tag]}")
    assert told.startswith("--data.columns must be dict, got ")


BOMB = "[&a [x, x], " + ", ".join(
    f"&{chr(98 + i)} [*{chr(97 + i)}, *{chr(97 + i)}]" for i in range(20)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{BOMB}]", "aliases must not repeat each other"),
        ("&a [*a]", "aliases must not form a circle"),
        ("[" * 10**5, "brackets must not be more than"),
    ],
)
def test_bombs(tmp_path, capsys, text, message):
    (tmp_path / "x.yaml").write_text(f"stages: {text.replace('{BOMB}', BOMB)}\n")
    for verb in ("pipeline", "prepare"):
        assert message in refused(capsys, verb, "--config=x.yaml")


SHELL = {"class_path": "subprocess.Popen", "init_args": {"args": TOUCH, "shell": True}}
SYSTEM = {"class_path": "os.system", "init_args": {"command": TOUCH}}
EXEC = {"class_path": "builtins.exec", "init_args": {"source": CODE}}
PLACES = {
    "data": FIT, "model.optimizer": FIT, "model.schedule": FIT, "data.format": FIT,
    "trainer.callbacks": FIT, "trainer.logger": FIT, "trainer.strategy": FIT,
    "model.algorithm": PPO, "model.reward": PPO,
}  # fmt: skip


@pytest.mark.parametrize("name", list(PLACES))
def test_class_paths_to_functions(capsys, name):
    args = [one for one in PLACES[name] if not one.startswith(f"--{name}=")]
    for path in (SYSTEM, SHELL, EXEC) if name == "model.optimizer" else (SYSTEM,):
        told = refused(capsys, *args, f"--{name}={json.dumps(path)}")
        assert name in told or path["class_path"] in told or "trainer" in told


@pytest.mark.parametrize("function", ["os:system", "subprocess:call", "builtins:exec"])
def test_functions_as_judges(tmp_path, capsys, function):
    """They are asked with three texts, and must answer with a number."""
    for name in "ab":
        write_rows(tmp_path / f"{name}.jsonl", [{"prompt": TOUCH, "responses": [TOUCH + name]}])
    args = ["evaluate", "--answers={a: a.jsonl, b: b.jsonl}", f"--judge={function}", "--output=out"]
    assert refused(capsys, *args).startswith(f"judge {function} failed on the prompt ")


@pytest.mark.parametrize("place", ["http://127.0.0.1:9/x.yaml", "memory://x.yaml", "/dev/stdin"])
@pytest.mark.parametrize("verb", ["fit", "pipeline"])
def test_configurations_from_elsewhere(capsys, verb, place):
    assert place in refused(capsys, verb, f"--config={place}")


def test_a_value_is_not_imported(tmp_path, capsys):
    """Looking for what is wrong with a command must not run what lies about."""
    (tmp_path / "looted.py").write_text(CODE)
    args = [one for one in FIT if not one.startswith("--data")]
    refused(capsys, *args, "--data.train=looted.jsonl")
