"""Model cards: their code reads prompts and responses as this package does."""

import json
import re
from pathlib import Path

import pytest
import torch
from huggingface_hub import metadata_load
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from instructgpt.models.artefact import save_policy, save_scalar
from instructgpt.models.card import with_license
from instructgpt.models.load import Network, load_policy, load_scalar
from instructgpt.models.template import get_template
from instructgpt.models.trained import Prefix, attach
from instructgpt.rewards.learned import LearnedReward
from instructgpt.types import Sample
from tests.chats import CHATML, GEMMA, LLAMA, VICUNA, chat, started, with_chat

CPU = torch.device("cpu")
ASKED = chat(("user", "What is up?"))
OLD = CHATML.partition("{% if add")[0]  # does not know add_generation_prompt
KINDS = {
    "chatml": CHATML, "llama": LLAMA, "gemma": GEMMA, "vicuna": VICUNA, "old": OLD,
    "hh": None, "plain": None, "instruction": None,
}  # fmt: skip


def tokenizer_of(base, kind, bos=False):
    tokenizer = with_chat(base, KINDS[kind])
    return started(tokenizer) if bos else tokenizer


def template_of(kind):
    return get_template("chat" if KINDS[kind] else kind)


@pytest.fixture
def reward_model(make_architecture, tmp_path):
    def make(tokenizer, kind, architecture="llama", adapter=None):
        torch.manual_seed(1)
        how = make_architecture(architecture)
        model = load_scalar(None, how, Network(), tokenizer, head="new")
        model = attach(model, adapter) if adapter else model
        with torch.no_grad():
            model.offset.fill_(0.25)
        about = {"parent": None, "config": {}, "metrics": {}, "template": template_of(kind)}
        save_scalar(model, tokenizer, tmp_path / "rm", stage="reward", **about)
        return str(tmp_path / "rm")

    return make


def run_code(folder):
    """Names that the code of a card leaves behind."""
    (code,) = re.findall(r"```python\n(.*?)```", Path(folder, "README.md").read_text(), re.DOTALL)
    assert 'folder = "."' in code
    names = {}
    exec(code.replace('folder = "."', f"folder = {folder!r}"), names)
    return names


def scores_of(folder, response, finished=True):
    reward = LearnedReward(folder)
    reward.prepare(AutoTokenizer.from_pretrained(folder), get_template("plain"), CPU)
    reward.same_tokens = False  # reads the text
    return reward.score([Sample(ASKED, response, [], [], finished)]).item()


@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("kind", list(KINDS))
def test_the_code_scores_as_we_do(reward_model, tiny_tokenizer, kind, bos):
    folder = reward_model(tokenizer_of(tiny_tokenizer, kind, bos), kind)
    assert run_code(folder)["score"] == pytest.approx(scores_of(folder, "Not much."), abs=1e-5)


@pytest.mark.parametrize(("name", "adapter"), [("lfm2", None), ("llama", Prefix(tokens=3))])
def test_so_it_does_where_transformers_has_no_classifier(
    reward_model, tiny_tokenizer, name, adapter
):
    folder = reward_model(tokenizer_of(tiny_tokenizer, "chatml"), "chatml", name, adapter)
    assert run_code(folder)["score"] == pytest.approx(scores_of(folder, "Not much."), abs=1e-5)
    why = "its head lies beside the weights, in `head.safetensors`"
    why = "a learned prefix stands in front of every row" if adapter else why
    card = Path(folder, "README.md").read_text()
    assert f"transformers alone cannot read it: {why}.\n" in card


@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("kind", ["chatml", "old", "hh"])
def test_the_code_of_a_policy_writes_our_prompt(
    make_architecture, tiny_tokenizer, tmp_path, kind, bos
):
    tokenizer, template = tokenizer_of(tiny_tokenizer, kind, bos), template_of(kind)
    model = load_policy(None, make_architecture("llama"), Network(), tokenizer)
    about = {"parent": None, "config": {}, "metrics": {}, "template": template}
    save_policy(model, tokenizer, tmp_path / "sft", stage="sft", **about)
    names = run_code(str(tmp_path / "sft"))
    assert names["ids"] == template.encode_prompt(tokenizer, ASKED)
    assert isinstance(names["response"], str)


def test_text_behind_the_end_of_a_turn_moves_a_score_so_the_artefact_says_how_to_render(
    reward_model, tiny_tokenizer
):
    folder = reward_model(tokenizer_of(tiny_tokenizer, "chatml"), "chatml")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    turns = [*ASKED.messages, {"role": "assistant", "content": "Not much."}]
    ids = tokenizer.apply_chat_template(turns, return_dict=False)
    ours = scores_of(folder, "Not much.")

    def theirs(row):
        with torch.no_grad():
            return model(input_ids=torch.tensor([row])).logits[0, 0].item() - 0.25

    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert ids[-2] == end  # and a line break
    assert abs(theirs(ids) - ours) > 1e-3
    assert theirs(ids[:-1]) == pytest.approx(ours, abs=1e-5)  # as the card says

    said = json.loads(Path(folder, "instructgpt.json").read_text())["rendering"]
    assert f"the token {end} (`<\\|im_end\\|>`) that ends it. Nothing follows that token" in said
    assert said in Path(folder, "README.md").read_text()


@pytest.mark.parametrize("kind", ["chatml", "hh"])
@pytest.mark.parametrize("written", ["{end}", "{end}\n", "{end}\n\n", " {end} \n"])
def test_text_that_ends_so_scores_the_same(reward_model, tiny_tokenizer, kind, written):
    tokenizer = tokenizer_of(tiny_tokenizer, kind)
    folder = reward_model(tokenizer, kind)
    end = tokenizer.convert_ids_to_tokens(template_of(kind).end_id(tokenizer))
    whole = written.format(end=end)
    kept = whole[: whole.index(end)]
    assert scores_of(folder, f"Yes.{whole}") == scores_of(folder, f"Yes.{kept}")


CONFIG = {
    "seed_everything": 7,
    "trainer": {"max_epochs": 2, "precision": None, "logger": "WandbLogger"},
    "model": {
        "class_path": "instructgpt.PPOModule",
        "init_args": {
            "init_from": "/home/ann/sft",
            "algorithm": {"class_path": "instructgpt.PPO", "init_args": {"clip_range": 0.2}},
            "sampling": {"stop": "", "top_k": 0},
            "reward": {
                "class_path": "instructgpt.LearnedReward",
                "init_args": {"path": "/home/ann/runs/rm/export", "text": "a|`b\n"},
            },
        },
    },
    "data": {"init_args": {"train": ["/home/ann/pigs.jsonl"], "batch_size": 8}},
}
METRICS = {
    "step": 20,
    "val/accuracy": 0.5,
    "val/accuracy_by_labeler/ann": 0.5,
    "val/pairs_by_source/pigs": 100.0,
    "train/loss": 1.0,
    "intervals": {"val/accuracy": [0.4038, 0.5962, 1100]},
}


def test_a_card_says_what_from_how_and_how_good(make_architecture, tiny_tokenizer, tmp_path):
    template = template_of("plain")
    model = load_policy(None, make_architecture("llama"), Network(), tiny_tokenizer)
    about = {"config": CONFIG, "metrics": METRICS, "template": template, "stage": "ppo"}
    about["data"] = [
        {"use": "training", "name": "ann/pigs:train", "hub": True, "rows": 1234},
        {"use": "validation", "name": "held.jsonl", "hub": False, "rows": None},
    ]
    base = tmp_path / "base"
    base.mkdir()
    (base / "README.md").write_text("---\nlanguage: en\nlicense: mit\n---\n\nlicense: gpl\n")
    save_policy(model, tiny_tokenizer, tmp_path / "a", parent=str(base), **about)
    save_policy(model, tiny_tokenizer, tmp_path / "b", parent=str(tmp_path / "a"), **about)
    card = (tmp_path / "b/README.md").read_text()
    assert metadata_load(tmp_path / "b/README.md") == {
        "license": "mit",  # of the first folder, handed on
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "datasets": ["ann/pigs"],
        "tags": ["instructgpt", "rlhf", "ppo"],
    }
    assert "Started from `a`, which began with `base`." in card
    for row in (
        "| training | `ann/pigs:train` | 1,234 |",
        "| validation | `held.jsonl` | streamed |",
        "| `stage` | `PPOModule` |",
        "| `algorithm` | `PPO` |",
        "| `algorithm.clip_range` | `0.2` |",
        "| `sampling.top_k` | `0` |",
        "| `reward.path` | `rm/export` |",
        "| `reward.text` | `a\\|'b\\n` |",
        "| `data.batch_size` | `8` |",
        "| `trainer.max_epochs` | `2` |",
        "| `seed` | `7` |",
        "| `val/accuracy` | 0.5 | [0.4038, 0.5962] | 1,100 |",
        "## Licence\n\n`mit`.",
    ):
        assert row in card
    for hidden in ("/home", "by_labeler", "pairs_by", "train/loss", "Wandb", "precision", "stop"):
        assert hidden not in card


def test_the_hub_is_told_the_base_and_people_the_metrics_of_steps(
    make_architecture, tiny_tokenizer, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    model = load_policy(None, make_architecture("llama"), Network(), tiny_tokenizer)
    about = {"config": {}, "template": template_of("plain"), "stage": "sft"}
    found = {"step": 3, "train/loss": 1.25, "time/sample": 9.0}
    save_policy(model, tiny_tokenizer, "models/a", parent="ann/pig", metrics=found, **about)
    save_policy(model, tiny_tokenizer, "models/b", parent="models/a", metrics={}, **about)
    for folder in ("models/a", "models/b"):
        facts = metadata_load(Path(folder, "README.md"))
        assert facts["base_model"] == "ann/pig"
        assert facts["license"] == "unknown"
    assert "| `train/loss` | 1.25 |  |  |" in Path("models/a/README.md").read_text()
    assert "time/sample" not in Path("models/a/README.md").read_text()
    card = Path("models/b/README.md").read_text()
    assert "Started from `models/a`, which began with `ann/pig`." in card
    assert "## Metrics" not in card
    Path("plain/a").mkdir(parents=True)  # looks like a repository, and is a folder
    save_policy(model, tiny_tokenizer, "models/c", parent="plain/a", metrics={}, **about)
    assert "base_model" not in metadata_load(Path("models/c/README.md"))
    assert "Started from `plain/a`.\n" in Path("models/c/README.md").read_text()
    named = with_license(card, "apache-2.0")
    assert named.count("apache-2.0") == 2
    assert "Unknown: neither" not in named
