"""Power cuts of whole runs, at any moment and in the worst case: they end as if none had been."""

import random

import pytest
from crash_test import compare
from power_cut import cut, run_until_cut

import instructgpt.commands.preload  # noqa: F401  # the children must not import it again
from instructgpt.__main__ import main as run

COMMON = (
    "--trainer.accelerator=cpu --trainer.enable_progress_bar=false --trainer.max_epochs=2 "
    "--trainer.limit_val_batches=1 --checkpoint.every_n_steps=2 --data.max_prompt_tokens=24 "
    "--data.max_response_tokens=6"
)
CASES = {
    "sft": "--model=SFTModule --model.init_from={policy_artefact} --data=DemonstrationDataModule "
    "--data.train={demonstrations} --data.validation=0.3 --trainer.limit_train_batches=4 "
    "--data.batch_size=4",
    "ppo": "--model=PPOModule --model.init_from={policy_artefact} --model.reward=CountReward "
    "--model.reward.text=e --model.batches.rollout_batch_size=8 --model.batches.minibatch_size=4 "
    "--data=PromptDataModule --data.train={prompts} "
    "--data.validation=0.3",
    # which trains a tokenizer, too
    "text": "--model=SFTModule --model.architecture.model_type=gpt2 "
    "--model.architecture.n_layer=1 --model.architecture.n_embd=16 --model.architecture.n_head=2 "
    "--model.architecture.n_positions=64 --data=TextDataModule "
    "--data.train={text} --data.validation=0.3 --data.bpe.vocab_size=280 --data.block_size=16 "
    "--trainer.limit_train_batches=3",
}
CUTS = 4


@pytest.fixture(scope="module")
def alone(tmp_path_factory, files, policy_artefact):
    """A run that was left alone; also how its command goes on, and how much it changes."""
    known = {}

    def make(name):
        if name not in known:
            folder = tmp_path_factory.mktemp(name)
            values = {**files, "policy_artefact": policy_artefact}
            args = ["fit", *(part.format(**values) for part in CASES[name].split())]
            args += COMMON.split()
            (folder / "root").mkdir()
            known[name] = (folder / "root" / "run", args, run_until_cut(run, folder, args, None))
        return known[name]

    return make


@pytest.mark.parametrize(
    ("name", "way"),
    [(name, way) for name in ("sft", "ppo") for way in ("lost", "names", "mixed")]
    + [("text", "mixed")],
)
def test_a_run_ends_as_if_the_power_had_never_been_cut(tmp_path, alone, name, way):
    whole, args, changes = alone(name)
    rng = random.Random(f"{name} {way}")
    moments = [rng.randrange(changes) for _ in range(CUTS)]
    (tmp_path / "root").mkdir()
    for number, moment in enumerate([*moments, None]):
        ended = run_until_cut(run, tmp_path, args, moment)
        cut(tmp_path / "root", tmp_path / "kept", way, f"{moments} {number}")
        if ended is not None:
            break
    found = compare(whole, tmp_path / "root" / "run")
    left = str(tmp_path)  # files that had been removed may be there again
    assert [one for one in found if not one.startswith(left)] == [], moments
