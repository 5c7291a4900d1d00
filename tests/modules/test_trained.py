"""Checkpoints hold what is trained, and all that is done with them works."""

import json

import pytest
import torch
from safetensors.torch import load_file

from instructgpt.__main__ import main as run

TRAINED = {
    "LoRA": ("--model.trained=LoRA", "--model.trained.rank=1"),
    "QLoRA": (
        *("--model.trained=LoRA", "--model.trained.rank=1"),
        "--model.network.quantization=nf4",
    ),
    "LastLayers": ("--model.trained=LastLayers", "--model.trained.layers=1"),
    "FrozenTrunk": ("--model.trained=FrozenTrunk", "--model.heads=2"),
}
HELD = {
    "LoRA": ("lora_", "head", "offset"),
    "QLoRA": ("lora_", "head", "offset"),
    "LastLayers": (".h.1.", ".ln_f.", "value_model.head", "value_model.offset"),
    "FrozenTrunk": ("head.",),
}
BUFFERS = (".mean", ".scale", ".shift")  # of heads on standardised features


def arguments(kind, stage, files, policy, reward, output, *more):
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
        *TRAINED[kind],
        "--model.optimizer.lr=0.01",
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
    ("kind", "stage"),
    [
        *(("LoRA", stage) for stage in ("sft", "reward", "ppo")),
        ("QLoRA", "reward"),
        ("LastLayers", "ppo"),
        ("FrozenTrunk", "reward"),
    ],
)
def test_checkpoints_hold_what_is_trained(
    kind, stage, files, policy_artefact, reward_artefact, tmp_path
):
    whole, resumed, again = (tmp_path / name for name in ("whole", "resumed", "again"))
    inputs = (files, policy_artefact, reward_artefact)
    assert run(arguments(kind, stage, *inputs, whole)) == 0
    assert run(arguments(kind, stage, *inputs, resumed, "--trainer.max_steps=3")) == 0
    assert run(arguments(kind, stage, *inputs, resumed, "--ckpt_path=last")) == 0
    assert same(weights(resumed / "export"), weights(whole / "export"))
    for path in (whole / "checkpoints").iterdir():
        checkpoint = torch.load(path, weights_only=True)
        held = checkpoint["state_dict"]
        assert all(any(part in name for part in HELD[kind]) for name in held)
        buffers = {name for name in held if name.endswith(BUFFERS)}
        stepped = checkpoint["optimizer_states"][0]["state"]
        assert len(stepped) == len(held) - len(buffers)
    assert run(["export", "--run", str(whole), "--ckpt_path=last", "--output", str(again)]) == 0
    if stage == "ppo":  # which exports the last weights, others the best
        assert same(weights(again), weights(whole / "export"))
    assert run(["export", "--run", str(whole), "--output", str(again)]) == 0
    assert same(weights(again), weights(whole / "export"))
