"""Tokenizers: training is deterministic, nothing is lost, and two are told apart."""

import copy
import json

import pytest
from tokenizers import AddedToken
from tokenizers.processors import ByteLevel, TemplateProcessing
from transformers import AutoTokenizer

from instructgpt.models.tokenizer import (
    BPE,
    eos_id,
    load_tokenizer,
    pad_id,
    tokenizer_fingerprint,
    train_bpe,
)
from instructgpt.types import UserError

TEXTS = ["the cat sat on the mat", "the dog sat on the log", "a cat and a dog and the rest"] * 3


def test_training_is_deterministic():
    states = {train_bpe(TEXTS, BPE(vocab_size=300)).backend_tokenizer.to_str() for _ in range(4)}
    assert len(states) == 1


def test_size_and_special_tokens():
    tokenizer = train_bpe(TEXTS, BPE(vocab_size=270))
    assert len(tokenizer) == 270
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (0, 1)
    assert tokenizer.bos_token_id == 0
    assert tokenizer("the")["input_ids"][0] != 0  # BOS is known but not put in front


def test_every_text_survives():
    tokenizer = train_bpe(TEXTS, BPE(vocab_size=270))
    text = "  Zürich\t\n\n“1234” don't 🙂 e\u0301"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_padding_is_eos_without_a_second_special_token():
    tokenizer = train_bpe(TEXTS, BPE(vocab_size=260, special_tokens=["</s>"]))
    assert tokenizer.pad_token_id is None
    assert pad_id(tokenizer) == eos_id(tokenizer) == 0


def test_save_and_load(tmp_path, tiny_tokenizer):
    tiny_tokenizer.save_pretrained(tmp_path)
    for loaded in (load_tokenizer(str(tmp_path)), AutoTokenizer.from_pretrained(tmp_path)):
        assert tokenizer_fingerprint(loaded) == tokenizer_fingerprint(tiny_tokenizer)
        assert loaded("Say hello")["input_ids"] == tiny_tokenizer("Say hello")["input_ids"]
        assert (loaded.eos_token, loaded.pad_token) == ("<|endoftext|>", "<|pad|>")


def test_fingerprint_ignores_padding_only(tiny_tokenizer, eos_padded_tokenizer):
    own = tokenizer_fingerprint(eos_padded_tokenizer)
    padded = copy.deepcopy(eos_padded_tokenizer)
    padded.add_special_tokens({"pad_token": "<|pad|>"})
    assert len(padded) == len(eos_padded_tokenizer) + 1
    assert tokenizer_fingerprint(padded) == own
    more = copy.deepcopy(eos_padded_tokenizer)
    more.add_tokens(["<|im_end|>"])
    other_end = copy.deepcopy(tiny_tokenizer)
    other_end.eos_token = "<|pad|>"
    others = [more, tiny_tokenizer, other_end, train_bpe(TEXTS, BPE(vocab_size=290))]
    prints = {tokenizer_fingerprint(other) for other in others}
    assert own not in prints
    assert len(prints) == len(others)


def test_fingerprint_knows_what_is_put_in_front(tiny_tokenizer):
    started = copy.deepcopy(tiny_tokenizer)
    started.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)]
    )
    assert started("a")["input_ids"][0] == 0
    assert tokenizer_fingerprint(started) != tokenizer_fingerprint(tiny_tokenizer)
    idle = copy.deepcopy(tiny_tokenizer)
    idle.backend_tokenizer.post_processor = ByteLevel()  # puts nothing anywhere
    assert tokenizer_fingerprint(idle) == tokenizer_fingerprint(tiny_tokenizer)


@pytest.mark.parametrize("flag", ["lstrip", "rstrip", "single_word", "normalized", "special"])
def test_fingerprint_knows_how_added_tokens_are_found(tiny_tokenizer, flag):
    prints = set()
    for value in (False, True):
        tokenizer = copy.deepcopy(tiny_tokenizer)
        tokenizer.add_tokens([AddedToken("<x>", **{"normalized": False, flag: value})])
        prints.add(tokenizer_fingerprint(tokenizer))
    assert len(prints) == 2


def test_tokenizer_with_code_of_its_own(tmp_path):
    facts = {"tokenizer_class": "Foo", "auto_map": {"AutoTokenizer": ["foo.Foo", None]}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(facts))
    with pytest.raises(UserError, match=r"^tokenizer: that of '.*' comes with code of its own"):
        load_tokenizer(str(tmp_path))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"vocab_size": 257}, "vocab_size must be >= 258, .*, got 257"),
        ({"special_tokens": []}, "special_tokens must be one or more"),
        ({"special_tokens": ["a", "a"]}, "special_tokens must be one or more"),
        ({"special_tokens": ["a", ""]}, "special_tokens must be one or more"),
    ],
)
def test_wrong_specifications(spec, message):
    with pytest.raises(UserError, match=message):
        BPE(**spec)


def test_missing_eos(tiny_tokenizer):
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.eos_token = None
    with pytest.raises(UserError, match="must have an EOS token"):
        eos_id(tokenizer)


def test_missing_tokenizer(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"tokenizer: must be .*, no such folder: '/nowhere/x'"):
        load_tokenizer("/nowhere/x")
    with pytest.raises(UserError, match="tokenizer: cannot load that of") as error:
        load_tokenizer(str(tmp_path / "empty"))
    assert "\n" not in str(error.value)
