"""The shipped configurations with the overlays of several processes, on two of them.

Other stages with ``fsdp2``: ``test_sharding.py`` and ``test_sharded_runs.py``; with ``ddp``:
``test_ranks.py``, ``test_preference.py`` and ``test_launchers.py``; overlays of one process:
``tests/test_configs.py``.
"""

import json
from pathlib import Path

import pytest
import torch
from harness import run_processes
from safetensors.torch import load_file

from instructgpt.cli import main

ROOT = Path(__file__).parents[2]
SHORT = ["--data.max_prompt_tokens=24", "--data.max_response_tokens=8"]
HERE = ["--trainer.accelerator=cpu", "--trainer.logger=false", "--trainer.max_epochs=1"]
HERE += ["--trainer.limit_train_batches=2", "--trainer.limit_val_batches=1"]
HERE += ["--trainer.enable_progress_bar=false", "--trainer.check_val_every_n_epoch=1"]
ROWS = {"sft": "demonstrations", "reward": "comparisons", "dpo": "comparisons"}


@pytest.mark.parametrize(
    ("stage", "overlays"),
    [
        ("reward", ["fsdp2"]),
        ("dpo", ["fsdp2", "lora"]),
        ("sft", ["ddp", "lora"]),
        ("ppo_ptx", ["ddp", "torchrun"]),
    ],
)
def test_two_processes_train_and_export(
    tmp_path, files, policy_artefact, reward_artefact, stage, overlays
):
    configs = [ROOT / "configs" / f"{stage}.yaml"]
    configs += [ROOT / "configs" / "overlays" / f"{name}.yaml" for name in overlays]
    args = ["fit", *(f"--config={path}" for path in configs), *HERE, *SHORT]
    args += [f"--model.init_from={policy_artefact}", f"--output={tmp_path}"]
    if stage == "ppo_ptx":
        args += [f"--model.reward.init_from={reward_artefact}", "--data.validation=0.2"]
        args += ["--model.batches={rollout_batch_size: 8, minibatch_size: 4}"]
        args += [f"--data.pretraining={files['text']}", "--data.pretraining_block_size=16"]
    else:
        args += ["--data.batch_size=4"]
    args += [f"--data.train={files[ROWS.get(stage, 'prompts')]}"]
    run_processes(lambda: main(args) and None, processes=2, timeout=300)
    assert json.loads((tmp_path / "metrics.json").read_text())["final"]["step"] == 2
    before, after = (
        load_file(Path(folder, "model.safetensors"))
        for folder in (policy_artefact, tmp_path / "export")
    )
    shared = [name for name in before if name in after]
    assert shared
    assert any(not torch.equal(before[name], after[name]) for name in shared)
    assert (tmp_path / "export" / "adapter").is_dir() == ("lora" in overlays)
