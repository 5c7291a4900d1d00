"""Models from scratch and from folders; everything wrong ends in one line."""

import json
import warnings

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import flat
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from instructgpt.models.architecture import PAPERS_DROPOUT, set_dropout
from instructgpt.models.forward import run
from instructgpt.models.load import Network, context_length, load_policy, load_scalar
from instructgpt.types import UserError


def policy(architecture, tokenizer, **options):
    torch.manual_seed(0)
    return load_policy(None, architecture, Network(**options), tokenizer)


@pytest.fixture
def hub_folder(tmp_path, tiny_architecture, tiny_tokenizer):
    """A plain Hugging Face folder, as from the hub."""
    policy(tiny_architecture, tiny_tokenizer).save_pretrained(tmp_path / "hub")
    return tmp_path / "hub"


def test_from_scratch_takes_size_and_ids_of_the_tokenizer(tiny_architecture, tiny_tokenizer):
    model = policy(tiny_architecture, tiny_tokenizer)
    config = model.config
    assert config.vocab_size == len(tiny_tokenizer) == 290
    assert (config.eos_token_id, config.bos_token_id, config.pad_token_id) == (0, 0, 1)
    assert model.training
    assert context_length(config) == 128


def test_vocabulary_may_be_larger(make_architecture, tiny_tokenizer):
    model = policy(make_architecture("gpt2") | {"vocab_size": 320}, tiny_tokenizer)
    assert model.config.vocab_size == 320


def test_eos_is_trained_when_it_is_padding(tiny_architecture, eos_padded_tokenizer, tmp_path):
    """Llama's embedding never learns the row of the padding id; here that is EOS."""
    model = policy(tiny_architecture, eos_padded_tokenizer)
    assert model.config.pad_token_id == model.config.eos_token_id == 0
    model.save_pretrained(tmp_path)
    tokens = torch.tensor([[0, 5, 6]])
    for loaded in (model, load_policy(str(tmp_path), None, Network(), eos_padded_tokenizer)):
        embedding = loaded.get_input_embeddings().weight
        assert embedding[0].abs().sum() > 0
        run(loaded, tokens, torch.ones_like(tokens).bool(), keep=1).logits[..., 9].sum().backward()
        assert embedding.grad[0].abs().sum() > 0


def test_folder_gives_the_same_model_in_training_mode(
    hub_folder, tiny_architecture, tiny_tokenizer
):
    loaded = load_policy(str(hub_folder), None, Network(), tiny_tokenizer)
    assert loaded.training
    expected = policy(tiny_architecture, tiny_tokenizer).state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in loaded.state_dict().items())


def test_tied_embeddings_stay_tied(make_architecture, tiny_tokenizer, tmp_path):
    for name, tied in (("gpt2", True), ("qwen2", True), ("llama", False)):
        policy(make_architecture(name), tiny_tokenizer).save_pretrained(tmp_path / name)
        model = load_policy(str(tmp_path / name), None, Network(), tiny_tokenizer)
        same = model.get_input_embeddings().weight is model.get_output_embeddings().weight
        assert same is tied
        assert ("lm_head.weight" in load_file(tmp_path / name / "model.safetensors")) is not tied


def test_dtype_attention_and_checkpointing(make_architecture, tiny_tokenizer):
    model = policy(
        make_architecture("llama"),
        tiny_tokenizer,
        dtype="bfloat16",
        attention="eager",
        gradient_checkpointing=True,
    )
    assert model.dtype == torch.bfloat16
    assert model.config._attn_implementation == "eager"
    assert any(getattr(m, "gradient_checkpointing", False) for m in model.modules())


def test_checkpointing_changes_no_gradient(tiny_architecture, tiny_tokenizer):
    tokens = torch.arange(2, 8)[None]
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        network = Network(gradient_checkpointing=checkpointing)
        model = load_policy(None, tiny_architecture, network, tiny_tokenizer, dropout=0.0)
        run(model, tokens, torch.ones_like(tokens).bool()).logits.square().mean().backward()
        gradients.append([p.grad for p in model.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, recomputed)


@pytest.mark.parametrize(("name", "exists"), [("gpt2", True), ("gpt_neox", True), ("llama", False)])
def test_dropout_is_set_and_active(make_architecture, tiny_tokenizer, tmp_path, name, exists):
    model = load_policy(None, make_architecture(name), Network(), tiny_tokenizer, dropout=0.4)
    model.save_pretrained(tmp_path)
    again = load_policy(str(tmp_path), None, Network(), tiny_tokenizer, dropout=0.4)
    off = load_policy(str(tmp_path), None, Network(), tiny_tokenizer, dropout=0.0)
    tokens = torch.arange(2, 10)[None]
    mask = torch.ones_like(tokens).bool()

    def varies(network):
        return not torch.equal(run(network, tokens, mask).logits, run(network, tokens, mask).logits)

    assert varies(model) is exists
    assert varies(again) is exists
    assert not varies(off)
    assert not varies(model.eval())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        set_dropout(model.config, 0.4)
        set_dropout(model.config, 0.0)
        set_dropout(model.config, PAPERS_DROPOUT)  # the default of SFT: nobody asked for it
    told = ["llama has no residual dropout: dropout 0.4 is ignored"]
    assert [str(w.message) for w in caught] == ([] if exists else told)


def test_gpt2_dropout_is_residual_only(make_architecture, tiny_tokenizer):
    config = load_policy(
        None, make_architecture("gpt2"), Network(), tiny_tokenizer, dropout=0.2
    ).config
    assert (config.resid_pdrop, config.embd_pdrop, config.attn_pdrop) == (0.2, 0.2, 0.0)


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        ({"model_type": "gtp2"}, r"key 'model_type' .* \(did you mean 'gpt2'\?\), got 'gtp2'"),
        ({"n_embd": 16}, "key 'model_type' must be one .*, got None"),
        ({"model_type": "gpt2", "n_embed": 16}, r"key 'n_embed' .* \(did you mean 'n_embd'\?\)"),
        ({"model_type": "gpt2", "n_embd": "x"}, "wrong value: .*n_embd"),
        ({"model_type": "gpt2", "n_embd": 15, "n_head": 2}, "cannot build .*divisible"),
        ({"model_type": "gpt2", "vocab_size": 100}, "key 'vocab_size' must be >= 290.* got 100"),
    ],
)
def test_wrong_architectures(tiny_tokenizer, architecture, message):
    with pytest.raises(UserError, match=f"^architecture: {message}") as error:
        load_policy(None, architecture, Network(), tiny_tokenizer)
    assert "\n" not in str(error.value)


def test_rope_theta_is_known(make_architecture, tiny_tokenizer):
    model = policy(make_architecture("llama") | {"rope_theta": 5000.0}, tiny_tokenizer)
    assert model.config.rope_parameters["rope_theta"] == 5000.0


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("/nowhere/export", "no such folder: '/nowhere/export'"),
        ("./nowhere", "no such folder: './nowhere'"),
        ("runs/sft/export", "no such folder: 'runs/sft/export'"),
        ("nobody/nothing", "cannot load 'nobody/nothing': "),
    ],
)
def test_unknown_sources(tiny_tokenizer, tmp_path, monkeypatch, source, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=f"^init_from: .*{message}") as error:
        load_policy(source, None, Network(), tiny_tokenizer)
    assert "\n" not in str(error.value)


def test_sources_that_are_no_models(tmp_path, tiny_tokenizer):
    (tmp_path / "last.ckpt").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "config.json").write_text(json.dumps({"model_type": "lama"}))
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "config.json").write_text("{")
    for name, message in [
        ("last.ckpt", "is a file"),
        ("empty", "no config.json"),
        ("odd", r"did you mean 'llama'"),
        ("torn", "cannot read"),
    ]:
        with pytest.raises(UserError, match=message) as error:
            load_policy(str(tmp_path / name), None, Network(), tiny_tokenizer)
        assert "\n" not in str(error.value)


def test_source_and_architecture(make_architecture, tiny_tokenizer):
    with pytest.raises(UserError, match="architecture: must not be given together with init_from"):
        load_policy("x", make_architecture("gpt2"), Network(), tiny_tokenizer)
    with pytest.raises(UserError, match="init_from: must be given, or an architecture"):
        load_policy(None, None, Network(), tiny_tokenizer)
    with pytest.raises(UserError, match="tokenizer: must be given to start from scratch"):
        load_policy(None, make_architecture("gpt2"), Network())


def change_weights(folder, change):
    file = folder / "model.safetensors"
    weights = {name: value.clone() for name, value in load_file(file).items()}  # not mapped
    save_file(change(weights), file, metadata={"format": "pt"})


def test_missing_weights(hub_folder, tiny_tokenizer):
    def without_two(weights):
        gone = sorted(name for name in weights if "1." in name)[:2]
        return {name: value for name, value in weights.items() if name not in gone}

    change_weights(hub_folder, without_two)
    with pytest.raises(
        UserError, match=r"^init_from: weights must all be in .* 2 are missing, e.g. \S+1\.\S+$"
    ):
        load_policy(str(hub_folder), None, Network(), tiny_tokenizer)


def test_unreadable_and_pickled_weights(hub_folder, tiny_tokenizer):
    file = hub_folder / "model.safetensors"
    weights = {name: value.clone() for name, value in load_file(file).items()}  # not mapped
    file.write_bytes(b"garbage")
    with pytest.raises(UserError, match="cannot load") as error:
        load_policy(str(hub_folder), None, Network(), tiny_tokenizer)
    assert "\n" not in str(error.value)
    file.unlink()
    torch.save(weights, hub_folder / "pytorch_model.bin")  # a pickle: never read
    with pytest.raises(UserError, match=r"cannot load .*safetensors"):
        load_policy(str(hub_folder), None, Network(), tiny_tokenizer)


def test_remote_code_is_not_run(hub_folder, tiny_tokenizer):
    config = json.loads((hub_folder / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "code.Config"}}
    (hub_folder / "config.json").write_text(json.dumps(config))
    (hub_folder / "code.py").write_text("raise SystemExit('code ran')\n")
    with pytest.raises(UserError, match=r"^init_from: needs network.trust_remote_code") as error:
        load_policy(str(hub_folder), None, Network(), tiny_tokenizer)
    assert "\n" not in str(error.value)


def test_tokenizer_too_large(make_architecture, tiny_tokenizer, eos_padded_tokenizer, tmp_path):
    policy(make_architecture("gpt2"), tiny_tokenizer).save_pretrained(tmp_path)
    larger = type(tiny_tokenizer)(tokenizer_object=tiny_tokenizer.backend_tokenizer)
    larger.add_tokens(["<extra>"])
    with pytest.raises(UserError, match="has 291 tokens, the model knows 290"):
        load_policy(str(tmp_path), None, Network(), larger)


def test_scalar_on_the_trunk_of_a_language_model(hub_folder, tiny_tokenizer):
    trunk = load_policy(str(hub_folder), None, Network(), tiny_tokenizer).base_model.state_dict()
    model = load_scalar(str(hub_folder), None, Network(), tiny_tokenizer, head="new")
    assert model.training
    assert all(torch.equal(value, trunk[name]) for name, value in model.trunk.state_dict().items())


def test_no_reward_head(hub_folder, tiny_tokenizer):
    with pytest.raises(UserError, match=f"^init_from: '{hub_folder}' holds no reward head"):
        load_scalar(str(hub_folder), None, Network(), tiny_tokenizer, head="stored")


def test_reward_model_of_others(make_architecture, tiny_tokenizer, tmp_path):
    torch.manual_seed(0)
    config = policy(make_architecture("llama"), tiny_tokenizer).config
    for labels in (1, 2):
        config.num_labels = labels
        other = AutoModelForSequenceClassification.from_config(config).eval()
        other.save_pretrained(tmp_path / str(labels))
    with pytest.raises(UserError, match="must have one linear output, 'score', got 2 labels"):
        load_scalar(str(tmp_path / "2"), None, Network(), tiny_tokenizer, head="stored")
    with pytest.raises(UserError, match=r"must be a policy, .* holds a reward or value model"):
        load_policy(str(tmp_path / "1"), None, Network(), tiny_tokenizer)
    model = load_scalar(str(tmp_path / "1"), None, Network(), tiny_tokenizer, head="stored").eval()
    tokens = torch.arange(2, 9)[None]
    other = AutoModelForSequenceClassification.from_pretrained(tmp_path / "1").eval()
    torch.testing.assert_close(model.score(flat(tokens)), other(tokens).logits[:, 0])


def test_policy_of_plain_transformers_is_the_same(hub_folder, tiny_tokenizer):
    tokens = torch.arange(2, 9)[None]
    ours = load_policy(str(hub_folder), None, Network(), tiny_tokenizer).eval()
    theirs = AutoModelForCausalLM.from_pretrained(hub_folder).eval()
    torch.testing.assert_close(
        run(ours, tokens, torch.ones_like(tokens).bool()).logits, theirs(tokens).logits
    )
