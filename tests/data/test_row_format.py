"""Rows of a user's own kind go through ``RowFormat.convert``, and then the way of all rows."""

import re

import pytest

from instructgpt.data.comparisons import ComparisonDataModule
from instructgpt.data.demonstrations import DemonstrationDataModule
from instructgpt.data.prompts import PromptDataModule
from instructgpt.data.row_format import RowFormat
from instructgpt.data.text import TextDataModule
from instructgpt.types import UserError

OWN = [
    {"frage": f"frage {i}", "gut": f"gut {i}", "schlecht": f"schlecht {i}"} for i in range(12)
]  # fmt: skip
PUBLIC = {
    DemonstrationDataModule: lambda row: {"prompt": row["frage"], "response": row["gut"]},
    ComparisonDataModule: lambda row: {
        "prompt": row["frage"],
        "responses": [row["gut"], row["schlecht"]],
        "ranking": [1, 2],
    },
    PromptDataModule: lambda row: {"prompt": row["frage"]},
    TextDataModule: lambda row: {"text": f"{row['frage']} {row['gut']}"},
}


class German(RowFormat):
    """Rows of ``frage``, ``gut`` and ``schlecht``."""

    def __init__(self, kind: type = DemonstrationDataModule) -> None:
        self.kind = kind

    def convert(self, row):
        return PUBLIC[self.kind](row)


class Wrong(RowFormat):
    """Does what it is told to."""

    def __init__(self, result) -> None:
        self.result = result

    def convert(self, row):
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


def made(kind, train, tokenizer, **options):
    data = kind(train=str(train), tokenizer=tokenizer, **options)
    data.setup("fit")
    return data


@pytest.mark.parametrize("kind", PUBLIC, ids=lambda kind: kind.__name__)
def test_every_data_module_sees_the_rows_as_if_they_were_public(kind, write, tokenizer_folder):
    own = made(kind, write("own.jsonl", OWN), tokenizer_folder, format=German(kind))
    rows = [PUBLIC[kind](row) for row in OWN]
    public = made(kind, write("public.jsonl", rows), tokenizer_folder)
    assert {name: origin.digest for name, origin in own.origins.items()} == {
        name: origin.digest for name, origin in public.origins.items()
    }  # which is what a resume compares
    assert len(own.train_rows) == len(public.train_rows) > 0
    assert len(own.validation_rows) == len(public.validation_rows)
    assert any("German, " in line for line in own.summary)


def test_files_to_validate_on_have_the_format_too(write, tokenizer_folder):
    train, held = write("train.jsonl", OWN[:8]), write("held.jsonl", OWN[8:])
    data = made(
        DemonstrationDataModule, train, tokenizer_folder, validation=str(held), format=German()
    )
    assert (len(data.train_rows), len(data.validation_rows)) == (8, 4)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (UserError("no such thing"), "own.jsonl:1: no such thing (--data.format Wrong)"),
        (KeyError("frage"), "own.jsonl:1: --data.format Wrong failed: KeyError: 'frage' (at "),
        (None, "own.jsonl:1: --data.format Wrong must return a row, got None"),
        (["a"], "own.jsonl:1: --data.format Wrong must return a row, got ['a']"),
        (
            {"prompt": "a"},
            "own.jsonl:1: \"response\" is missing, got the keys ['prompt'] "
            "(in the row that --data.format Wrong returned)",
        ),
        (
            {"prompt": "a", "response": 3},
            'own.jsonl:1: "response" must be a string, got 3 '
            "(in the row that --data.format Wrong returned)",
        ),
    ],
)
def test_a_bad_row_is_one_line_with_its_place(result, message, write, tokenizer_folder):
    path = write("own.jsonl", OWN)
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        made(DemonstrationDataModule, path, tokenizer_folder, format=Wrong(result))
    assert "\n" not in str(caught.value)


def test_bad_rows_are_skipped_and_counted_on_request(write, tokenizer_folder):
    path = write("own.jsonl", [*OWN, {"frage": "only"}])
    data = made(DemonstrationDataModule, path, tokenizer_folder, format=German(), on_error="skip")
    assert len(data.train_rows) + len(data.validation_rows) == 12
    assert any("own.jsonl:13: --data.format German failed" in line for line in data.summary)


def test_what_is_no_object_never_reaches_it(write, tokenizer_folder):
    path = write("own.jsonl", '"a text"\n')
    with pytest.raises(UserError, match="a row must be an object, got 'a text'"):
        made(DemonstrationDataModule, path, tokenizer_folder, format=German())
