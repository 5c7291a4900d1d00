"""The command line can give every argument."""

import pytest
from jsonargparse import ArgumentParser

from instructgpt.data.base import StageData
from instructgpt.data.comparisons import ComparisonDataModule
from instructgpt.data.demonstrations import DemonstrationDataModule
from instructgpt.data.prompts import PromptDataModule
from instructgpt.data.text import TextDataModule
from instructgpt.models.tokenizer import BPE

MODULES = (TextDataModule, DemonstrationDataModule, ComparisonDataModule, PromptDataModule)


def parsed(*arguments, cls="DemonstrationDataModule"):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(StageData, "data")
    return parser.instantiate(parser.parse_args([f"--data={cls}", *arguments])).data


@pytest.mark.parametrize(
    ("given", "train"),
    [
        ("a.jsonl", "a.jsonl"),
        ("[a.jsonl, b]", ["a.jsonl", "b"]),
        ("{a.jsonl: 1.0, b: 0.5}", {"a.jsonl": 1.0, "b": 0.5}),
        ("{a: 2}", {"a": 2.0}),
    ],
)
def test_train(given, train):
    assert parsed("--data.train", given).train_names == train


@pytest.mark.parametrize(
    ("given", "validation"),
    [("0.1", 0.1), ("null", None), ("v.jsonl", "v.jsonl"), ("[v.jsonl]", ["v.jsonl"])],
)
def test_validation(given, validation):
    assert parsed("--data.train=a", "--data.validation", given).validation == validation


@pytest.mark.parametrize("cls", MODULES)
def test_every_argument_is_documented(cls, capsys):
    parser = ArgumentParser(prog="x")
    parser.add_class_arguments(cls, "data")
    for name in ("train", "validation", "on_error", "max_prompt_tokens", "max_response_tokens"):
        assert f"data.{name}" in {action.dest for action in parser._actions}
    for action in parser._actions:
        if action.dest.startswith("data."):
            assert action.help, action.dest
            assert "(type:" in action.help or len(action.help) > 20


def test_nested_tokenizer():
    data = parsed("--data.train=a", "--data.bpe.vocab_size=300", cls="TextDataModule")
    assert data.bpe == BPE(300)
    assert parsed("--data.train=a", cls="TextDataModule").bpe is None
