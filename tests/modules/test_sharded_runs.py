"""Runs under ``--trainer.strategy fsdp2``: killed, resumed on two processes or one, exported."""

import json
import shutil

import pytest
import torch
from harness import run_processes
from interrupted import kill_at
from safetensors.torch import load_file

from instructgpt.cli import main
from instructgpt.commands.export import export

OWN = """
model:
  class_path: PPOModule
  init_args:
    init_from: {policy}
    reward: {{class_path: LearnedReward, init_args: {{init_from: {reward}}}}}
    algorithm: {{class_path: PPO, init_args: {{epochs: 2}}}}
    batches: {{rollout_batch_size: 8, minibatch_size: 4}}
    value: {{lr: 0.01}}
    ema_decay: 0.5
    schedule: {{class_path: Constant}}
    optimizer: {{class_path: PaperAdam, init_args: {{lr: 0.001, eps: 0.01}}}}
data:
  class_path: PromptDataModule
  init_args: {{train: {prompts}, validation: 0.1, max_prompt_tokens: 24, max_response_tokens: 6}}
trainer:
  max_epochs: 2
  accelerator: cpu
  logger: false
  enable_progress_bar: false
checkpoint: {{every_n_steps: 1}}
seed_everything: 3
"""


@pytest.fixture
def fit(tmp_path, files, policy_artefact, reward_artefact):
    """Train by the command line and return the weights of all that is exported."""

    def run(name, processes, *options, strategy="fsdp2", killed_at=None):
        text = OWN.format(policy=policy_artefact, reward=reward_artefact, **files)
        (tmp_path / "own.yaml").write_text(text)
        args = [f"--config={tmp_path}/own.yaml", f"--output={tmp_path / name}"]
        args += [f"--trainer.devices={processes}", *options]
        args += [f"--trainer.strategy={strategy}"] if processes > 1 else []

        def train():
            if killed_at is not None:
                kill_at(killed_at)
            main(["fit", *args])

        run_processes(train, processes=processes, timeout=300)
        return exported(tmp_path / name / "export")

    return run


def exported(folder):
    files = {"": "model", "ema": "ema/model", "value": "value/model"}
    weights = {kind: load_file(folder / f"{file}.safetensors") for kind, file in files.items()}
    return {f"{kind} {name}": w for kind, own in weights.items() for name, w in own.items()}


def assert_close(some, others):
    assert some.keys() == others.keys()
    for name, weight in some.items():
        torch.testing.assert_close(weight, others[name], atol=1e-5, rtol=0)


@pytest.fixture
def imitate(tmp_path, files, policy_artefact):
    """Train on demonstrations and return the folder of the run."""

    def run(processes, *options):
        folder = tmp_path / str(processes)
        args = ["fit", "--model=SFTModule", f"--model.init_from={policy_artefact}"]
        args += ["--model.dropout=0", "--model.validation_prompts=2", *options]
        args += ["--data=DemonstrationDataModule", f"--data.train={files['demonstrations']}"]
        args += ["--data.max_prompt_tokens=24", "--data.max_response_tokens=24"]
        args += [f"--data.batch_size={8 // processes}", f"--trainer.devices={processes}"]
        args += ["--trainer.accelerator=cpu", "--trainer.logger=false", f"--output={folder}"]
        args += ["--trainer.enable_progress_bar=false"]
        run_processes(lambda: main(args) and None, processes=processes, timeout=300)
        return folder

    return run


def test_the_best_weights_of_an_adapter(imitate):
    def run(processes, *options):
        options += ("--model.trained=LoRA", "--trainer.max_epochs=4")
        options += ("--model.optimizer=torch.optim.SGD", "--model.optimizer.lr=3")
        folder = imitate(processes, *options)
        metrics = json.loads((folder / "metrics.json").read_text())
        return load_file(folder / "export" / "model.safetensors"), metrics

    alone, metrics = run(1)
    losses = [row["val/loss"] for row in metrics["validations"]]
    assert losses[-1] > min(losses)  # the rate is too high: what is exported is not the last
    spread, again = run(2, "--trainer.strategy=fsdp2_sharded")
    assert again["exported"]["step"] == metrics["exported"]["step"]
    assert_close(alone, spread)


def test_bfloat16_and_a_prefix(imitate):
    """Two more that must be in place before weights are spread."""
    options = ("--trainer.precision=bf16-true", "--model.trained=Prefix", "--trainer.max_epochs=1")
    folder = imitate(2, "--trainer.strategy=fsdp2", *options)
    prefix = load_file(folder / "export" / "adapter_model.safetensors")
    assert {weight.dtype for weight in prefix.values()} == {torch.bfloat16}


def test_parts_of_checkpoints_are_put_together(fit, tmp_path):
    """Written by two processes, read by two, by one, and by ``export``."""
    parts = {"strategy": "fsdp2_sharded"}
    with pytest.raises(AssertionError, match=r"no answer from ranks .*-9"):
        fit("killed", 2, killed_at=5, **parts)
    folder = tmp_path / "killed" / "checkpoints"
    assert len(list((folder / "shards").iterdir())) == 2  # of last.ckpt and previous.ckpt
    known = torch.load(folder / "last.ckpt", weights_only=True)
    assert not known["ppo"]["average"]  # parts of it are beside the file, as of the weights
    shutil.copytree(tmp_path / "killed", tmp_path / "alone")
    resumed = fit("killed", 2, "--ckpt_path=last", **parts)
    assert_close(fit("alone", 1, "--ckpt_path=last"), resumed)
    assert [one.name[:4] for one in (folder / "shards").iterdir()] == ["last"]
    to = str(tmp_path / "export")
    run_processes(lambda: export(run=str(tmp_path / "killed"), output=to), processes=1, timeout=300)
    again = exported(tmp_path / "export")
    assert all(torch.equal(again[name], weight) for name, weight in resumed.items())
    (next((folder / "shards").glob("*/*"))).write_bytes(b"")
    with pytest.raises(AssertionError, match=r"must have .* bytes"):
        fit("killed", 2, "--ckpt_path=last", **parts)


def test_ppo_goes_on_after_a_kill_on_two_processes_and_on_one(fit):
    whole = fit("whole", 2)
    with pytest.raises(AssertionError, match=r"no answer from ranks .*-9"):
        fit("killed", 2, killed_at=5)
    alone = fit("killed", 1, "--ckpt_path=last")
    assert_close(alone, whole)
    with pytest.raises(AssertionError, match=r"no answer from ranks .*-9"):
        fit("again", 2, killed_at=5)
    resumed = fit("again", 2, "--ckpt_path=last")
    assert all(torch.equal(resumed[name], weight) for name, weight in whole.items())
