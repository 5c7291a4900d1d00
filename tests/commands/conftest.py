"""Answers of models that are mixtures of the world's styles."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rows import write_rows
from transformers import PreTrainedTokenizerFast

from instructgpt.miniature.world.prompts import Task, make_task, toxic_task
from instructgpt.miniature.world.responses import STYLES, respond
from instructgpt.miniature.world.text import to_text
from instructgpt.models.artefact import save_scalar
from instructgpt.models.heads import Heads
from instructgpt.models.load import Network, load_scalar
from instructgpt.models.template import get_template

GOOD, MIXED, BAD = (8, 2, 1, 0, 0), (2, 2, 2, 1, 1), (0, 1, 3, 2, 4)


def tasks(group: str, count: int) -> list[Task]:
    """Prompts of a set, the same in every call."""
    rng = random.Random(group)
    if group.startswith("toxic_"):
        return [toxic_task(rng, group.removeprefix("toxic_")) for _ in range(count)]
    category = {"closed": "extract", "truth": "open_qa"}.get(group)
    return [make_task(rng, category) for _ in range(count)]


@pytest.fixture
def make_answers(tmp_path: Path) -> Callable[..., str]:
    """Write rows as ``generate`` does: by name, prompts of each set, responses, mix of styles."""

    def make(
        name: str,
        sets: dict[str, int],
        responses: int = 1,
        mix: tuple[int, ...] = MIXED,
        prefix: str = "",
    ) -> str:
        rng = random.Random(name)
        rows = []
        for group, count in sets.items():
            for number, task in enumerate(tasks(group, count)):
                texts = [
                    to_text(respond(task, rng, rng.choices(STYLES, mix)[0]))
                    for _ in range(responses)
                ]
                rows.append(
                    {
                        "id": f"{group}-{number}",
                        "prompt": prefix + to_text(task.tokens),
                        "set": group,
                        "category": task.meta["category"],
                        "meta": task.meta,
                        "responses": texts,
                        "finished": [rng.random() < 0.9 for _ in texts],
                    }
                )
        return write_rows(tmp_path / f"{name}.jsonl", rows)

    return make


@pytest.fixture
def make_nlp(tmp_path: Path) -> Callable[[str, int], str]:
    """Write answers to 20 items of two tasks, so many of each right."""

    def make(name: str, right: int) -> str:
        rows = [
            {
                "id": f"{task}-{number}",
                "prompt": f"{number} =",
                "set": f"nlp_{task}",
                "meta": {"category": "nlp", "kind": task, "answer": "7"},
                "responses": ["7" if number < right else "8"],
            }
            for task in ("arithmetic", "translation")
            for number in range(10)
        ]
        return write_rows(tmp_path / f"nlp_{name}.jsonl", rows)

    return make


@pytest.fixture
def make_reward_model(
    tmp_path: Path,
    tiny_tokenizer: PreTrainedTokenizerFast,
    make_architecture: Callable[[str], dict[str, Any]],
) -> Callable[..., str]:
    """Write a reward model that has learned nothing, by the seed of its weights and its heads."""

    def make(seed: int, heads: int = 1) -> str:
        torch.manual_seed(seed)
        architecture = make_architecture("gpt2") | {"n_positions": 512}
        model = load_scalar(None, architecture, Network(), tiny_tokenizer, head="new")
        if heads > 1:
            model.head = Heads.drawn(heads, next(model.head.parameters()).shape[1])
        about = {"stage": "reward", "template": get_template("plain"), "parent": None}
        folder = tmp_path / f"rm_{seed}"
        save_scalar(model, tiny_tokenizer, folder, **about, config={}, metrics={})
        return str(folder)

    return make


@pytest.fixture
def reward_model(make_reward_model: Callable[..., str]) -> str:
    """Folder of one of them."""
    return make_reward_model(3)


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Answers without ids or meta, and a module that judges them."""
    texts = {"mine": ["long answer", "b", "c c"], "yours": ["a", "bb b", "c c"]}
    paths = {}
    for name, answers in texts.items():
        rows = [
            {"id": f"p:{i}", "prompt": f"Q{i}", "responses": [t]} for i, t in enumerate(answers)
        ]
        path = tmp_path / f"{name}.jsonl"
        write_rows(path, rows)
        paths[name] = str(path)
    (tmp_path / "my_judge.py").write_text(
        "def longer(prompt, first, second):\n    return float(len(first) > len(second))\n"
        "panel = longer\n"
        "def two(first, second):\n    return 1\n"
        "def broken(prompt, first, second):\n    return 'first'\nnumber = 3\n"
    )
    monkeypatch.chdir(tmp_path)
    return paths
