"""Values of any type in any column of any container: read, or refused in one line."""

import csv
import datetime
import decimal
import json
import random
import uuid

import pyarrow
import pytest
from pyarrow import parquet

from instructgpt.callbacks.common import json_lines
from instructgpt.data.comparisons import ComparisonDataModule
from instructgpt.data.demonstrations import DemonstrationDataModule
from instructgpt.data.files import read_file
from instructgpt.data.prompts import PromptDataModule
from instructgpt.data.text import TextDataModule
from instructgpt.evaluation.answers import read_answers
from instructgpt.terminal import printable
from instructgpt.types import UserError

TURNS = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]
SHAPES = [
    {"prompt": "hi", "response": "ho"},
    {"prompt": TURNS[:1], "completion": TURNS[1:]},
    {"prompt": "hi", "responses": ["a", "b"], "ranking": [1, 2], "labeler": "ann"},
    {"prompt": "hi", "responses": ["a", "b"], "ratings": [1.5, 2], "finished": [True, False]},
    {"prompt": "hi", "chosen": "a", "rejected": "b"},
    {"chosen": TURNS, "rejected": [TURNS[0], {"role": "assistant", "content": "no"}]},
    {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c"},
    {"instruction": "hi", "input": "x", "output": "ho"},
    {"messages": TURNS},
    {"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "ho"}]},
    {"text": "some words", "source": "here"},
    {"prompt": "hi", "response": "ho", "id": "1", "user": "me", "meta": {"a": 1}},
]
NAMES = [
    *sorted({key for shape in SHAPES for key in shape}),
    "other",
    "score",
    "label",
    "",
    "\x1b[31m",
]
TEXTS = ["", " ", "hi", "é🐖", "\x00\x1b[31m", "\ud83d", "\u2028", "a\nb", "[]", "[1, 2]", "null"]
TEXTS += [json.dumps(TURNS), str(TURNS), '{"a": 1, "a": 2}', '[{"role": "x", "role": "y"}]']
TEXTS += ["[" * 3000, "\n\nHuman: x", "x" * 3000, "<|endoftext|>", "{{ 1/0 }}", "1e999", "\ufeff"]
NUMBERS = [0, 1, -1, 2**31, 2**63, 2**70, -(2**80), 10**400, 0.5, 1e308, float("inf")]
NUMBERS += [float("nan"), True, False]
OTHERS = [datetime.date(1, 1, 1), datetime.datetime(9999, 12, 31, tzinfo=datetime.UTC)]
OTHERS += [datetime.time(1), datetime.timedelta(-5), decimal.Decimal("1.10"), b"ok", b"\xff\xfe"]
OTHERS += [decimal.Decimal("1e30"), uuid.UUID(int=5)]


def value(rng, depth=0):
    kind = rng.randrange(10)
    if kind < 3:
        return rng.choice(TEXTS)
    if kind < 5:
        return rng.choice(NUMBERS)
    if kind < 6:
        return rng.choice(OTHERS)
    if kind < 7 or depth > 3:
        return None
    if kind < 8 and not depth:
        nested = 1
        for _ in range(rng.choice([20, 99, 101, 800])):
            nested = [nested] if rng.random() < 0.5 else {"a": nested}
        return nested
    if kind < 9:
        return [value(rng, depth + 1) for _ in range(rng.randrange(4))]
    keys = ["role", "content", "from", "value", "\ud83d", "a"]
    return {rng.choice(keys): value(rng, depth + 1) for _ in range(rng.randrange(4))}


def row(rng):
    made = dict(rng.choice(SHAPES))
    for _ in range(rng.choice([0, 1, 1, 2])):
        made[rng.choice([*made, *NAMES])] = value(rng)
    return made


def write_json(path, rows, rng):
    lines = [json.dumps(one, default=str, ensure_ascii=True) for one in rows]
    lines = [  # keys that are there twice
        f'{{"prompt": 1, {line[1:]}' if rng.random() < 0.05 and line != "{}" else line
        for line in lines
    ]
    text = "\n".join(lines) if path.suffix == ".jsonl" else f"[{','.join(lines)}]"
    path.write_text(text)


def write_csv(path, rows):
    header = list(rows[0])
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        table = csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",")
        table.writerow(header)
        for one in rows:
            cells = [one.get(key) for key in header]
            cells = [c if isinstance(c, str) else json.dumps(c, default=str) for c in cells]
            # what is half a surrogate pair in Python is written as bytes that are not UTF-8
            table.writerow([cell.replace("\ud83d", "\udcff") for cell in cells])


def write_parquet(path, rows):
    """Column by column, as text where Arrow has no type for all values."""
    columns = {}
    for key in rows[0]:
        cells = [one.get(key) for one in rows]
        try:
            columns[key] = pyarrow.array(cells)
            parquet.write_table(pyarrow.table({key: columns[key]}), path)  # not all can be written
        except (pyarrow.ArrowException, OverflowError, ValueError, TypeError):
            raw = [
                json.dumps(c, default=str).encode() + b"\xff" * (i % 9 == 8)
                for i, c in enumerate(cells)
            ]
            columns[key] = pyarrow.array(raw).view(pyarrow.string())
    parquet.write_table(pyarrow.table(columns), path)


def check_line(error):
    """One line whatever it quotes, which nothing acts in once it is printed."""
    text = printable(error)
    assert text
    assert not set(text) & set("\x1b\x9b\x00\u2028")
    assert len(" ".join(text.split())) < 700


def check_file(path, modules, tokenizer):
    """Every row alone, then the file as data modules and verbs read it; rows that were accepted."""
    try:
        for item in read_file(path, lambda line: None):
            if isinstance(item.value, UserError):
                check_line(item.value)
            else:
                json.dumps(item.value, ensure_ascii=False).encode()
    except UserError as error:
        check_line(error)
    accepted = 0
    for module in modules:
        for on_error in ("skip", "stop"):
            options = {} if module is TextDataModule else {"max_prompt_tokens": 64}
            data = module(
                train=str(path), tokenizer=tokenizer, validation=0.2, on_error=on_error, **options
            )
            try:
                data.setup("fit")
            except UserError as error:
                check_line(error)
                continue
            accepted += len(data.train_rows) + len(data.validation_rows)
            json_lines(one.prompt.meta for one in data.prompt_rows).encode()
            loaders = [data.val_dataloader(), data.prompt_dataloader()]
            if module is not PromptDataModule:
                loaders.append(data.train_dataloader())
            assert all(batch for loader in loaders for batch in loader)
    try:
        json_lines(one.prompt.meta for one in read_answers(str(path))).encode()
    except UserError as error:
        check_line(error)
    return accepted


def trial(path, seed, tokenizer, count=25):
    """A file of random rows of one seed in one container."""
    rng = random.Random(f"{path.name} {seed}")
    shape = rng.choice(SHAPES)
    if path.suffix in (".jsonl", ".json"):
        write_json(path, [row(rng) for _ in range(count)], rng)
    else:  # tables: rows of one shape
        extra = rng.sample(NAMES, 2)
        rows = [dict(shape) | dict.fromkeys(extra) for _ in range(count)]
        for one in rows:
            if rng.random() < 0.5:
                one[rng.choice([*one])] = value(rng)
        (write_parquet if path.suffix == ".parquet" else write_csv)(path, rows)
    modules = [
        *(DemonstrationDataModule, ComparisonDataModule, PromptDataModule, TextDataModule),
    ]
    return check_file(path, rng.sample(modules, 2), tokenizer)


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".tsv", ".parquet"])
def test_any_value_in_any_column(tmp_path, tokenizer_folder, suffix):
    accepted = [trial(tmp_path / f"a{suffix}", seed, tokenizer_folder) for seed in range(6)]
    assert sum(accepted) > 0
