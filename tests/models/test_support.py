"""Every kind of architecture samples as transformers does, or is refused by name in one line."""

import warnings

import pytest
import torch
from flat_families import FAMILIES, GROUPED
from tiny_models import flat
from torch.nn.functional import pad
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    GenerationConfig,
)

from instructgpt.models.artefact import read_artefact, save_policy, save_scalar
from instructgpt.models.forward import run
from instructgpt.models.load import Network, load_policy, load_scalar
from instructgpt.models.support import hidden_width
from instructgpt.models.template import get_template
from instructgpt.modules.networks import without_dropout
from instructgpt.rollout.drawing import Sampling
from instructgpt.rollout.sampler import sample
from instructgpt.types import Prompt, PromptBatch, UserError

NAMES = (
    "gpt2",
    "openai-gpt",  # no cache
    "gptj",
    "codegen",
    "gpt_neo",
    "bloom",  # ALiBi
    "falcon",
    "mpt",
    "xglm",
    "opt",  # as OPT-350m
    "llama",
    "phi",
    "mistral",
    "gemma2",
    "granite",
    "gpt_oss",
    "mamba",  # another cache
)
"""What makes each of them special: attention, positions, scaling, caches, widths."""
NO_SDPA = {"openai-gpt", "gptj", "codegen", "gpt_neo", "bloom", "mpt", "xglm", "gemma2", "gpt_oss"}
NO_SDPA |= {"mamba"}
NO_CLASSIFIER = {"codegen", "granite", "mamba", "xglm"}
OWN = {"template": get_template("plain"), "parent": None, "config": {}, "metrics": {}}
LENGTHS = (9, 3, 5)


def build(name, tokenizer, load=load_policy, **options):
    """Wide weights, so that a mistake shows."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = load(None, {"model_type": name, **FAMILIES[name]}, Network(), tokenizer, **options)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.3)
    return model.eval()


@pytest.fixture(scope="module")
def exported(tiny_tokenizer, tmp_path_factory):
    """Folder of a policy by the name of its family, made when it is asked for."""
    made = {}

    def export(name):
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name) / "export"
            save_policy(build(name, tiny_tokenizer), tiny_tokenizer, made[name], stage="sft", **OWN)
        return str(made[name])

    return export


def prompts():
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(2, 280, (length,), generator=generator) for length in LENGTHS]


def padded(rows, left):
    """Tokens and mask; the filler is EOS, which must not matter."""
    width = max(map(len, rows)) + 2
    sides = [(width - len(row), 0) if left else (0, width - len(row)) for row in rows]
    tokens = torch.stack([pad(row, side) for row, side in zip(rows, sides, strict=True)])
    mask = [pad(torch.ones_like(row), side) for row, side in zip(rows, sides, strict=True)]
    return tokens, torch.stack(mask).bool()


@pytest.mark.filterwarnings("ignore:openai-gpt keeps no cache", "ignore:.* is decoded in padded")
@pytest.mark.parametrize("name", NAMES)
def test_left_padded_sampling_equals_unpadded_greedy_of_transformers(
    exported, tiny_tokenizer, name
):
    theirs = AutoModelForCausalLM.from_pretrained(exported(name)).eval()
    theirs.generation_config = GenerationConfig(do_sample=False, max_new_tokens=8, pad_token_id=1)
    expected = [theirs.generate(row[None])[0, len(row) :].tolist() for row in prompts()]
    ours = load_policy(exported(name), None, Network(), tiny_tokenizer).eval()
    tokens, mask = padded(prompts(), left=True)
    batch = PromptBatch(tokens, mask, torch.arange(3), [Prompt("", [], "", {})] * 3)
    got = sample(ours, batch, 8, [], Sampling(temperature=0.0), seed=0)
    assert got.responses.tolist() == expected
    assert len({tuple(row) for row in expected}) == 3


@pytest.mark.parametrize("name", NAMES)
def test_logits_of_padded_rows_are_those_of_transformers(exported, tiny_tokenizer, name):
    """In training mode too: a PPO update must see what the rollout saw."""
    theirs = AutoModelForCausalLM.from_pretrained(exported(name)).eval()
    ours = without_dropout(load_policy(exported(name), None, Network(), tiny_tokenizer))
    assert ours.training
    for left in (True, False):
        tokens, mask = padded(prompts(), left)
        logits = run(ours, tokens, mask).logits
        for i, row in enumerate(prompts()):
            torch.testing.assert_close(
                logits[i][mask[i]], theirs(row[None]).logits[0], rtol=0, atol=2e-5
            )
    logits[mask].square().mean().backward()
    assert all(p.grad is not None for p in ours.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_reward_model_of_every_family(exported, tiny_tokenizer, tmp_path, name):
    """The head has the width of what it reads, and the export is a classifier or says that not."""
    model = load_scalar(exported(name), None, Network(), tiny_tokenizer, head="new").eval()
    tokens, mask = padded(prompts(), left=False)
    model.score(flat(tokens, mask)).sum().backward()
    assert model.head.weight.grad.abs().sum() > 0
    expected = model.score(flat(tokens, mask))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        save_scalar(model, tiny_tokenizer, tmp_path / "rm", stage="reward", **OWN)
    told = [str(w.message) for w in caught if "sequence classifier" in str(w.message)]
    artefact = read_artefact(tmp_path / "rm")
    if name in NO_CLASSIFIER:
        assert told == [
            f"transformers has no sequence classifier for '{name}': "
            "AutoModelForSequenceClassification cannot read the export, "
            "whose head is in head.safetensors"
        ]
        assert artefact.head == "head.safetensors"
    else:
        assert (told, artefact.head) == ([], "score")
        theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path / "rm").eval()
        scores = torch.cat([theirs(row[None]).logits[0] for row in prompts()])
        torch.testing.assert_close(scores, expected, rtol=0, atol=1e-5)
    loaded = load_scalar(
        str(tmp_path / "rm"), None, Network(), tiny_tokenizer, head="stored"
    ).eval()
    for left in (True, False):
        scores = loaded.score(flat(*padded(prompts(), left)))
        torch.testing.assert_close(scores, expected, rtol=0, atol=1e-5)


def test_heads_are_as_wide_as_the_hidden_states(tiny_tokenizer):
    """OPT-350m projects 1024 dimensions to the 512 of its embeddings; here 16 to 8."""
    policy = build("opt", tiny_tokenizer)
    tokens, mask = padded(prompts(), left=True)
    hidden = run(policy, tokens, mask, hidden=True).hidden
    assert hidden.shape[-1] == hidden_width(policy.config) == 8
    scalar = build("opt", tiny_tokenizer, load_scalar, head="new")
    assert scalar.head.in_features == 8
    assert policy.config.hidden_size == 16


def test_width_of_a_model_with_parts(tiny_tokenizer, tmp_path):
    """Gemma 3 keeps the sizes of its language model in ``text_config``."""
    vision = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    vision |= {"num_attention_heads": 2, "image_size": 28, "patch_size": 14}
    from transformers import Gemma3Config

    text = {**GROUPED, "head_dim": 4, "vocab_size": 290, "pad_token_id": 0}
    config = Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "hub")
    model = load_scalar(str(tmp_path / "hub"), None, Network(), tiny_tokenizer, head="new").eval()
    assert model.head.in_features == 16
    expected = model.score(flat(*padded(prompts(), left=True)))
    save_scalar(model, tiny_tokenizer, tmp_path / "rm", stage="reward", **OWN)
    assert read_artefact(tmp_path / "rm").head == "score"
    theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path / "rm").eval()
    rows = [pad(row, (0, 9 - len(row)), value=tiny_tokenizer.pad_token_id) for row in prompts()]
    scores = theirs(torch.stack(rows)).logits[:, 0]
    torch.testing.assert_close(scores, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["gpt2", *sorted(NO_SDPA)])
def test_attention_falls_back_and_the_artefact_remembers(exported, tiny_tokenizer, tmp_path, name):
    architecture = {"model_type": name, **FAMILIES[name]}
    for asked in (None, "sdpa"):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model = load_policy(None, architecture, Network(attention=asked), tiny_tokenizer)
        told = [str(w.message) for w in caught if "attention" in str(w.message)]
        expected = [f"{name} has no sdpa attention: eager is used"] if name in NO_SDPA else []
        assert told == expected
        assert model.config._attn_implementation == ("eager" if name in NO_SDPA else "sdpa")
    assert read_artefact(exported(name)).attention == model.config._attn_implementation
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_policy(exported(name), None, Network(), tiny_tokenizer)
        load_scalar(exported(name), None, Network(), tiny_tokenizer, head="new")


def test_chosen_attention_is_remembered_and_can_be_overruled(
    make_architecture, tiny_tokenizer, tmp_path
):
    def used(source, architecture=None, **network):
        model = load_policy(source, architecture, Network(**network), tiny_tokenizer)
        return model, model.config._attn_implementation

    model, attention = used(None, make_architecture("llama"), attention="eager")
    assert attention == "eager"
    path = str(tmp_path / "export")
    save_policy(model, tiny_tokenizer, path, stage="sft", **OWN)
    assert used(path)[1] == "eager"
    assert used(path, attention="sdpa")[1] == "sdpa"
    scalar = load_scalar(path, None, Network(), tiny_tokenizer, head="new")
    assert scalar.config._attn_implementation == "eager"
    save_scalar(scalar, tiny_tokenizer, tmp_path / "rm", stage="reward", **OWN)
    stored = load_scalar(str(tmp_path / "rm"), None, Network(), tiny_tokenizer, head="stored")
    assert stored.config._attn_implementation == "eager"


def test_attention_that_is_no_choice_here(make_architecture, tiny_tokenizer, tmp_path):
    model = load_policy(None, make_architecture("llama"), Network(), tiny_tokenizer)
    model.config._attn_implementation = "flash_attention_2"
    save_policy(model, tiny_tokenizer, tmp_path / "a", stage="sft", **OWN)
    with pytest.warns(UserWarning, match="attention flash_attention_2, which .* sdpa is used"):
        loaded = load_policy(str(tmp_path / "a"), None, Network(), tiny_tokenizer)
    assert loaded.config._attn_implementation == "sdpa"


DROPOUT = {
    "opt": True,
    "xglm": True,
    "mpt": False,
    "gpt_neo": True,
    "falcon": True,
    "gemma2": False,
}


@pytest.mark.parametrize("name", DROPOUT)
def test_dropout_of_every_family(tiny_tokenizer, name):
    """0 switches all of it off, whatever the configuration says; 0.5 is residual dropout."""
    tokens, mask = padded(prompts(), left=True)

    def varies(dropout):
        torch.manual_seed(0)
        architecture = {"model_type": name, **FAMILIES[name]}
        if name in {"opt", "xglm"}:
            architecture["layerdrop"] = 0.5
        model = load_policy(None, architecture, Network(), tiny_tokenizer, dropout)
        return len({run(model, tokens, mask).logits.sum().item() for _ in range(6)}) > 1

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert not varies(0.0)
        assert varies(0.5) is DROPOUT[name]


REFUSED = {
    "bert": "is an encoder, which sees",
    "roberta": "is an encoder, which sees",
    "distilbert": "is an encoder, which sees",
    "bart": "is an encoder with a decoder",
    "t5": "is an encoder with a decoder",
    "whisper": "is an encoder with a decoder",
    "clip": "is no causal language model",
    "vit": "is no causal language model",
    "rwkv": "lets its recurrence read padding",
    "xlnet": "sees what comes after a token",
    "phimoe": "draws its experts by chance",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_language_model_is_refused(tiny_tokenizer, tmp_path, name):
    message = f"must be a model that reads text from left to right, '{name}' {REFUSED[name]}"
    with pytest.raises(UserError, match=f"^architecture: {message}") as error:
        load_policy(None, {"model_type": name}, Network(), tiny_tokenizer)
    assert "\n" not in str(error.value)
    (tmp_path / "config.json").write_text(f'{{"model_type": "{name}"}}')
    for load in (
        lambda path: load_policy(path, None, Network(), tiny_tokenizer),
        lambda path: load_scalar(path, None, Network(), tiny_tokenizer, head="new"),
        lambda path: load_scalar(path, None, Network(), tiny_tokenizer, head="stored"),
    ):
        with pytest.raises(UserError, match=f"config.json: {message}"):
            load(str(tmp_path))


def test_models_with_parts_are_not_started_from_scratch(tiny_tokenizer):
    with pytest.raises(UserError, match=r"^architecture: 'gemma3' reads more than text"):
        load_policy(None, {"model_type": "gemma3"}, Network(), tiny_tokenizer)


def test_one_line_says_that_nothing_is_cached(exported, tiny_tokenizer):
    model = load_policy(exported("openai-gpt"), None, Network(), tiny_tokenizer).eval()
    tokens, mask = padded(prompts(), left=True)
    batch = PromptBatch(tokens, mask, torch.arange(3), [Prompt("", [], "", {})] * 3)
    with pytest.warns(UserWarning, match="^openai-gpt keeps no cache"):
        sample(model, batch, 2, [], Sampling(), seed=0)
