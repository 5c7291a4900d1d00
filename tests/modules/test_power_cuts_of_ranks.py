"""Power cuts of runs of two processes: they end as if none had been."""

import random

import pytest
from crash_test import compare
from harness import run_processes
from power_cut import cut, run_until_cut

import instructgpt.commands.preload  # noqa: F401  # the children must not import it again
from instructgpt.__main__ import main as run

COMMON = (
    "--trainer.accelerator=cpu --trainer.enable_progress_bar=false --trainer.logger=false "
    "--trainer.devices=2 --trainer.max_epochs=1 --trainer.limit_train_batches=4 "
    "--trainer.limit_val_batches=1 --checkpoint.every_n_steps=1 --data.max_prompt_tokens=24 "
    "--data.max_response_tokens=6 --data.validation=0.3 --model.init_from={policy_artefact}"
)
SFT = "--model=SFTModule --data=DemonstrationDataModule --data.train={demonstrations}"
PPO = (
    "--model=PPOModule --model.reward=CountReward --model.reward.text=e --model.ema_decay=0.9 "
    "--model.batches.rollout_batch_size=8 --model.batches.minibatch_size=2 "
    "--data=PromptDataModule --data.train={prompts}"
)
CASES = {
    "sft": f"{SFT} --data.batch_size=2 --trainer.strategy=fsdp2_sharded",
    "ppo": f"{PPO} --trainer.strategy=ddp",
    "ppo in parts": f"{PPO} --trainer.strategy=fsdp2_sharded",
}
CUTS = 2


def run_both(args):
    return max(run_processes(lambda: run(args), timeout=300))


@pytest.mark.parametrize(
    ("name", "way"), [("sft", "mixed"), ("ppo", "mixed"), ("ppo in parts", "lost")]
)
def test_a_run_ends_as_if_the_power_had_never_been_cut(tmp_path, files, policy_artefact, name, way):
    alone, again = tmp_path / "alone", tmp_path / "again"
    values = {**files, "policy_artefact": policy_artefact}
    args = ["fit", *f"{CASES[name]} {COMMON}".format(**values).split()]
    for folder in (alone, again):
        (folder / "root").mkdir(parents=True)
    changes = run_until_cut(run_both, alone, args, None)
    rng = random.Random(f"{name} {way}")
    later = rng.randrange(changes // 2, changes)  # when there are checkpoints; then at any moment
    moments = [later, *(rng.randrange(changes // 2) for _ in range(1, CUTS))]
    for number, moment in enumerate([*moments, None]):
        ended = run_until_cut(run_both, again, args, moment)
        cut(again / "root", again / "kept", way, f"{moments} {number}")
        if ended is not None:
            break
    assert number > 0
    found = compare(alone / "root" / "run", again / "root" / "run")
    left = str(again)  # files that had been removed may be there again
    assert [one for one in found if not one.startswith(left)] == [], moments
