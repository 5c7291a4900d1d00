"""What each stage exports of a chat model, in a Python that has transformers alone."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from rows import read_rows, write_rows
from safetensors.torch import load_file
from small_chat_model import make_chat_model

from instructgpt.__main__ import main as run
from instructgpt.models.artefact import read_artefact
from instructgpt.models.template import get_template
from instructgpt.models.tokenizer import load_tokenizer
from instructgpt.rewards.learned import LearnedReward
from instructgpt.types import Prompt, Sample

WORDS = ["river", "fox", "dog", "north", "story", "friends", "Tweed", "morning"]
MESSAGES = [
    [{"role": "user", "content": "What is the name of the river?"}],
    [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Hello, fox 97!"}],
    [
        {"role": "user", "content": "Hello."},
        {"role": "assistant", "content": "Once there was a dog."},
        {"role": "user", "content": "And then?"},
    ],
]
ANSWERS = ["The Tweed.", "a dog of the north, 97 miles long", "no: 1, 2, 3", "é"]
STAGES = ("sft", "reward", "dpo", "ppo")

PLAIN = """
import json, sys
sys.modules["instructgpt"] = None  # whoever imports it gets an ImportError
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline
asked = json.load(sys.stdin)
found = {}
for stage, folder in asked["policies"].items():
    speak = pipeline("text-generation", model=folder, device="cpu")
    found[stage] = [
        speak(turns, max_new_tokens=12, do_sample=False)[0]["generated_text"][-1]["content"]
        for turns in asked["messages"]
    ]
for stage, folder in asked["scalars"].items():
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    texts = [
        tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        + said + "<|im_end|>"
        for turns in asked["messages"] for said in asked["answers"]
    ]
    with torch.no_grad():
        read = model(**tokenizer(texts, padding=True, return_tensors="pt"))
    found[stage] = read.logits[:, 0].tolist()
json.dump(found, sys.stdout)
"""


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


@pytest.fixture(scope="module")
def plain(exports):
    """What plain transformers makes of them."""
    asked = {
        "policies": {name: exports[name] for name in ("sft", "dpo", "ppo")},
        "scalars": {name: exports[name] for name in ("reward", "value")},
        "messages": MESSAGES,
        "answers": ANSWERS,
    }
    done = subprocess.run(
        [sys.executable, "-I", "-c", PLAIN],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("stage", ["sft", "dpo", "ppo"])
def test_a_policy_says_the_same_in_a_pipeline(stage, exports, plain, tmp_path):
    prompts = write_rows(tmp_path / "asked.jsonl", [{"messages": turns} for turns in MESSAGES])
    out = tmp_path / "said.jsonl"
    args = [f"--model={exports[stage]}", f"--prompts={prompts}", f"--output={out}"]
    assert run(["generate", *args, "--greedy=true", "--max_response_tokens=12"]) == 0
    assert [row["responses"][0] for row in read_rows(out)] == plain[stage]
    assert len(set(plain[stage])) == len(MESSAGES)


@pytest.mark.parametrize("stage", ["reward", "value"])
def test_a_classifier_has_our_scores(stage, exports, plain):
    """Before the offset, which transformers does not know; the template writes what we read."""
    model = LearnedReward(exports[stage])
    tokenizer = load_tokenizer(exports[stage])
    template = get_template("chat")
    model.prepare(tokenizer, template, torch.device("cpu"))
    samples = []
    for turns in MESSAGES:
        prompt = Prompt(turns[-1]["content"], turns, "", {})
        for said in ANSWERS:
            tokens = template.encode_response(tokenizer, said)
            asked = template.encode_prompt(tokenizer, prompt)
            samples.append(Sample(prompt, said, asked, tokens, True))
    offset = read_artefact(exports[stage]).offset or 0.0
    ours = model.score(samples) + offset
    torch.testing.assert_close(ours, torch.tensor(plain[stage]), atol=1e-4, rtol=1e-4)
    assert ours.std() > 1e-3
    assert offset != 0


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
