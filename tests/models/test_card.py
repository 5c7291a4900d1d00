"""Model cards: their code reads prompts and responses as this package does."""

import json
import re
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from instructgpt.models.adapters import Prefix, attach
from instructgpt.models.artefact import save_policy, save_scalar
from instructgpt.models.load import Network, load_policy, load_scalar
from instructgpt.models.template import get_template
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
    assert f"the token {end} (<|im_end|>) that ends it. Nothing follows that token" in said
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
