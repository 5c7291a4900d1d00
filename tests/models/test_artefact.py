"""What a stage writes, plain transformers reads; what does not fit is refused by name."""

import copy
import json
import warnings

import pytest
import torch
from peft import PeftConfig, PeftModel
from planted import unlisted
from safetensors.torch import load_file
from tiny_models import disturb, flat, policy_of, scalar_of
from tokenizers import pre_tokenizers
from torch.nn.functional import pad
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GenerationConfig,
)

from instructgpt.models.artefact import check_artefact, read_artefact, save_policy, save_scalar
from instructgpt.models.forward import run
from instructgpt.models.load import Network, load_policy, load_scalar
from instructgpt.models.peft_private import without_adapters
from instructgpt.models.template import get_template
from instructgpt.models.tokenizer import load_tokenizer, tokenizer_fingerprint
from instructgpt.models.trained import LoRA, Prefix, attach
from instructgpt.types import UserError

OWN = {
    "template": get_template("instruction"),
    "parent": "runs/pretrain/export",
    "config": {"model": {"lr": 1e-5}, "path": None},
    "metrics": {"val/loss": 2.5, "val/never": float("nan")},
}
TEXTS = ["Say hello to the world.<|endoftext|>", "One two.<|endoftext|>"]


@pytest.fixture(params=["tiny_tokenizer", "eos_padded_tokenizer"])
def tokenizer(request):
    return request.getfixturevalue(request.param)


def logits(model, tokens):
    return run(model, tokens, torch.ones_like(tokens).bool()).logits


def files_of(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def right_padded(tokenizer, filler):
    rows = [torch.tensor(tokenizer(text)["input_ids"]) for text in TEXTS]
    width = max(map(len, rows)) + 2
    tokens = torch.stack([pad(row, (0, width - len(row)), value=filler) for row in rows])
    mask = torch.stack([pad(torch.ones_like(row), (0, width - len(row))) for row in rows]).bool()
    return tokens, mask


@pytest.fixture
def policy_folder(tmp_path, make_architecture, tiny_tokenizer):
    path = tmp_path / "sft"
    save_policy(
        policy_of(make_architecture("gpt2"), tiny_tokenizer),
        tiny_tokenizer,
        path,
        stage="sft",
        **OWN,
    )
    return path


def test_policy_loads_in_plain_transformers(tiny_architecture, tokenizer, tmp_path):
    model, path = policy_of(tiny_architecture, tokenizer), tmp_path / "export"
    save_policy(model, tokenizer, path, stage="sft", **OWN)
    tokens = torch.tensor([tokenizer(TEXTS[0])["input_ids"]])
    theirs = AutoModelForCausalLM.from_pretrained(path).eval()
    ours = load_policy(str(path), None, Network(), load_tokenizer(str(path))).eval()
    expected = logits(model, tokens)
    torch.testing.assert_close(theirs(tokens).logits, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(logits(ours, tokens), expected, rtol=0, atol=1e-5)
    for loaded in (load_tokenizer(str(path)), AutoTokenizer.from_pretrained(path)):
        assert loaded(TEXTS)["input_ids"] == tokenizer(TEXTS)["input_ids"]
        assert loaded.pad_token_id == tokenizer.pad_token_id
    assert not {name for name in files_of(path) if name.endswith((".bin", ".pt", ".pkl"))}


def test_tokenizer_is_not_replaced_by_that_of_the_model_type(
    make_architecture, tiny_tokenizer, tmp_path
):
    """Beside a Qwen 2 model, AutoTokenizer would split words as Qwen 2 does, whatever is saved."""
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    model = policy_of(make_architecture("qwen2"), tokenizer)
    save_policy(model, tokenizer, tmp_path / "a", stage="sft", **OWN)
    loaded = load_tokenizer(str(tmp_path / "a"))
    assert tokenizer_fingerprint(loaded) == tokenizer_fingerprint(tokenizer)
    replaced = AutoTokenizer.from_pretrained(tmp_path / "a")
    assert tokenizer_fingerprint(replaced) != tokenizer_fingerprint(tokenizer)


def test_tied_weights_are_saved_once(make_architecture, tiny_tokenizer, tmp_path):
    for name, tied in (("gpt2", True), ("llama", False)):
        model = policy_of(make_architecture(name), tiny_tokenizer)
        for adapter in (None, LoRA(rank=2)):
            model = model if adapter is None else disturb(attach(model, adapter))
            path = tmp_path / name / type(adapter).__name__
            save_policy(model, tiny_tokenizer, path, stage="sft", **OWN)
            assert ("lm_head.weight" in load_file(path / "model.safetensors")) is not tied
            loaded = load_policy(str(path), None, Network(), tiny_tokenizer)
            same = loaded.get_input_embeddings().weight is loaded.get_output_embeddings().weight
            assert same is tied


def test_facts(policy_folder, tiny_tokenizer):
    artefact = read_artefact(policy_folder)
    assert artefact.path == str(policy_folder)
    assert (artefact.stage, artefact.template) == ("sft", "instruction")
    assert artefact.tokenizer_hash == tokenizer_fingerprint(tiny_tokenizer)
    assert artefact.template_hash == get_template("instruction").fingerprint(tiny_tokenizer)
    assert (artefact.head, artefact.offset, artefact.adapter) == (None, None, None)
    assert artefact.parent == "runs/pretrain/export"
    assert artefact.config == OWN["config"]
    assert artefact.metrics == {"val/loss": 2.5, "val/never": None}
    facts = json.loads((policy_folder / "instructgpt.json").read_text())  # more for people
    assert (facts["eos_token_id"], facts["pad_token_id"]) == (0, 1)
    assert set(facts["versions"]) >= {"torch", "transformers", "peft"}
    check_artefact(artefact, load_tokenizer(str(policy_folder)), get_template("instruction"))


def test_generation_stops_where_responses_end(make_architecture, tiny_tokenizer, tmp_path):
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_end|>"]})
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}<|im_end|>{% endfor %}"
    model = policy_of(make_architecture("llama"), tokenizer)
    before = model.generation_config.to_dict()
    own = OWN | {"template": get_template("chat")}
    save_policy(model, tokenizer, tmp_path / "a", stage="sft", **own)
    settings = GenerationConfig.from_pretrained(tmp_path / "a")
    assert settings.eos_token_id == [0, 290]
    assert settings.pad_token_id == 1
    assert model.generation_config.to_dict() == before
    assert load_tokenizer(str(tmp_path / "a")).chat_template == tokenizer.chat_template


def test_reward_model_loads_in_plain_transformers(tiny_architecture, tokenizer, tmp_path):
    """The same scores, before the offset, one at a time and padded, also when padding is EOS."""
    model, path = scalar_of(tiny_architecture, tokenizer), tmp_path / "export"
    expected = model.score(flat(*right_padded(tokenizer, tokenizer.pad_token_id)))
    with torch.no_grad():
        model.offset.fill_(0.75)
    save_scalar(model, tokenizer, path, stage="reward", **OWN)
    artefact = read_artefact(path)
    assert artefact.offset == 0.75
    ours = load_scalar(str(path), None, Network(), load_tokenizer(str(path)), head="stored").eval()
    torch.testing.assert_close(
        ours.score(flat(*right_padded(tokenizer, 3))), expected - 0.75, rtol=0, atol=1e-5
    )
    if model.config.model_type == "lfm2":
        assert artefact.head == "head.safetensors"
        assert (path / artefact.head).is_file()
        return
    assert artefact.head == "score"
    theirs = AutoModelForSequenceClassification.from_pretrained(path).eval()
    their_tokenizer = AutoTokenizer.from_pretrained(path)
    assert theirs.config.num_labels == 1
    assert their_tokenizer.pad_token_id != their_tokenizer.eos_token_id
    batch = their_tokenizer(TEXTS, padding=True, padding_side="right", return_tensors="pt")
    scores = theirs(batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, 0]
    torch.testing.assert_close(scores, expected, rtol=0, atol=1e-5)
    for row, text in enumerate(TEXTS):
        single = theirs(**their_tokenizer(text, return_tensors="pt")).logits[0, 0]
        torch.testing.assert_close(single, expected[row], rtol=0, atol=1e-5)
    # what is being trained is not changed by being saved
    assert tokenizer.pad_token_id == (1 if tokenizer.pad_token == "<|pad|>" else 0)
    assert model.trunk.get_input_embeddings().num_embeddings == len(tokenizer)


def test_offset_never_measured(make_architecture, tiny_tokenizer, tmp_path):
    model = scalar_of(make_architecture("gpt2"), tiny_tokenizer)
    save_scalar(model, tiny_tokenizer, tmp_path / "a", stage="reward", **OWN)
    assert read_artefact(tmp_path / "a").offset is None


def test_reward_model_goes_on_as_value_model_and_tokenizers_agree(
    make_architecture, eos_padded_tokenizer, tmp_path
):
    """The reward model's own padding token is no reason to refuse the policy's tokenizer."""
    model = scalar_of(make_architecture("gpt2"), eos_padded_tokenizer)
    save_scalar(model, eos_padded_tokenizer, tmp_path / "rm", stage="reward", **OWN)
    artefact = read_artefact(tmp_path / "rm")
    check_artefact(artefact, eos_padded_tokenizer, get_template("instruction"))
    value = load_scalar(str(tmp_path / "rm"), None, Network(), eos_padded_tokenizer, "stored", True)
    save_scalar(value, eos_padded_tokenizer, tmp_path / "value", stage="value", **OWN)
    assert read_artefact(tmp_path / "value").stage == "value"


@pytest.mark.parametrize("missing", ["score.weight", "head.safetensors"])
def test_reward_model_without_its_head(make_architecture, tiny_tokenizer, tmp_path, missing):
    from safetensors.torch import save_file

    name = "lfm2" if missing == "head.safetensors" else "gpt2"
    path = tmp_path / "rm"
    model = scalar_of(make_architecture(name), tiny_tokenizer)
    save_scalar(model, tiny_tokenizer, path, stage="reward", **OWN)
    unlisted(path)
    if name == "lfm2":
        (path / missing).unlink()
    else:
        weights = {k: v.clone() for k, v in load_file(path / "model.safetensors").items()}
        del weights[missing]
        save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"^init_from: .*reward head") as error:
        load_scalar(str(path), None, Network(), tiny_tokenizer, head="stored")
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("head", ["../other/head.safetensors", "/head.safetensors", "x"])
def test_reward_head_from_elsewhere(make_architecture, tiny_tokenizer, tmp_path, head):
    model = scalar_of(make_architecture("lfm2"), tiny_tokenizer)
    for name in ("rm", "other"):
        save_scalar(model, tiny_tokenizer, tmp_path / name, stage="reward", **OWN)
    file = tmp_path / "rm" / "instructgpt.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"head": head}))
    with pytest.raises(UserError, match=r"key 'head' must be score, .*, got ") as error:
        load_scalar(str(tmp_path / "rm"), None, Network(), tiny_tokenizer, head="stored")
    assert str(error.value).startswith(f"{file}: ")


def test_lora_policy(tiny_architecture, tiny_tokenizer, tmp_path):
    model = disturb(attach(policy_of(tiny_architecture, tiny_tokenizer), LoRA(rank=2)))
    tokens = torch.tensor([[5, 6, 7, 8]])
    expected = logits(model, tokens)
    path = tmp_path / "export"
    save_policy(model, tiny_tokenizer, path, stage="sft", **OWN)
    torch.testing.assert_close(
        logits(model, tokens), expected
    )  # the model in training is as it was
    assert read_artefact(path).adapter == "lora"
    loaded = load_policy(str(path), None, Network(), tiny_tokenizer).eval()
    assert not isinstance(loaded, PeftModel)
    theirs = AutoModelForCausalLM.from_pretrained(path).eval()
    torch.testing.assert_close(logits(loaded, tokens), expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(theirs(tokens).logits, expected, rtol=0, atol=1e-4)
    names = {name for name in files_of(path) if name.startswith("adapter/")}
    assert names == {"adapter/adapter_config.json", "adapter/adapter_model.safetensors"}
    assert all("lora" in name for name in load_file(path / "adapter" / "adapter_model.safetensors"))


def test_prefix_policy(tiny_architecture, tiny_tokenizer, tmp_path):
    base = policy_of(tiny_architecture, tiny_tokenizer)
    tokens = torch.tensor([[5, 6, 7, 8]])
    without = logits(base, tokens)
    model = disturb(attach(base, Prefix(tokens=3)))
    expected = logits(model, tokens)
    path = tmp_path / "export"
    with pytest.warns(UserWarning, match="AutoModelForCausalLM cannot read the export"):
        save_policy(model, tiny_tokenizer, path, stage="sft", **OWN)
    assert read_artefact(path).adapter == "prefix"
    loaded = load_policy(str(path), None, Network(), load_tokenizer(str(path)))
    assert loaded.training
    assert {n for n, p in loaded.named_parameters() if p.requires_grad} == {
        n for n, p in model.named_parameters() if p.requires_grad
    }
    torch.testing.assert_close(logits(loaded.eval(), tokens), expected)
    with without_adapters(loaded):
        torch.testing.assert_close(logits(loaded, tokens), without)
    # peft reads it too, and nobody takes its base for a repository of the hub
    assert PeftConfig.from_pretrained(path).base_model_name_or_path == "./base"
    theirs = AutoModelForCausalLM.from_pretrained(path / "base")
    theirs = PeftModel.from_pretrained(theirs, str(path)).eval()
    torch.testing.assert_close(logits(theirs, tokens), expected, rtol=0, atol=1e-4)
    # the policy's prefix stays on when a reward model is made of it
    scalar = load_scalar(str(path), None, Network(), tiny_tokenizer, head="new").eval()
    assert isinstance(scalar.trunk, PeftModel)
    score = scalar.score(flat(tokens))
    with without_adapters(scalar.trunk):
        assert not torch.allclose(score, scalar.score(flat(tokens)))


@pytest.mark.parametrize("adapter", [LoRA(rank=2), Prefix(tokens=3)])
def test_adapted_reward_model(tiny_architecture, tokenizer, tmp_path, adapter):
    model = disturb(attach(scalar_of(tiny_architecture, tokenizer), adapter))
    with torch.no_grad():
        model.head.weight.mul_(1.7)
        model.offset.fill_(-0.5)
    expected = model.score(flat(*right_padded(tokenizer, 3)))
    path = tmp_path / "export"
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        save_scalar(model, tokenizer, path, stage="reward", **OWN)
    told = [str(one.message) for one in said if "cannot read the export" in str(one.message)]
    no_classifier = isinstance(adapter, Prefix) or tiny_architecture["model_type"] == "lfm2"
    assert len(told) == no_classifier, told
    assert all("AutoModelForSequenceClassification" in one for one in told)
    loaded = load_scalar(
        str(path), None, Network(), load_tokenizer(str(path)), head="stored"
    ).eval()
    torch.testing.assert_close(
        loaded.score(flat(*right_padded(tokenizer, 3))), expected, rtol=0, atol=1e-4
    )


def test_wrong_tokenizer_and_template(policy_folder, tiny_tokenizer, eos_padded_tokenizer):
    artefact = read_artefact(policy_folder)
    with pytest.raises(UserError) as error:
        check_artefact(artefact, eos_padded_tokenizer, get_template("instruction"))
    message = str(error.value)
    assert message.startswith(
        f"tokenizer: must be that of '{policy_folder}' ({artefact.tokenizer_hash})"
    )
    assert tokenizer_fingerprint(eos_padded_tokenizer) in message
    with pytest.raises(UserError) as error:
        check_artefact(artefact, tiny_tokenizer, get_template("alpaca"))
    assert str(error.value) == (
        f"template: must be 'instruction', with which '{policy_folder}' was trained, got 'alpaca'"
    )


def test_folders_that_are_no_artefacts(tmp_path):
    assert read_artefact(tmp_path) is None
    assert read_artefact("openai-community/gpt2") is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda facts: "{", "must be JSON"),
        (lambda facts: [], "key 'format' must be 1, got 'list'"),
        (lambda facts: facts | {"format": 9}, "key 'format' must be 1, got 9"),
        (lambda facts: facts | {"offset": "x"}, "key 'offset' must be float or NoneType or int"),
        (lambda facts: facts | {"config": 3}, "key 'config' must be dict, got 3"),
        (lambda facts: {k: v for k, v in facts.items() if k != "stage"}, "key 'stage' must be str"),
    ],
)
def test_malformed_facts(policy_folder, change, message):
    file = policy_folder / "instructgpt.json"
    changed = change(json.loads(file.read_text()))
    file.write_text(changed if isinstance(changed, str) else json.dumps(changed))
    with pytest.raises(UserError, match=message) as error:
        read_artefact(policy_folder)
    assert str(error.value).startswith(str(file))
    assert "\n" not in str(error.value)


def test_nothing_half_written(policy_folder, make_architecture, tiny_tokenizer, monkeypatch):
    model, before = policy_of(make_architecture("llama"), tiny_tokenizer), files_of(policy_folder)

    def full(*args, **kwargs):
        raise OSError("no space left on device")

    monkeypatch.setattr(tiny_tokenizer, "save_pretrained", full)
    for path in (policy_folder, policy_folder.parent / "new"):
        with pytest.raises(OSError, match="no space"):
            save_policy(model, tiny_tokenizer, path, stage="sft", **OWN)
    assert [path.name for path in policy_folder.parent.iterdir()] == ["sft"]
    assert files_of(policy_folder) == before
    assert load_policy(str(policy_folder), None, Network(), tiny_tokenizer)


def test_saving_again_replaces_an_artefact_and_nothing_else(
    policy_folder, make_architecture, tiny_tokenizer
):
    model = policy_of(make_architecture("llama"), tiny_tokenizer)
    (policy_folder / "stale").write_text("")
    save_policy(model, tiny_tokenizer, policy_folder, stage="sft", **OWN)
    assert not (policy_folder / "stale").exists()
    loaded = load_policy(str(policy_folder), None, Network(), tiny_tokenizer)
    assert loaded.config.model_type == "llama"
    other = policy_folder.parent / "thesis"
    other.mkdir()
    (other / "chapter1.txt").write_text("important")
    with pytest.raises(UserError, match=r"must not replace '.*thesis'"):
        save_policy(model, tiny_tokenizer, other, stage="sft", **OWN)
    assert (other / "chapter1.txt").read_text() == "important"
