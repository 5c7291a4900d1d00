"""A policy to plant things in, and a watch over what must not have happened."""

import shutil
from pathlib import Path

import pytest
from planted import MARKER, unlisted
from rows import write_rows

from instructgpt.models.artefact import save_policy, save_scalar
from instructgpt.models.load import Network, load_policy, load_scalar
from instructgpt.models.template import get_template
from instructgpt.models.trained import LoRA, attach

SMALL = {"model_type": "gpt2", "n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 128}


@pytest.fixture(autouse=True)
def _nothing_ran(tmp_path, monkeypatch):
    """Whatever a test plants makes a file in the current directory, if it runs."""
    monkeypatch.chdir(tmp_path)
    yield
    assert not Path(MARKER).exists(), "what was planted ran"


@pytest.fixture(scope="session")
def clean(tmp_path_factory, tiny_tokenizer):
    """Artefacts that nobody has touched: a policy, one with an adapter, a reward model."""
    root = tmp_path_factory.mktemp("clean")
    about = {"template": get_template("plain"), "parent": None, "config": {}, "metrics": {}}
    policy = load_policy(None, SMALL, Network(), tiny_tokenizer)
    save_policy(policy, tiny_tokenizer, root / "policy", stage="sft", **about)
    adapted = attach(load_policy(None, SMALL, Network(), tiny_tokenizer), LoRA(rank=2))
    save_policy(adapted, tiny_tokenizer, root / "lora", stage="sft", **about)
    scalar = load_scalar(None, SMALL, Network(), tiny_tokenizer, head="new")
    save_scalar(scalar, tiny_tokenizer, root / "reward", stage="reward", **about)
    return root


@pytest.fixture
def model(clean, tmp_path):
    """A copy of the policy, to plant something in."""
    return unlisted(shutil.copytree(clean / "policy", tmp_path / "model"))


@pytest.fixture
def prompts(tmp_path):
    return write_rows(tmp_path / "prompts.jsonl", [{"prompt": "say hello"}])
