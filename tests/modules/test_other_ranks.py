"""Under ddp a run goes on with another number of processes, at the same batch of all of them."""

import json

import pytest
import torch
from harness import run_processes
from interrupted import kill_at
from safetensors.torch import load_file

from instructgpt.cli import main

ADAM = "--model.optimizer=PaperAdam --model.optimizer.lr=0.001 --model.optimizer.eps=0.01"
SAMPLED = (
    "--model=PPOModule --model.reward=LearnedReward "
    "--model.reward.init_from={reward} --data=PromptDataModule --data.train={prompts} "
    "--data.validation=0.1 --model.batches.rollout_batch_size=8 --model.kl=AdaptiveKL "
    "--model.kl.target=0.01 --model.kl.horizon=50 --model.ema_decay=0.9"
)
SFT = "--model=SFTModule --model.dropout=0 --data=DemonstrationDataModule"
KINDS = {
    "sft": f"{SFT} --data.train={{demonstrations}} --data.validation=0.2",
    "streamed": f"{SFT} --data.train={{demonstrations}} --data.streaming=true "
    "--data.shuffle_buffer=7 --data.validation=null --trainer.max_epochs=-1 --trainer.max_steps=8",
    "dpo": "--model=PreferenceModule --model.dropout=0 --data=ComparisonDataModule "
    "--data.train={comparisons} --data.validation=0.2",
    # two steps a phase
    "ppo": f"{SAMPLED} --model.batches.minibatch_size=4 --model.value.lr=0.01 "
    "--data.pretraining={text} --data.pretraining_block_size=16 --model.pretraining.ptx_coef=0.5 "
    "--model.pretraining.ptx_per_episode=1",
    "rloo": f"{SAMPLED} --model.batches.minibatch_size=4 --model.algorithm=RLOO "
    "--model.algorithm.responses_per_prompt=2",
    "raft": f"{SAMPLED} --model.batches.minibatch_size=2 --model.algorithm=RAFT "
    "--model.algorithm.responses_per_prompt=2",
}
GLOBAL = 4  # rows of a step, over all processes


@pytest.fixture
def fit(tmp_path, files, policy_artefact, reward_artefact):
    """Train by the command line and return the weights and the metrics of what is exported."""

    def run(kind, name, processes, *more, killed_at=None):
        options = KINDS[kind].format(**files, reward=reward_artefact)
        options += f" --model.init_from={policy_artefact} {ADAM}"
        options += " --data.max_prompt_tokens=24 --data.max_response_tokens=6"
        args = ["fit", "--trainer.max_epochs=2", *options.split(), *more]
        if "PPOModule" not in options:  # whose batches are of all processes
            args += [f"--data.batch_size={GLOBAL // processes}"]
        args += ["--trainer.accelerator=cpu", "--trainer.logger=false", "--seed_everything=3"]
        args += ["--trainer.enable_progress_bar=false", "--checkpoint.every_n_steps=1"]
        args += [f"--trainer.devices={processes}", f"--output={tmp_path / name}"]
        args += ["--trainer.strategy=ddp"] * (processes > 1)

        def train():
            if killed_at is not None:
                kill_at(killed_at)
            main(args)

        run_processes(train, processes=processes, timeout=300)
        metrics = json.loads((tmp_path / name / "metrics.json").read_text())["exported"]
        export = tmp_path / name / "export"
        weights = {str(p.relative_to(export)): load_file(p) for p in export.rglob("*.safetensors")}
        found = {n: v for n, v in metrics.items() if isinstance(v, float) and "/" in n}
        if "PPOModule" in options:
            last = torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)
            found["kl_coef"] = last["ppo"]["kl_coef"]
        return weights, found

    return run


@pytest.mark.parametrize(
    ("kind", "first", "then"),
    [
        *[("sft", 1, 2), ("sft", 2, 1), ("streamed", 1, 2), ("dpo", 2, 1)],
        *[("ppo", 1, 2), ("ppo", 2, 1), ("rloo", 1, 2), ("raft", 2, 1)],
    ],
)
def test_the_weights_are_those_of_a_run_that_was_left_alone(fit, kind, first, then):
    whole, metrics = fit(kind, "whole", first)
    with pytest.raises(AssertionError, match=r"no answer from ranks .*-9"):
        fit(kind, "killed", first, killed_at=3)
    resumed, others = fit(kind, "killed", then, "--ckpt_path=last")
    assert whole.keys() == resumed.keys()
    for file, weights in whole.items():
        for name, weight in weights.items():
            torch.testing.assert_close(resumed[file][name], weight, atol=1e-5, rtol=0)
    for name in metrics:
        if not name.startswith(("time/", "throughput/")):
            assert others[name] == pytest.approx(metrics[name], rel=1e-4, abs=1e-5), name
