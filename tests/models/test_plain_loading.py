"""What a stage exports of a chat model has the files of its source, but for what is said here."""

import json
from pathlib import Path

import pytest
import torch
from rows import write_rows
from safetensors.torch import load_file
from small_chat_model import make_chat_model

from instructgpt.__main__ import main as run

WORDS = ["river", "fox", "dog", "north", "story", "friends", "Tweed", "morning"]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return make_chat_model(tmp_path_factory.mktemp("base") / "chat")


@pytest.fixture(scope="module")
def exports(source, tmp_path_factory):
    """A folder of each stage, the policies by LoRA: name -> folder."""
    folder = tmp_path_factory.mktemp("runs")
    prompts = [f"Write of the {one} and the {two}." for one in WORDS[:4] for two in WORDS[4:]]
    files = {
        "demonstrations": [{"prompt": p, "response": f"A {p[13:18]}."} for p in prompts],
        "comparisons": [
            {"prompt": p, "responses": ["The Tweed.", "a fox", "no"], "ranking": [1, 2, 3]}
            for p in prompts
        ],
        "prompts": [{"prompt": p} for p in prompts],
    }
    paths = {name: write_rows(folder / f"{name}.jsonl", rows) for name, rows in files.items()}
    data = {
        "demonstrations": "DemonstrationDataModule",
        "comparisons": "ComparisonDataModule",
        "prompts": "PromptDataModule",
    }
    lora = ["--model.trained=LoRA", "--model.trained.rank=4"]

    def fit(stage, module, rows, *more):
        kinds = [f"--model={module}", f"--data={data[rows]}"]
        about = [*kinds, f"--data.train={paths[rows]}", f"--output={folder / stage}"]
        quick = ["--trainer.max_epochs=1", "--trainer.accelerator=cpu"]
        rate = ["--model.optimizer=PaperAdam", "--model.optimizer.lr=0.01"]
        limits = ["--data.max_prompt_tokens=96", "--data.max_response_tokens=12"]
        assert run(["fit", *about, *quick, *rate, *limits, *more]) == 0
        return str(folder / stage / "export")

    start = f"--model.init_from={source}"
    sft = fit("sft", "SFTModule", "demonstrations", start, *lora)
    after, ranked = f"--model.init_from={sft}", "comparisons"
    zero = f"--data.demonstrations={paths['demonstrations']}"
    reward = fit("reward", "RewardModule", ranked, after, *lora, zero)
    dpo = fit("dpo", "PreferenceModule", ranked, after, *lora)
    drawn = ["--model.batches.rollout_batch_size=8", "--model.batches.minibatch_size=8"]
    judge = ["--model.reward=LearnedReward", f"--model.reward.init_from={reward}"]
    ppo = fit("ppo", "PPOModule", "prompts", after, *lora, *judge, *drawn)
    return {"sft": sft, "reward": reward, "dpo": dpo, "ppo": ppo, "value": f"{ppo}/value"}


def settings(folder, name):
    path = Path(folder, name)
    return json.loads(path.read_text()) if name.endswith(".json") else path.read_text()


def changed(source, folder, name):
    """Key -> what it is now, where it is not what it was."""
    before, after = settings(source, name), settings(folder, name)
    keys = before.keys() | after.keys()
    return {key: after.get(key) for key in keys if before.get(key) != after.get(key)}


@pytest.mark.parametrize("stage", ["sft", "dpo", "ppo"])
def test_the_files_of_a_policy_are_those_of_its_source(stage, source, exports):
    """Whatever converts the source converts what is made of it."""
    folder = exports[stage]
    assert changed(source, folder, "config.json") == {}
    assert changed(source, folder, "tokenizer.json") == {}
    assert changed(source, folder, "tokenizer_config.json") == {}
    unsaid = ("_from_model_config", "output_attentions", "output_hidden_states", "use_cache")
    assert changed(source, folder, "generation_config.json") == dict.fromkeys(unsaid)
    assert settings(folder, "chat_template.jinja") == settings(source, "chat_template.jinja")
    weights, before = (load_file(Path(one, "model.safetensors")) for one in (folder, source))
    shapes = [{name: one.shape for name, one in some.items()} for some in (weights, before)]
    assert shapes[0] == shapes[1]
    assert {one.dtype for one in weights.values()} == {one.dtype for one in before.values()}
    moved = [name for name in weights if not torch.equal(weights[name], before[name])]
    assert moved


@pytest.mark.parametrize("stage", ["reward", "value"])
def test_a_reward_model_says_its_label_and_its_padding(stage, source, exports):
    """Padding is a token of its own; nothing else is new."""
    folder = exports[stage]
    known = settings(source, "config.json")["vocab_size"]
    assert changed(source, folder, "config.json") == {
        "architectures": ["LlamaForSequenceClassification"],
        "id2label": {"0": "LABEL_0"},
        "label2id": {"LABEL_0": 0},
        "pad_token_id": known,
        "vocab_size": known + 1,
    }
    assert changed(source, folder, "tokenizer_config.json") == {"pad_token": "<|pad|>"}
    assert settings(folder, "chat_template.jinja") == settings(source, "chat_template.jinja")
