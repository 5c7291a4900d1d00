"""Reward models exported as classifiers of transformers: the same scores, whatever pads."""

import copy
import itertools
import json

import pytest
import torch
from tiny_models import flat
from tokenizers import Tokenizer
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedTokenizerFast,
)

from instructgpt.models.artefact import check_artefact, read_artefact, save_scalar
from instructgpt.models.load import Network, load_scalar
from instructgpt.models.template import get_template
from instructgpt.models.tokenizer import BPE, load_tokenizer, tokenizer_fingerprint, train_bpe
from instructgpt.rewards.learned import LearnedReward
from instructgpt.types import Prompt, Sample

TEXTS = ["say hello to the world", "one two three four five six seven"]
RESERVED = ["<|endoftext|>", "<|im_end|>", "<|im_start|>", "<unk>", "<|reserved|>"]
CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>{% endif %}"
)
PADS = [None, "<|endoftext|>", "<|im_end|>", "<unk>", "<|reserved|>", "<|pad|>"]
ENDS = ["<|endoftext|>", "<|im_end|>"]
CASES = list(itertools.product(ENDS, PADS, ["plain", "chat"]))
PAIRS = [
    ("say hello", " hello world", True),
    ("one two three", " four", True),
    ("say", " one two three four five six", False),
    ("one", "", True),
]


def chat_tokenizer(end, pad, reserved=RESERVED):
    names = [*reserved, "<|pad|>"] if pad == "<|pad|>" else reserved
    tokenizer = train_bpe(TEXTS, BPE(vocab_size=270, special_tokens=names))
    tokenizer.eos_token, tokenizer.pad_token, tokenizer.unk_token = end, pad, "<unk>"
    tokenizer.chat_template = CHAT
    tokenizer.padding_side = "left"
    return tokenizer


def samples_of(tokenizer, template, pairs=PAIRS):
    samples = []
    for text, response, finished in pairs:
        prompt = Prompt(text, [{"role": "user", "content": text}], text, {})
        ids = template.encode_prompt(tokenizer, prompt)
        answer = template.encode_response(tokenizer, response, end=finished)
        samples.append(Sample(prompt, response, ids, answer, finished))
    return samples


def export(architecture, tokenizer, template, path):
    torch.manual_seed(0)
    model = load_scalar(None, architecture, Network(), tokenizer, head="new")
    with torch.no_grad():
        model.offset.fill_(0.5)
    own = {"parent": None, "config": {}, "metrics": {}}
    save_scalar(model, tokenizer, path, stage="reward", template=template, **own)
    return model.eval()


def check_scores(path, tokenizer, template, samples):
    """Ours of the artefact and those of transformers, one by one, padded on the right and left."""
    reward = LearnedReward(str(path))
    reward.prepare(tokenizer, template, torch.device("cpu"))
    assert reward.same_tokens
    ours = reward.raw_scores(samples)
    rows = [s.prompt_tokens + s.response_tokens for s in samples]
    theirs = AutoModelForSequenceClassification.from_pretrained(path).eval()
    reader = AutoTokenizer.from_pretrained(path)
    texts = [reader.decode(row) for row in rows]
    assert [reader(text)["input_ids"] for text in texts] == rows
    offset = read_artefact(path).offset

    def scores(**batch):
        with torch.no_grad():
            return theirs(**batch).logits[:, 0] - offset

    single = torch.cat([scores(**reader(text, return_tensors="pt")) for text in texts])
    batched = scores(**reader(texts, padding=True, return_tensors="pt"))
    left = reader(texts, padding=True, padding_side="left", return_tensors="pt")
    positions = (left["attention_mask"].cumsum(1) - 1).clamp_min(0)
    for got in (single, batched, scores(**left, position_ids=positions)):
        torch.testing.assert_close(got, ours, rtol=0, atol=1e-5)
    return reader


@pytest.mark.parametrize(("end", "pad", "name"), CASES)
def test_every_combination_of_padding_and_ends(make_architecture, tmp_path, end, pad, name):
    tokenizer, template = chat_tokenizer(end, pad), get_template(name)
    model = export(make_architecture("llama"), tokenizer, template, tmp_path / "rm")
    size = model.trunk.get_input_embeddings().num_embeddings
    reader = check_scores(tmp_path / "rm", tokenizer, template, samples_of(tokenizer, template))
    kept = pad in {"<|reserved|>", "<|pad|>"}
    assert reader.pad_token == (pad if kept else "<|pad|>")
    assert tokenizer.pad_token == pad
    assert model.trunk.get_input_embeddings().num_embeddings == size
    # The next stages take the artefact with the tokenizer of the policy, and with its own.
    artefact = read_artefact(tmp_path / "rm")
    for own in (tokenizer, load_tokenizer(str(tmp_path / "rm"))):
        check_artefact(artefact, own, template)
        load_scalar(str(tmp_path / "rm"), None, Network(), own, head="stored")


@pytest.mark.parametrize("name", ["gpt2", "qwen2", "gpt_neox"])
def test_other_positions_and_embeddings_with_room(make_architecture, tmp_path, name):
    """With rows to spare the new token takes one of them."""
    tokenizer, template = chat_tokenizer("<|im_end|>", "<|im_end|>"), get_template("chat")
    architecture = make_architecture(name) | {"vocab_size": len(tokenizer) + 8}
    export(architecture, tokenizer, template, tmp_path / "rm")
    check_scores(tmp_path / "rm", tokenizer, template, samples_of(tokenizer, template))
    theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path / "rm")
    assert theirs.get_input_embeddings().num_embeddings == len(tokenizer) + 8


def test_padding_inside_a_text(make_architecture, tmp_path):
    tokenizer, template = chat_tokenizer("<|endoftext|>", "<|reserved|>"), get_template("plain")
    export(make_architecture("llama"), tokenizer, template, tmp_path / "rm")
    samples = samples_of(tokenizer, template)
    inside = [
        sample._replace(prompt_tokens=[*sample.prompt_tokens, tokenizer.pad_token_id])
        for sample in samples
    ]
    check_scores(tmp_path / "rm", tokenizer, template, inside)


def test_name_of_padding_that_is_taken(make_architecture, tmp_path):
    """The name is only reserved, and padding is EOS: what the name means must not change."""
    names = [*RESERVED, "<|pad|>"]
    tokenizer = chat_tokenizer("<|endoftext|>", "<|endoftext|>", names)
    template = get_template("plain")
    export(make_architecture("llama"), tokenizer, template, tmp_path / "rm")
    reader = check_scores(tmp_path / "rm", tokenizer, template, samples_of(tokenizer, template))
    assert reader.pad_token == "<|pad_1|>"
    check_artefact(read_artefact(tmp_path / "rm"), tokenizer, template)


def with_gap(pad=None):
    """A tokenizer without a token of id 4: it has fewer tokens than ids."""
    state = json.loads(chat_tokenizer("<|endoftext|>", None).backend_tokenizer.to_str())
    state["added_tokens"] = [t for t in state["added_tokens"] if t["content"] != "<|reserved|>"]
    del state["model"]["vocab"]["<|reserved|>"]
    backend = Tokenizer.from_str(json.dumps(state))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token="<|endoftext|>",
        pad_token=pad,
        clean_up_tokenization_spaces=False,
    )
    assert len(tokenizer) == max(tokenizer.get_vocab().values()) == 269
    return tokenizer


def test_ids_with_gaps(make_architecture, tmp_path):
    """The embedding must have room for the highest id; padding of its own is kept."""
    tokenizer, template = with_gap("<unk>"), get_template("plain")
    model = export(make_architecture("llama"), tokenizer, template, tmp_path / "rm")
    assert model.trunk.get_input_embeddings().num_embeddings == 270
    check_scores(tmp_path / "rm", tokenizer, template, samples_of(tokenizer, template))


def test_ids_with_gaps_and_no_padding(make_architecture, tmp_path):
    """The tokenizers package would give the new token the id of another one."""
    tokenizer, template = with_gap(), get_template("plain")
    with pytest.warns(UserWarning, match="gaps in its ids.*whose head is in head.safetensors"):
        model = export(make_architecture("llama"), tokenizer, template, tmp_path / "rm")
    assert read_artefact(tmp_path / "rm").head == "head.safetensors"
    reward = LearnedReward(str(tmp_path / "rm"))
    reward.prepare(tokenizer, template, torch.device("cpu"))
    samples = samples_of(tokenizer, template)
    rows = [torch.tensor([s.prompt_tokens + s.response_tokens]) for s in samples]
    expected = torch.cat([model.score(flat(row)) for row in rows])
    torch.testing.assert_close(reward.raw_scores(samples), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("end", ENDS)
def test_fingerprint_does_not_know_what_pads(end):
    prints = set()
    for pad in ["<|endoftext|>", "<|im_end|>", None]:
        tokenizer = chat_tokenizer(end, pad)
        added = copy.deepcopy(tokenizer)
        added.add_special_tokens({"pad_token": "<|new|>"})
        prints |= {tokenizer_fingerprint(tokenizer), tokenizer_fingerprint(added)}
    assert len(prints) == 1
