"""All four stages on real data, as a user runs them; skipped where the data is not there."""

import json
from pathlib import Path

import pytest
from rows import read_rows

from instructgpt.__main__ import main

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "ci"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"no real data at {DATA}")

MODEL = "{model_type: gpt2, n_layer: 2, n_embd: 48, n_head: 4, n_positions: 256}"
COMMON = [
    "--trainer.check_val_every_n_epoch=1",
    "--trainer.accelerator=cpu",
    "--trainer.devices=1",
    "--trainer.enable_progress_bar=false",
]
ROWS = ["--data.max_prompt_tokens=96", "--data.max_response_tokens=64", "--data.on_error=skip"]


def fit(stage, output, *options):
    """Run one stage and return its final metrics."""
    code = main(
        ["fit", "--config", f"configs/{stage}.yaml", "--output", str(output), *options, *COMMON]
    )
    assert code == 0
    assert (output / "export" / "instructgpt.json").is_file()
    return json.loads((output / "metrics.json").read_text())["exported"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Pretraining, SFT, reward model and PPO-ptx, each from the export of the one before."""
    folder = tmp_path_factory.mktemp("runs")
    metrics = {
        "pretrain": fit(
            "pretrain",
            folder / "pretrain",
            f"--data.train={DATA / 'text'}",
            "--data.bpe.vocab_size=1024",
            "--data.block_size=128",
            "--data.batch_size=8",
            "--data.validation=0.2",
            f"--model.architecture={MODEL}",
            "--model.optimizer.lr=3e-3",
            "--trainer.max_epochs=-1",
            "--trainer.max_steps=120",
        )
    }
    base = folder / "pretrain" / "export"
    metrics["sft"] = fit(
        "sft",
        folder / "sft",
        f"--model.init_from={base}",
        f"--data.train={DATA / 'demonstrations'}",
        "--model.optimizer.lr=1e-3",
        "--trainer.max_epochs=2",
        *ROWS,
    )
    sft = folder / "sft" / "export"
    metrics["reward"] = fit(
        "reward",
        folder / "reward",
        f"--model.init_from={sft}",
        f"--data.train={DATA / 'comparisons'}",
        f"--data.demonstrations={DATA / 'demonstrations'}",
        "--data.validation=0.2",
        "--model.optimizer.lr=5e-4",
        "--trainer.max_epochs=1",
        *ROWS,
    )
    metrics["ppo"] = fit(
        "ppo_ptx",
        folder / "ppo",
        f"--model.init_from={sft}",
        f"--model.reward.init_from={folder / 'reward' / 'export'}",
        f"--data.train={DATA / 'prompts'}",
        f"--data.pretraining={DATA / 'text'}",
        "--data.pretraining_block_size=64",
        "--model.batches.rollout_batch_size=16",
        "--model.batches.minibatch_size=8",
        "--model.batches.microbatch_size=8",
        "--model.pretraining.ptx_per_episode=1",
        "--trainer.max_epochs=2",
        "--data.max_prompt_tokens=96",
        "--data.max_response_tokens=24",
    )
    return folder, metrics


@pytest.mark.timeout(900)
def test_language_models_learn(runs):
    _, metrics = runs
    assert metrics["pretrain"]["val/loss"] < 6.5  # ln 1024 = 6.9
    assert metrics["sft"]["val/loss"] < 6.5


def test_reward_model_reports_every_kind_of_accuracy(runs):
    _, metrics = runs
    found = metrics["reward"]
    assert {"val/accuracy", "val/accuracy_longer_wins", "val/calibration_error"} <= set(found)
    assert 0 <= found["val/accuracy"] <= 1
    assert any(name.startswith("val/accuracy_by_k/") for name in found)


def test_ppo_ptx_is_exact_and_leaves_samples(runs):
    folder, metrics = runs
    assert metrics["ppo"]["ppo/first_ratio"] == pytest.approx(1, abs=1e-5)
    assert metrics["ppo"]["gradient_norm/ptx"] > 0
    rows = read_rows(folder / "ppo" / "samples.jsonl")
    assert all(row["prompt"] and "score" in row for row in rows)
    assert (folder / "ppo" / "export" / "ema").is_dir()
    assert (folder / "ppo" / "export" / "value").is_dir()
