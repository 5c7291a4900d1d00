"""With an adapter, checkpoints hold what is trained, and all that is done with them works."""

import json

import pytest
import torch
from safetensors.torch import load_file

from instructgpt.__main__ import main as run


def arguments(stage, files, policy, reward, output, *more):
    scorer = json.dumps({"class_path": "LearnedReward", "init_args": {"init_from": reward}})
    model, data, train, options = {
        "sft": ("SFT", "Demonstration", "demonstrations", ["--data.batch_size=4"]),
        "reward": ("Reward", "Comparison", "comparisons", ["--data.batch_size=4"]),
        "ppo": (
            "PPO",
            "Prompt",
            "prompts",
            [
                f"--model.reward={scorer}",
                *("--model.batches.rollout_batch_size=4", "--model.batches.minibatch_size=2"),
                "--model.algorithm.epochs=2",
            ],
        ),
    }[stage]
    return [
        "fit",
        *(f"--model={model}Module", f"--model.init_from={policy}"),
        *("--model.trained=LoRA", "--model.trained.rank=1", "--model.optimizer.lr=0.01"),
        "--model.schedule=Constant",  # the same for a run that max_steps shortens
        *(f"--data={data}DataModule", f"--data.train={files[train]}", "--data.validation=0.2"),
        *("--data.max_prompt_tokens=24", "--data.max_response_tokens=6", *options),
        *("--trainer.accelerator=cpu", "--trainer.logger=false", f"--output={output}"),
        *("--trainer.enable_progress_bar=false", "--trainer.max_epochs=2", *more),
    ]


def weights(folder):
    files = sorted(folder.rglob("*.safetensors"))
    found = {
        f"{file.relative_to(folder)} {n}": t for file in files for n, t in load_file(file).items()
    }
    assert found
    return found


def same(one, other):
    return set(one) == set(other) and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("stage", "more"),
    [("sft", ()), ("reward", ()), ("ppo", ()), ("reward", ("--model.network.quantization=nf4",))],
)
def test_checkpoints_hold_what_is_trained(
    stage, more, files, policy_artefact, reward_artefact, tmp_path
):
    whole, resumed, again = (tmp_path / name for name in ("whole", "resumed", "again"))
    inputs = (files, policy_artefact, reward_artefact)
    assert run(arguments(stage, *inputs, whole, *more)) == 0
    assert run(arguments(stage, *inputs, resumed, "--trainer.max_steps=3", *more)) == 0
    assert run(arguments(stage, *inputs, resumed, "--ckpt_path=last", *more)) == 0
    assert same(weights(resumed / "export"), weights(whole / "export"))
    for path in (whole / "checkpoints").iterdir():
        checkpoint = torch.load(path, weights_only=True)
        held = checkpoint["state_dict"]
        assert all("lora_" in name or "head" in name or "offset" in name for name in held)
        stepped = checkpoint["optimizer_states"][0]["state"]
        assert len(stepped) == len(held)
    assert run(["export", "--run", str(whole), "--ckpt_path=last", "--output", str(again)]) == 0
    if stage == "ppo":  # which exports the last weights, others the best
        assert same(weights(again), weights(whole / "export"))
    assert run(["export", "--run", str(whole), "--output", str(again)]) == 0
    assert same(weights(again), weights(whole / "export"))
