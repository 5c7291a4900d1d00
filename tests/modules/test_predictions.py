"""``predict``: K responses to every prompt, whatever the batch; scores of a reward model."""

import json
from pathlib import Path

import pytest
import torch

from instructgpt.modules.ppo import PPOModule
from instructgpt.modules.sft import SFTModule
from instructgpt.rewards.rules import CountReward
from instructgpt.rollout.prompts import repeat
from instructgpt.types import PromptBatch, UserError


def predicted(fit, module, data):
    trainer = fit(SFTModule(init_from=module.init_from, validation_prompts=0), **data["train"])
    return [row for batch in trainer.predict(module, data["predict"]) for row in batch]


@pytest.mark.parametrize("kind", ["sft", "ppo"])
def test_every_prompt_gets_k_responses(
    fit, prompt_data, demonstration_data, policy_artefact, files, kind
):
    def module():
        if kind == "sft":
            return SFTModule(init_from=policy_artefact)
        return PPOModule(init_from=policy_artefact, reward=CountReward(text="e"))

    results = []
    for size in (3, 16):
        data = prompt_data(responses=3, validation_batch_size=size, validation=None)
        train = {"data": demonstration_data(), "max_steps": 1}
        results.append(predicted(fit, module(), {"train": train, "predict": data}))
    rows = results[0]
    prompts = [
        json.loads(line)["prompt"] for line in Path(files["prompts"]).read_text().splitlines()
    ]
    assert [row["prompt"] for row in rows] == prompts
    assert all(len(row["responses"]) == len(row["finished"]) == 3 for row in rows)
    assert any(len(set(row["responses"])) > 1 for row in rows)
    assert results[1] == rows  # the noise of a response is its own


def test_repeated_prompts_have_their_own_noise():
    batch = PromptBatch(torch.zeros(2, 3), torch.ones(2, 3), torch.tensor([4, 5]), ["a", "b"])
    many = repeat(batch, 3)
    assert many.prompts == ["a", "a", "a", "b", "b", "b"]
    assert len(set(many.sample_ids.tolist())) == 6


def test_predicting_needs_prompts(fit, demonstration_data, policy_artefact):
    module = SFTModule(init_from=policy_artefact, validation_prompts=0)
    trainer = fit(module, demonstration_data(), max_steps=1)
    with pytest.raises(UserError, match="predict with SFTModule needs --data PromptDataModule"):
        trainer.predict(module, demonstration_data())
