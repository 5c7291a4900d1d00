"""Runs on a stream: stopped and gone on with, extended, and what may not change."""

import os
import random
import signal

import pytest
import torch
from rows import write_rows

from instructgpt.callbacks.signals import Interrupted
from instructgpt.cli import main
from instructgpt.modules.reward import RewardModule
from instructgpt.modules.sft import SFTModule
from instructgpt.types import UserError

FLAGS = (
    "--data.streaming=true",
    "--data.shuffle_buffer=7",
    "--data.validation=null",
    "--trainer.accelerator=cpu",
    "--trainer.logger=false",
    "--trainer.enable_progress_bar=false",
    "--trainer.limit_val_batches=0",
    "--export=false",
)
STAGES = {
    "sft": ("SFTModule", "DemonstrationDataModule", "demonstrations"),
    "text": ("SFTModule", "TextDataModule", "text"),
    "reward": ("RewardModule", "ComparisonDataModule", "comparisons"),
}


@pytest.fixture
def run(tmp_path, files, policy_artefact):
    """Fit a stage on a stream from the command line, and return its last checkpoint."""

    def fit(kind, name, *more, steps=8):
        model, data, file = STAGES[kind]
        size = ["--data.block_size=24"] if kind == "text" else []
        folder = tmp_path / name
        main(
            [
                *("fit", f"--model={model}", f"--model.init_from={policy_artefact}"),
                *("--model.schedule=Constant", f"--data={data}", f"--data.train={files[file]}"),
                *(
                    *size,
                    "--data.max_prompt_tokens=24",
                    "--data.max_response_tokens=24",
                    "--data.batch_size=20",
                ),
                *(*FLAGS, f"--trainer.max_steps={steps}", f"--output={folder}", *more),
            ]
        )
        return torch.load(folder / "checkpoints/last.ckpt", weights_only=True)

    return fit


@pytest.fixture
def stop_after(monkeypatch):
    """Ctrl-C in a training step, once."""

    def put(step, kind):
        module = RewardModule if kind == "reward" else SFTModule
        original, sent = module.training_step, []

        def training_step(self, batch, batch_idx):
            if self.trainer.global_step == step and not sent:
                sent.append(step)
                os.kill(os.getpid(), signal.SIGINT)
            return original(self, batch, batch_idx)

        monkeypatch.setattr(module, "training_step", training_step)

    return put


def assert_same(one, other):
    assert one["global_step"] == other["global_step"]
    assert one["state_dict"].keys() == other["state_dict"].keys()
    for name, value in one["state_dict"].items():
        assert torch.equal(value, other["state_dict"][name]), name
    assert repr(one["optimizer_states"]) == repr(other["optimizer_states"])


@pytest.mark.parametrize(("kind", "workers"), [("sft", 2), ("text", 0), ("text", 2), ("reward", 0)])
def test_a_stopped_run_goes_on_as_if_it_had_not_been(run, stop_after, kind, workers):
    whole = run(kind, "whole")
    stop_after(5, kind)
    flag = f"--data.num_workers={workers}"
    with pytest.raises(Interrupted):
        run(kind, "stopped", flag)
    assert_same(run(kind, "stopped", flag, "--ckpt_path=last"), whole)


@pytest.mark.parametrize(
    "options",
    [
        ["--trainer.accumulate_grad_batches=2", "--trainer.max_epochs=1"],
        ["--trainer.limit_train_batches=3"],
    ],
)
def test_a_finished_run_is_extended(run, options):
    run("text", "extended", *options, steps=5)
    longer = run("text", "extended", "--ckpt_path=last", *options)
    assert_same(longer, run("text", "whole", *options))


def test_what_a_resume_may_not_change(run, tmp_path, files):
    run("sft", "run", steps=2)

    def refusal(*more):
        with pytest.raises((UserError, SystemExit)) as caught:
            run("sft", "run", "--ckpt_path=last", *more)
        return str(caught.value)

    assert "data.shuffle_buffer 9 (was 7)" in refusal("--data.shuffle_buffer=9")
    assert "data.streaming False (was True)" in refusal("--data.streaming=false")
    rng = random.Random(0)
    rows = [{"prompt": "say", "response": rng.choice("abc")} for _ in range(30)]
    other = write_rows(tmp_path / "other.jsonl", rows)
    assert refusal(f"--data.train={other}").startswith(
        f"--ckpt_path cannot go on with what differs: data.train {other} "
    )
