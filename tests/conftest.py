"""Shared by all tests: one thread, no network, tiny tokenizers and architectures."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import settings
from transformers import PreTrainedTokenizerFast

from instructgpt.models.tokenizer import BPE, train_bpe

torch.set_num_threads(1)
# Generated examples are the same in every run, and no folder remembers them.
settings.register_profile("same", derandomize=True, database=None, deadline=None)
settings.load_profile("same")

# Helpers, not tests: looked through for doctests they would be imported a second time.
collect_ignore = [
    "chats.py",
    "compared.py",
    "containers.py",
    "descent.py",
    "evaluation_answers.py",
    "flat_families.py",
    "harness.py",
    "hub_server.py",
    "odd_rows.py",
    "option_runs.py",
    "option_table.py",
    "report_claims.py",
    "small_chat_model.py",
    "small_ppo.py",
    "small_preference.py",
    "streams.py",
    "interrupted.py",
    "last_line.py",
    "planted.py",
    "power_cut.py",
    "public_rows.py",
    "refusals.py",
    "row_checks.py",
    "rows.py",
    "tiny_models.py",
    "toy_preference.py",
    "toy_rollout.py",
    "toy_stage.py",
]

TEXTS = [
    "The quick brown fox jumps over the lazy dog.",
    "Say hello to the world, and the world says hello to you.",
    "One two three four five six seven eight nine ten.",
]

LLAMA_LIKE = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 128,
}

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 128},
    "llama": LLAMA_LIKE,
    "qwen2": {**LLAMA_LIKE, "tie_word_embeddings": True},
    "gpt_neox": {key: LLAMA_LIKE[key] for key in LLAMA_LIKE if key != "num_key_value_heads"},
    "lfm2": {
        **LLAMA_LIKE,
        "layer_types": ["conv", "full_attention"],
        "block_auto_adjust_ff_dim": False,
    },
}


def architecture_named(name: str) -> dict[str, Any]:
    """Return a tiny configuration; its weights are wide enough apart that a mistake shows."""
    return {"model_type": name, "initializer_range": 0.2, **ARCHITECTURES[name]}


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What runs keep for other runs is kept for this session alone."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A BPE of 290 tokens with EOS 0 and padding 1; do not change it."""
    return train_bpe(TEXTS, BPE(vocab_size=290))


@pytest.fixture(scope="session")
def tokenizer_folder(tiny_tokenizer, tmp_path_factory):
    """The tiny tokenizer (EOS 0, padding 1) as a folder."""
    folder = tmp_path_factory.mktemp("tokenizer")
    tiny_tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def eos_padded_tokenizer() -> PreTrainedTokenizerFast:
    """A BPE whose padding token is EOS; do not change it."""
    tokenizer = train_bpe(TEXTS, BPE(vocab_size=290, special_tokens=["<|endoftext|>"]))
    tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


@pytest.fixture(params=list(ARCHITECTURES))
def tiny_architecture(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Each architecture in turn, as given to ``--model.architecture``."""
    return architecture_named(request.param)


@pytest.fixture
def make_architecture() -> Callable[[str], dict[str, Any]]:
    """Make one architecture by name."""
    return architecture_named
