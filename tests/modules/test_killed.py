"""Runs of every loop, killed again and again, end bit for bit as those that were left alone."""

import json

import pytest
from crash_test import compare
from interrupted import killed

from instructgpt.__main__ import main
from instructgpt.models.checkpoint import LAST

SAMPLED = "--data.max_prompt_tokens=24 --data.max_response_tokens=6"
ADAM = "--model.optimizer=PaperAdam --model.optimizer.lr=0.01"
SFT = (
    "--model=SFTModule --model.dropout=0.3 --model.validation_prompts=2 "
    "--data=DemonstrationDataModule --data.train={demonstrations} --data.batch_size=4 "
    f"--data.max_prompt_tokens=24 --data.max_response_tokens=24 {ADAM}"
)
RANKINGS = f"--data=ComparisonDataModule --data.train={{comparisons}} {SAMPLED} {ADAM}"
REWARD = f"--model=RewardModule {RANKINGS} --data.batch_size=4"
PREFERENCE = f"--model=PreferenceModule --model.validation_prompts=2 {RANKINGS}"
LORA = "--model.trained=LoRA --model.trained.rank=2 --model.trained.dropout=0.2"
PPO = (
    "--model=PPOModule --model.reward=LearnedReward --model.reward.init_from={reward} "
    f"--data=PromptDataModule --data.train={{prompts}} --data.validation=0.1 {SAMPLED} {ADAM} "
    "--model.kl=AdaptiveKL --model.kl.target=0.01 --model.kl.horizon=50 --model.ema_decay=0.9 "
    "--model.batches.rollout_batch_size=8 --trainer.max_epochs=3"
)
BATCH, STEPS = "on_train_batch_start", "on_train_batch_end"
VALIDATED, EPOCH = "on_validation_end", "on_train_epoch_end"
CASES = {
    # four steps an epoch: at the end of the first, twice, and once more where the second begins
    "sft": (
        f"{SFT} --trainer.max_epochs=2 --data.validation=0.2",
        [(EPOCH, 4), (EPOCH, 4), (BATCH, 4)],
    ),
    # two steps an epoch: after a validation in a step, at the end of an epoch, and in another step
    "sft, LoRA, accumulated, several validations an epoch": (
        f"{SFT} {LORA} --trainer.accumulate_grad_batches=2 --trainer.val_check_interval=3 "
        "--trainer.max_epochs=2 --data.validation=0.2",
        [(VALIDATED, 1), (EPOCH, 2), (BATCH, 3, 1)],
    ),
    "sft, streamed, in pieces": (
        f"{SFT} --data.streaming=true --data.shuffle_buffer=7 --data.validation=null "
        "--model.network.max_tokens=30 --trainer.max_epochs=-1 --trainer.max_steps=9",
        [(BATCH, 2), (STEPS, 7)],
    ),
    "reward model, in pieces": (
        f"{REWARD} --model.network.max_tokens=60 --trainer.max_epochs=3 --data.validation=0.2 "
        "--data.demonstrations={demonstrations}",
        [(VALIDATED, 2), (EPOCH, 2), (EPOCH, 4)],
    ),
    "reward model, streamed, LoRA": (
        f"{REWARD} {LORA} --data.streaming=true --data.shuffle_buffer=7 --data.validation=null "
        "--trainer.max_epochs=-1 --trainer.max_steps=7",
        [(STEPS, 2), (BATCH, 4)],
    ),
    "DPO": (
        f"{PREFERENCE} --model.dropout=0.3 --data.batch_size=4 --trainer.max_epochs=3 "
        "--data.validation=0.2",
        [(EPOCH, 2), (BATCH, 2), (STEPS, 5)],
    ),
    "IPO, LoRA, accumulated, in pieces": (
        f"{PREFERENCE} {LORA} --model.algorithm=IPO --data.batch_size=4 --data.validation=0.2 "
        "--trainer.accumulate_grad_batches=2 --model.network.max_tokens=60 --trainer.max_epochs=3",
        [(BATCH, 2, 1), (EPOCH, 4), (EPOCH, 4)],
    ),
    # two steps a phase: in the first, twice at its end, and in the last
    "PPO-ptx, in pieces": (
        f"{PPO} --model.batches.minibatch_size=4 --model.value.lr=0.01 "
        "--model.network.max_tokens=40 --data.pretraining={text} "
        "--data.pretraining_block_size=16 --model.pretraining.ptx_coef=0.5 "
        "--model.pretraining.ptx_per_episode=1",
        [(BATCH, 1), (EPOCH, 2), (EPOCH, 2), (STEPS, 5)],
    ),
    "RLOO, LoRA, accumulated": (
        f"{PPO} {LORA} --model.algorithm=RLOO --model.algorithm.responses_per_prompt=2 "
        "--model.batches.minibatch_size=4 --trainer.accumulate_grad_batches=2",
        [(BATCH, 1, 1), (EPOCH, 4), (BATCH, 4)],
    ),
    "RAFT": (
        f"{PPO} --model.algorithm=RAFT --model.algorithm.responses_per_prompt=2 "
        "--model.batches.minibatch_size=2",
        [(STEPS, 1), (VALIDATED, 2), (BATCH, 5)],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_killed_it_ends_as_if_it_had_been_left_alone(
    tmp_path, files, policy_artefact, reward_artefact, case
):
    options, stops = CASES[case]
    whole, again = tmp_path / "whole", tmp_path / "again"
    places = {**files, "reward": reward_artefact}
    args = ["fit", *options.format(**places).split(), f"--model.init_from={policy_artefact}"]
    args += ["--trainer.accelerator=cpu", "--trainer.logger=false", "--seed_everything=3"]
    args += ["--trainer.enable_progress_bar=false", "--checkpoint.every_n_steps=1"]
    assert main([*args, f"--output={whole}"]) == 0

    def resumed():
        there = (again / "checkpoints" / LAST).exists()
        return [*args, f"--output={again}", *(["--ckpt_path=last"] if there else [])]

    for stop in stops:
        assert killed(resumed(), *stop) == -9, stop
    assert resumed()[-1] == "--ckpt_path=last"
    assert main(resumed()) == 0
    assert compare(whole, again) == []
    assert json.loads((whole / "metrics.json").read_text())["exported"]["step"] > 0
