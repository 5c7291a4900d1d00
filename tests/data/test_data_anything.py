"""Files of any rows as data modules and verbs read them: rows that were accepted can be used."""

import json

import pytest
from containers import write_container
from hypothesis import given, settings
from hypothesis import strategies as st
from odd_rows import any_values, changed_rows
from row_checks import check_line

from instructgpt.callbacks.common import json_lines
from instructgpt.data.comparisons import ComparisonDataModule
from instructgpt.data.demonstrations import DemonstrationDataModule
from instructgpt.data.files import read_file
from instructgpt.data.formats import parse_item
from instructgpt.data.prompts import PromptDataModule
from instructgpt.data.text import TextDataModule
from instructgpt.evaluation.answers import read_answers
from instructgpt.models.template import get_template
from instructgpt.types import UserError

NAMES = ("a.jsonl", "a.json", "a.csv", "a.tsv", "a.parquet")
LIMIT = 64


def rectangle(rows):
    """The rows with the same columns, as tables have them."""
    keys = dict.fromkeys(key for row in rows for key in row)
    return [{key: row.get(key) for key in keys} for row in rows]


def prepared(module, path, tokenizer, **options):
    """A data module that has read a file; None where that is refused in one line."""
    common = {"train": str(path), "tokenizer": tokenizer, "template": "instruction", **options}
    if module is not TextDataModule:
        common["max_prompt_tokens"] = common["max_response_tokens"] = LIMIT
    data = module(**common)
    try:
        data.setup("fit")
    except UserError as error:
        check_line(error, "")
        return None
    return data


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=4)
@given(
    rows=st.lists(changed_rows(any_values), min_size=10, max_size=10),
    module=st.sampled_from([ComparisonDataModule, PromptDataModule, TextDataModule]),
    on_error=st.sampled_from(["skip", "stop"]),
)
def test_any_rows_in_a_file(tmp_path_factory, tokenizer_folder, name, rows, module, on_error):
    rows = rows if ".json" in name else rectangle(rows)
    path = write_container(tmp_path_factory.mktemp("files"), name, rows)
    data = prepared(module, path, tokenizer_folder, validation=0.2, on_error=on_error)
    if data is not None:
        json_lines(one.prompt.meta for one in data.prompt_rows).encode()
        loaders = [data.val_dataloader(), data.prompt_dataloader()]
        if module is not PromptDataModule:
            loaders.append(data.train_dataloader())
        assert all(batch for loader in loaders for batch in loader)
    try:
        json_lines(one.prompt.meta for one in read_answers(str(path))).encode()
    except UserError as error:
        check_line(error, "")


def encoded(row, tokenizer, template):
    """Tokens of a demonstration by the template alone."""
    prompt = template.encode_prompt(tokenizer, row.prompt)
    prompt = template.shorten_prompt(tokenizer, row.prompt, prompt, LIMIT)
    return prompt + template.encode_response(tokenizer, row.responses[0])[:LIMIT]


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=4)
@given(rows=st.lists(changed_rows(), min_size=10, max_size=10))
def test_stored_rows_are_the_rows_encoded(
    tmp_path_factory, tiny_tokenizer, tokenizer_folder, name, rows
):
    rows = rows if ".json" in name else rectangle(rows)
    path = write_container(tmp_path_factory.mktemp("files"), name, rows)
    expected = []
    try:
        for item in read_file(path, lambda line: None):
            try:
                parsed = parse_item(item, "demonstration")
            except UserError:
                continue
            kept = [one.row for one in parsed if not one.row.told.left_out]
            expected += [encoded(row, tiny_tokenizer, get_template("instruction")) for row in kept]
    except UserError as error:  # the file as a whole
        check_line(error, str(path))
    options = {"validation": None, "on_error": "skip"}
    data = prepared(DemonstrationDataModule, path, tokenizer_folder, **options)
    stored = [] if data is None else [row.tokens.tolist() for row in data.train_rows]
    assert stored == expected or (data is None and not expected)
    if data is not None:
        counted = json.dumps(data.summary)
        assert str(len(expected)) in counted
