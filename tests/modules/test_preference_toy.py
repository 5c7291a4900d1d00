"""An algorithm of somebody else, by its class path: trained, killed, resumed, on two ranks."""

import json
import multiprocessing
import os
import signal

import pytest
import torch
from harness import run_processes
from safetensors.torch import load_file

from instructgpt.__main__ import main
from instructgpt.cli import main as fit
from instructgpt.modules.preference import PreferenceModule


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Rankings and rows judged alone in one file."""
    folder = tmp_path_factory.mktemp("rows")
    (folder / "rows.jsonl").write_text(
        "".join(
            json.dumps(row) + "\n"
            for i in range(6)
            for row in (
                {"prompt": f"say {i}", "completion": "one", "label": True},
                {"prompt": f"say to {i}", "completion": "four five", "label": False},
                {"prompt": f"say the {i}", "responses": ["one", "a", "a b"], "ranking": [1, 2, 2]},
            )
        )
    )
    return folder / "rows.jsonl"


@pytest.fixture(scope="module")
def config(rows, policy_artefact):
    path = rows.with_name("config.yaml")
    path.write_text(
        f"""
trainer: {{max_epochs: 2, accelerator: cpu, logger: false, enable_progress_bar: false}}
checkpoint: {{every_n_steps: 1}}
model:
  class_path: PreferenceModule
  init_args:
    init_from: {policy_artefact}
    algorithm: {{class_path: toy_preference.Likely, init_args: {{weight: 0.5}}}}
    optimizer: {{class_path: torch.optim.SGD, init_args: {{lr: 0.1, momentum: 0.5}}}}
    schedule: Constant
    validation_prompts: 2
data:
  class_path: ComparisonDataModule
  init_args:
    train: {rows}
    validation: {rows}
    batch_size: 4
    max_prompt_tokens: 16
    max_response_tokens: 8
"""
    )
    return str(path)


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory):
    """An uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    return fit(["fit", "--config", config, f"--output={folder}"]), folder


def exported(folder):
    return load_file(folder / "export" / "model.safetensors")


def test_it_learns_and_its_export_answers(whole, tmp_path, config):
    cli, folder = whole
    assert cli.trainer.global_step == 8
    metrics = json.loads((folder / "metrics.json").read_text())["validations"]
    assert metrics[-1]["val/loss"] < metrics[0]["val/loss"]
    # 6 good rows and 6 best of three, of 30 responses
    assert metrics[-1]["val/best"] == pytest.approx(12 / 30)
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "say hello"}\n')
    args = ["--prompts", str(prompts), "--max_response_tokens", "4"]
    args += ["--output", str(tmp_path / "answers.jsonl")]
    assert main(["generate", "--model", str(folder / "export"), *args]) == 0
    assert "responses" in json.loads((tmp_path / "answers.jsonl").read_text())


def test_killed_and_resumed_it_is_the_run_that_was_not(whole, config, tmp_path, monkeypatch):
    original = PreferenceModule.training_step

    def training_step(self, batch, batch_idx):
        if self.trainer.global_step == 5:  # in the second epoch
            os.kill(os.getpid(), signal.SIGKILL)
        return original(self, batch, batch_idx)

    args = ["fit", "--config", config, f"--output={tmp_path}/run"]
    with monkeypatch.context() as patch:
        patch.setattr(PreferenceModule, "training_step", training_step)
        child = multiprocessing.get_context("fork").Process(target=fit, args=(args,))
        child.start()
        child.join(60)
    assert child.exitcode == -signal.SIGKILL
    assert not (tmp_path / "run" / "export").exists()
    fit([*args, "--ckpt_path=last"])
    one, other = exported(tmp_path / "run"), exported(whole[1])
    assert all(torch.equal(one[name], other[name]) for name in other)


def test_two_ranks_export_what_one_does(whole, config, tmp_path):
    args = ["fit", "--config", config, f"--output={tmp_path}/run", "--data.batch_size=2"]
    args += ["--trainer.devices=2", "--trainer.strategy=ddp"]
    assert run_processes(lambda: fit(args).trainer.global_step) == [8, 8]
    one, other = exported(tmp_path / "run"), exported(whole[1])
    torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
