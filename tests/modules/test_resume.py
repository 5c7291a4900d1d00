"""A run goes on only with the weights and rows it was made with, wherever they lie."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from planted import unlisted
from safetensors.torch import load_file, save_file

from instructgpt.cli import main
from instructgpt.models.template import get_template
from instructgpt.models.tokenizer import load_tokenizer
from instructgpt.types import UserError

FLAGS = (
    "--trainer.accelerator=cpu",
    "--trainer.logger=false",
    "--trainer.enable_progress_bar=false",
    "--trainer.limit_val_batches=0",
    "--export=false",
)


@pytest.fixture
def place(tmp_path, files, policy_artefact, reward_artefact):
    """Copies of files and artefacts, to change and to move."""
    return copies(tmp_path / "inputs", files, policy_artefact, reward_artefact)


@pytest.fixture(scope="module")
def ppo_run(tmp_path_factory, files, policy_artefact, reward_artefact):
    """The same beside a run of one phase; no test changes it."""
    folder = tmp_path_factory.mktemp("run") / "inputs"
    ppo(copies(folder, files, policy_artefact, reward_artefact))
    return folder


@pytest.fixture
def ppo_place(tmp_path, ppo_run):
    """A copy of it, to change and to go on with."""
    shutil.copytree(ppo_run.parent, tmp_path / "copy")
    return tmp_path / "copy/inputs"


def copies(folder, files, policy_artefact, reward_artefact):
    folder.mkdir()
    for path in files.values():
        shutil.copy(path, folder)
    shutil.copytree(policy_artefact, folder / "sft")
    shutil.copytree(reward_artefact, folder / "reward")
    return folder


def ppo(place, *more, epochs=1):
    reward = json.dumps(
        {"class_path": "LearnedReward", "init_args": {"init_from": f"{place}/reward"}}
    )
    return main(
        [
            "fit",
            *("--model=PPOModule", f"--model.init_from={place}/sft", f"--model.reward={reward}"),
            *("--model.batches.rollout_batch_size=4", "--model.batches.minibatch_size=2"),
            *("--data=PromptDataModule", f"--data.train={place}/prompts.jsonl"),
            *("--data.max_prompt_tokens=24", "--data.max_response_tokens=6"),
            "--data.validation=null",
            *(f"--output={place.parent}/run", f"--trainer.max_epochs={epochs}", *FLAGS, *more),
        ]
    )


def sft(place, *more, epochs=1):
    return main(
        [
            "fit",
            *("--model=SFTModule", f"--model.init_from={place}/sft"),
            *(
                "--data=DemonstrationDataModule",
                "--data.batch_size=8",
                f"--data.train={place}/demonstrations.jsonl",
            ),
            *("--data.max_prompt_tokens=24", "--data.max_response_tokens=24"),
            *(f"--output={place.parent}/run", f"--trainer.max_epochs={epochs}", *FLAGS, *more),
        ]
    )


def nudge(folder):
    """Change one weight in a model's file."""
    file = unlisted(Path(folder)) / "model.safetensors"
    weights = load_file(file)
    next(iter(weights.values())).view(-1)[0] += 1
    save_file(weights, file, metadata={"format": "pt"})


def nudge_row(file):
    """Write another last row."""
    *rows, last = Path(file).read_text().splitlines()
    row = {name: f"{value} more" for name, value in json.loads(last).items()}
    Path(file).write_text("\n".join([*rows, json.dumps(row)]))


def last(place):
    return torch.load(place.parent / "run/checkpoints/last.ckpt", weights_only=True)


def refusal(run):
    with pytest.raises(UserError) as error:
        run()
    message = str(error.value)
    assert "\n" not in message
    assert message.startswith("--ckpt_path cannot go on with what differs: ")
    return message.partition("differs: ")[2]


def test_ppo_names_every_network_that_is_another(ppo_place, ppo_run):
    nudge(ppo_place / "sft")
    nudge(ppo_place / "reward")
    found = refusal(lambda: ppo(ppo_place, "--ckpt_path=last", epochs=2))
    start, value, reward = found.split("; ")
    assert start.startswith(f"model.init_from {ppo_place}/sft holds other weights (")
    assert value.startswith(f"model.value.init_from {ppo_place}/reward holds other weights (")
    assert reward.startswith(f"model.reward.init_from {ppo_place}/reward holds other weights (")
    first, second = re.findall(r"\((\w+)", reward)
    assert reward.endswith(f" than the run's ({second}, from {ppo_run}/reward)")
    assert len(first) == len(second) == 8
    assert first != second


def test_the_template_of_the_reward_model_is_part_of_it(ppo_place):
    file = ppo_place / "reward/instructgpt.json"
    facts = json.loads(file.read_text())
    changed = get_template("hh").fingerprint(load_tokenizer(str(ppo_place / "reward")))
    file.write_text(json.dumps(facts | {"template": "hh", "template_hash": changed}))
    found = refusal(lambda: ppo(ppo_place, "--ckpt_path=last"))
    assert found.startswith("model.reward.init_from ")


def test_rewards_in_a_mixture_are_known_by_their_weights(place):
    learned = {"class_path": "LearnedReward", "init_args": {"init_from": f"{place}/reward"}}
    count = {"class_path": "CountReward", "init_args": {"text": "e"}}
    options = {"rewards": [count, learned], "weights": [1, 1]}
    mixture = json.dumps({"class_path": "MixtureReward", "init_args": options})
    ppo(place, f"--model.reward={mixture}", f"--model.value.init_from={place}/sft")
    nudge(place / "reward")
    again = (
        "--ckpt_path=last",
        f"--model.reward={mixture}",
        f"--model.value.init_from={place}/sft",
    )
    found = refusal(lambda: ppo(place, *again))
    assert found.startswith(f"model.reward.rewards.1.init_from {place}/reward holds other")
    assert ";" not in found


def test_the_frozen_base_of_an_adapter_is_known(place):
    lora = ("--model.trained=LoRA", "--model.trained.rank=2")
    sft(place, *lora)
    nudge(place / "sft")
    assert refusal(lambda: sft(place, *lora, "--ckpt_path=last")).startswith("model.init_from ")


def test_a_policy_that_is_trained_whole_has_a_start_too(place):
    sft(place)
    nudge(place / "sft")
    assert refusal(lambda: sft(place, "--ckpt_path=last")).startswith("model.init_from ")


def test_a_reward_that_selects_checkpoints_is_known(place):
    reward = ("--model.reward=LearnedReward", f"--model.reward.init_from={place}/reward")
    sft(place, *reward)
    nudge(place / "reward")
    found = refusal(lambda: sft(place, *reward, "--ckpt_path=last"))
    assert found.startswith("model.reward.init_from ")


def test_rows_are_known_by_their_content(ppo_place):
    nudge_row(ppo_place / "prompts.jsonl")
    found = refusal(lambda: ppo(ppo_place, "--ckpt_path=last"))
    assert found.startswith(f"data.train {ppo_place}/prompts.jsonl holds other rows (")
    assert ";" not in found


def test_pretraining_text_and_validation_are_told_apart(place):
    mix = (
        f"--data.pretraining={place}/text.jsonl",
        "--data.pretraining_block_size=16",
        f"--data.validation={place}/validation.jsonl",
    )
    shutil.copy(place / "demonstrations.jsonl", place / "validation.jsonl")
    sft(place, *mix)
    nudge_row(place / "text.jsonl")
    found = refusal(lambda: sft(place, *mix, "--ckpt_path=last"))
    assert found.startswith(f"data.pretraining {place}/text.jsonl holds other rows (")
    assert ";" not in found
    nudge_row(place / "validation.jsonl")
    found = refusal(lambda: sft(place, *mix, "--ckpt_path=last"))
    assert f"data.validation {place}/validation.jsonl holds other rows (" in found


def test_weights_of_the_sets_are_part_of_the_rows(place):
    name = f"{place}/demonstrations.jsonl"
    sft(place, f"--data.train={json.dumps({name: 1.0})}")
    found = refusal(
        lambda: sft(place, f"--data.train={json.dumps({name: 0.5})}", "--ckpt_path=last")
    )
    assert found.startswith("data.train ")


def test_everything_may_move_and_the_run_goes_on_exactly(ppo_place, ppo_run, tmp_path):
    ppo(ppo_place, epochs=2)
    whole = last(ppo_place)["state_dict"]
    shutil.copytree(ppo_run.parent, tmp_path / "elsewhere")
    place = tmp_path / "elsewhere/inputs"
    shutil.rmtree(ppo_place.parent)
    (place / "sft").rename(place / "policy")
    (place / "prompts.jsonl").rename(place / "asked.jsonl")
    renamed = (f"--model.init_from={place}/policy", f"--data.train={place}/asked.jsonl")
    ppo(place, *renamed, "--ckpt_path=last", epochs=2)
    resumed = last(place)["state_dict"]
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_ppo_obeys_new_coefficients(ppo_place, caplog):
    before = last(ppo_place)["state_dict"]
    asked = ("--model.value.lr=0", "--model.kl.kl_coef=0.5", "--model.algorithm.clip_range=0.3")
    cli = ppo(ppo_place, *asked, "--ckpt_path=last", epochs=2)
    assert cli.model.phase.metrics["ppo/kl_coef"] == 0.5
    after = last(ppo_place)["state_dict"]
    for name in before:
        moved = not torch.equal(before[name], after[name])
        assert not (moved and name.startswith("value_model")), name
    assert any(not torch.equal(before[n], after[n]) for n in before if n.startswith("policy"))
    for line in ("model.value.lr 9e-06 → 0.0", "model.kl.kl_coef 0.02 → 0.5"):
        assert f"resume: {line}" in caplog.text


CHANGED = {
    "model.batches.rollout_batch_size": "8 (was 4)",
    "model.batches.minibatch_size": "4 (was 2)",
    "model.value.kind": "shared (was separate)",
    "model.trained": "LoRA (was null)",
    "model.kl": "AdaptiveKL (was FixedKL)",
    "model.ema_decay": "null (was 0.992)",
    "model.algorithm.epochs": "2 (was 1)",
    "model.sampling.temperature": "0.7 (was 1.0)",
    "model.optimizer": "SGD (was PaperAdam)",
    "data.max_response_tokens": "8 (was 6)",
}


def test_what_a_rollout_depends_on_is_refused(ppo_run):
    asked = [f"--{name}={line.partition(' ')[0]}" for name, line in CHANGED.items()]
    asked = [flag.replace("=SGD", "=torch.optim.SGD") for flag in asked]
    with pytest.raises(UserError, match="cannot go on with") as error:
        ppo(ppo_run, *asked, "--ckpt_path=last")
    listed = str(error.value).partition("cannot go on with ")[2].partition(": leave it as")[0]
    assert set(listed.split(", ")) == {f"{name} {line}" for name, line in CHANGED.items()}


def test_micro_batches_may_change(ppo_run):
    """They are a matter of memory only."""
    cli = ppo(ppo_run, "--model.batches.microbatch_size=1", "--ckpt_path=last", epochs=2)
    assert cli.trainer.global_step == 4
