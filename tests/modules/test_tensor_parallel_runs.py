"""Runs whose processes cut layers: killed, gone on with on as many or on one, exported."""

import shutil

import pytest
import torch
from harness import run_processes
from interrupted import kill_at
from safetensors.torch import load_file

from instructgpt.cli import main
from instructgpt.commands.export import export
from instructgpt.models.artefact import save_policy
from instructgpt.models.load import Network, load_policy
from instructgpt.models.template import get_template

CUT = ("--trainer.strategy=FSDP2Strategy", "--trainer.strategy.tensor_parallel_size=2")
PARTS = (*CUT, "--trainer.strategy.sharded_checkpoints=true")


@pytest.fixture
def fit(tmp_path, files, tiny_tokenizer):
    """Train by the command line and return the weights that are exported."""
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.2}
    torch.manual_seed(11)
    model = load_policy(None, {"model_type": "llama", **sizes, **heads}, Network(), tiny_tokenizer)
    about = {"stage": "sft", "parent": None, "template": get_template("plain")}
    save_policy(model, tiny_tokenizer, tmp_path / "start", **about, config={}, metrics={})

    def run(name, processes, *options, killed_at=None):
        args = ["fit", "--model=SFTModule", f"--model.init_from={tmp_path / 'start'}"]
        args += ["--model.dropout=0", "--model.validation_prompts=2", "--seed_everything=3"]
        args += ["--model.optimizer=PaperAdam", "--model.optimizer.lr=0.001"]
        args += ["--model.optimizer.eps=0.01", "--trainer.max_epochs=2"]
        args += ["--data=DemonstrationDataModule", "--data.batch_size=4"]
        args += [f"--data.train={files['demonstrations']}"]
        args += ["--data.max_prompt_tokens=24", "--data.max_response_tokens=24"]
        args += ["--trainer.accelerator=cpu", "--trainer.logger=false", *options]
        args += ["--trainer.enable_progress_bar=false", "--checkpoint.every_n_steps=1"]
        args += [f"--trainer.devices={processes}", f"--output={tmp_path / name}"]

        def train():
            if killed_at is not None:
                kill_at(killed_at)
            main(args)

        run_processes(train, processes=processes, timeout=300)
        return load_file(tmp_path / name / "export" / "model.safetensors")

    return run


def assert_close(some, others):
    assert some.keys() == others.keys()
    for name, weight in some.items():
        torch.testing.assert_close(weight, others[name], atol=1e-5, rtol=0)


def killed(fit, *args):
    with pytest.raises(AssertionError, match=r"no answer from ranks .*-9"):
        fit(*args, killed_at=5)


def test_a_run_goes_on_with_other_processes(fit, tmp_path):
    alone = fit("whole", 1)
    killed(fit, "cut", 2, *PARTS)
    shutil.copytree(tmp_path / "cut", tmp_path / "alone")
    assert_close(fit("alone", 1, "--ckpt_path=last"), alone)
    resumed = fit("cut", 2, *PARTS, "--ckpt_path=last")
    assert_close(resumed, alone)
    to = str(tmp_path / "export")
    run_processes(lambda: export(run=str(tmp_path / "cut"), output=to), processes=1, timeout=300)
    again = load_file(tmp_path / "export" / "model.safetensors")
    assert all(torch.equal(again[name], weight) for name, weight in resumed.items())
    killed(fit, "plain", 1)
    assert_close(fit("plain", 2, *CUT, "--ckpt_path=last"), alone)
