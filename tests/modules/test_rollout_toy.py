"""A rollout algorithm and a reward of somebody else, by class path: trained, killed, resumed."""

import json

import pytest
import torch
from harness import run_processes
from interrupted import kill_at
from safetensors.torch import load_file

from instructgpt.cli import main
from instructgpt.commands.generate import generate

OWN = """
model:
  class_path: PPOModule
  init_args:
    init_from: {artefact}
    reward: {{class_path: toy_rollout.CountsLetters, init_args: {{letters: aeo}}}}
    algorithm: {{class_path: toy_rollout.GroupPolicy, init_args: {{sharpness: 2.0, epochs: 2}}}}
    batches: {{rollout_batch_size: 24, minibatch_size: 12}}
    optimizer: {{class_path: torch.optim.SGD, init_args: {{lr: 0.5}}}}
    schedule: {{class_path: Constant}}
data:
  class_path: PromptDataModule
  init_args: {{train: {prompts}, max_prompt_tokens: 24, max_response_tokens: 6}}
trainer: {{max_epochs: 2}}
"""
COMMON = """
trainer:
  accelerator: cpu
  logger: false
  enable_progress_bar: false
  limit_val_batches: 0
checkpoint: {every_n_steps: 1}
seed_everything: 3
"""


@pytest.fixture
def fit(tmp_path, files, policy_artefact):
    """Train by the command line, on one process or on several; killed at an optimizer step."""

    def run(name, processes=1, killed_at=None, resume=False):
        own = OWN.format(artefact=policy_artefact, **files)
        for file, text in {"own": own, "common": COMMON}.items():
            (tmp_path / f"{file}.yaml").write_text(text)
        args = [f"--config={tmp_path / file}.yaml" for file in ("own", "common")]
        args += [f"--output={tmp_path / name}", f"--trainer.devices={processes}"]
        args += ["--trainer.strategy=ddp"] if processes > 1 else []
        args += ["--ckpt_path=last"] if resume else []

        def train():
            if killed_at is not None:
                kill_at(killed_at)
            main(["fit", *args])

        run_processes(train, processes=processes)
        return load_file(tmp_path / name / "export" / "model.safetensors")

    return run


@pytest.mark.parametrize("processes", [1, 2])
def test_trains_alone_and_in_two_and_goes_on_after_a_kill(
    fit, tmp_path, policy_artefact, processes
):
    whole = fit("whole", processes)
    start = load_file(f"{policy_artefact}/model.safetensors")
    assert any(not torch.equal(start[name], weight) for name, weight in whole.items())
    with pytest.raises(AssertionError, match=r"no answer from ranks .*-9"):
        fit("killed", processes, killed_at=3)
    resumed = fit("killed", processes, resume=True)
    assert all(torch.equal(resumed[name], weight) for name, weight in whole.items())
    if processes > 1:
        alone = fit("alone")
        for name, weight in alone.items():
            torch.testing.assert_close(whole[name], weight, atol=1e-5, rtol=0)


def test_is_exported_and_generates(fit, tmp_path, files):
    fit("run")
    assert not (tmp_path / "run" / "export" / "value").exists()
    generate(
        model=str(tmp_path / "run" / "export"),
        prompts=files["prompts"],
        output=str(tmp_path / "rows.jsonl"),
        max_response_tokens=6,
    )
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert len(rows) == 20
    assert all(isinstance(row["responses"][0], str) for row in rows)
