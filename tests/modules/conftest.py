"""Tiny data, artefacts and trainers for the stages."""

import random

import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from rows import write_rows

from instructgpt.callbacks.seed import StepSeed
from instructgpt.data.comparisons import ComparisonDataModule
from instructgpt.data.demonstrations import DemonstrationDataModule
from instructgpt.data.prompts import PromptDataModule
from instructgpt.models.artefact import save_policy, save_scalar
from instructgpt.models.load import Network, load_policy, load_scalar
from instructgpt.models.template import get_template

WORDS = [
    "say",
    "hello",
    "to",
    "the",
    "world",
    "and",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
]


def words(rng, low, high):
    return " ".join(rng.choice(WORDS) for _ in range(rng.randint(low, high)))


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """Paths of small sets of every kind, with ragged lengths, mixed K and ties."""
    rng, folder = random.Random(5), tmp_path_factory.mktemp("data")
    demonstrations = [{"prompt": words(rng, 1, 6), "response": words(rng, 1, 7)} for _ in range(24)]
    comparisons = []
    for i in range(24):
        k = rng.choice([2, 3, 4])
        responses = [words(rng, 1, 6) for _ in range(k)]
        ranking = [rng.randint(1, 3) for _ in range(k)] if i else [1] * k
        labeler = rng.choice(["ann", "ben"])
        row = {"prompt": words(rng, 1, 6), "responses": responses, "ranking": ranking}
        comparisons.append({**row, "labeler": labeler})
    prompts = [{"prompt": f"{words(rng, 1, 6)} {i}"} for i in range(20)]
    texts = [{"text": words(rng, 10, 60)} for _ in range(20)]
    return {
        "demonstrations": write_rows(folder / "demonstrations.jsonl", demonstrations),
        "comparisons": write_rows(folder / "comparisons.jsonl", comparisons),
        "prompts": write_rows(folder / "prompts.jsonl", prompts),
        "text": write_rows(folder / "text.jsonl", texts),
    }


@pytest.fixture(scope="session")
def gpt2():
    """A tiny GPT-2 with dropout in its configuration."""
    return {
        "model_type": "gpt2",
        "n_embd": 16,
        "n_layer": 2,
        "n_head": 2,
        "n_positions": 64,
        "resid_pdrop": 0.3,
        "attn_pdrop": 0.3,
        "embd_pdrop": 0.3,
        "initializer_range": 0.2,
    }


def sft_export(architecture, tokenizer, path):
    torch.manual_seed(11)
    model = load_policy(None, architecture, Network(), tokenizer)
    plain = get_template("plain")
    own = {"stage": "sft", "parent": None, "config": {}, "metrics": {}}
    save_policy(model, tokenizer, path, template=plain, **own)
    return str(path)


@pytest.fixture(scope="session")
def policy_artefact(tmp_path_factory, tiny_tokenizer, gpt2):
    """The export of an SFT stage."""
    return sft_export(gpt2, tiny_tokenizer, tmp_path_factory.mktemp("sft") / "export")


@pytest.fixture(scope="session")
def peaked_artefact(tmp_path_factory, tiny_tokenizer, gpt2):
    """A policy whose frozen embeddings are large enough for an adapter to prefer any token."""
    architecture = {**gpt2, "n_embd": 32, "initializer_range": 0.4}
    return sft_export(architecture, tiny_tokenizer, tmp_path_factory.mktemp("peaked") / "export")


@pytest.fixture(scope="session")
def reward_artefact(tmp_path_factory, tiny_tokenizer, policy_artefact):
    """The export of a reward stage, with an offset."""
    torch.manual_seed(12)
    path = tmp_path_factory.mktemp("reward") / "export"
    model = load_scalar(policy_artefact, None, Network(), tiny_tokenizer, head="new")
    with torch.no_grad():
        model.offset.fill_(0.25)
    save_scalar(
        model,
        tiny_tokenizer,
        path,
        stage="reward",
        template=get_template("plain"),
        parent=policy_artefact,
        config={},
        metrics={},
    )
    return str(path)


@pytest.fixture
def demonstration_data(files, policy_artefact):
    def make(**options):
        defaults = {"validation": 0.2, "max_prompt_tokens": 24, "max_response_tokens": 24}
        return DemonstrationDataModule(
            train=files["demonstrations"],
            **{"tokenizer": policy_artefact, **defaults, **options},
        )

    return make


@pytest.fixture
def comparison_data(files, policy_artefact):
    def make(**options):
        defaults = {"validation": 0.2, "max_prompt_tokens": 24, "max_response_tokens": 24}
        return ComparisonDataModule(
            train=files["comparisons"], tokenizer=policy_artefact, **{**defaults, **options}
        )

    return make


@pytest.fixture
def prompt_data(files, policy_artefact):
    def make(**options):
        defaults = {"validation": 0.2, "max_prompt_tokens": 24, "max_response_tokens": 6}
        return PromptDataModule(
            train=files["prompts"], **{"tokenizer": policy_artefact, **defaults, **options}
        )

    return make


@pytest.fixture
def fit(tmp_path):
    """Train a module and return its trainer."""

    def run(module, data, ckpt_path=None, callbacks=(), **options):
        seed_everything(7, verbose=False)
        defaults = {
            "accelerator": "cpu",
            "devices": 1,
            "logger": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "enable_checkpointing": False,
            "use_distributed_sampler": False,
            "num_sanity_val_steps": 0,
            "limit_val_batches": 0,
            "default_root_dir": tmp_path,
        }
        trainer = Trainer(callbacks=[StepSeed(7), *callbacks], **{**defaults, **options})
        trainer.fit(module, data, ckpt_path=ckpt_path)
        return trainer

    return run
