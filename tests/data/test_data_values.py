"""Values of any type in any column: read as what JSON can hold, or refused by line and key."""

import datetime
import decimal
import json
import math

import pyarrow
import pytest
from pyarrow import parquet

from instructgpt.data.demonstrations import DemonstrationDataModule
from instructgpt.data.files import read_file
from instructgpt.types import UserError

DAY = datetime.date(2024, 2, 29)
TIME = datetime.datetime(2024, 2, 29, 12, 30, tzinfo=datetime.UTC)
TURNS = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]


def read(path, told=None):
    return [item.value for item in read_file(path, (told if told is not None else []).append)]


def refused(path):
    """What the only row is refused for."""
    (value,) = read(path)
    assert isinstance(value, UserError)
    assert "\n" not in str(value)
    return str(value).removeprefix(f"{path}:")


def write_parquet(path, columns):
    parquet.write_table(pyarrow.table(columns), path)
    return path


# -- values


def test_values_that_json_lacks_become_text(tmp_path):
    columns = {
        "prompt": ["a"],
        "day": [DAY],
        "time": [TIME],
        "lasted": [datetime.timedelta(hours=1)],
        "price": [decimal.Decimal("0.10")],
        "raw": [b"caf\xc3\xa9"],
        "deep": [{"list": [DAY, None]}],
        "nothing": [math.nan],
        "large": pyarrow.array([2**64 - 1], pyarrow.uint64()),
    }
    (row,) = read(write_parquet(tmp_path / "a.parquet", columns))
    assert row == {
        "prompt": "a",
        "day": "2024-02-29",
        "time": "2024-02-29T12:30:00+00:00",
        "lasted": "1:00:00",
        "price": "0.10",
        "raw": "café",
        "deep": {"list": ["2024-02-29", None]},
        "nothing": None,
        "large": 2**64 - 1,
    }
    json.dumps(row, allow_nan=False)


def test_a_column_of_other_bytes_is_left_out_by_name_once(tmp_path):
    columns = {"prompt": ["a", "b"], "picture": [{"bytes": b"\x89PNG", "path": None}] * 2}
    path, told = write_parquet(tmp_path / "a.parquet", columns), []
    assert read(path, told) == [{"prompt": "a"}, {"prompt": "b"}]
    assert told == [
        f'{path}: column "picture" is left out: bytes that are not UTF-8 (first: {path}:1)'
    ]


@pytest.mark.parametrize("key", ["prompt", "image", "label"])
def test_a_column_that_matters_is_not_left_out(tmp_path, key):
    path = write_parquet(tmp_path / "a.parquet", {key: [b"\x89PNG"]})
    assert refused(path) == (
        f'1: "{key}" must be what JSON can hold (remove or rename the column), not bytes that are '
        "not UTF-8, got b'\\x89PNG'"
    )


def test_invalid_utf8_and_impossible_dates_in_parquet_are_bad_rows(tmp_path):
    text = pyarrow.array([b"good", b"caf\xe9", b"good"]).view(pyarrow.string())
    day = pyarrow.array([0, 0, 2**40]).view(pyarrow.timestamp("s"))
    path = write_parquet(tmp_path / "a.parquet", {"id": ["x"] * 3, "prompt": text, "day": day})
    first, second, third = read(path)
    assert first == {"id": "x", "prompt": "good", "day": "1970-01-01T00:00:00"}
    assert str(second) == f"{path}:2: \"prompt\" must be UTF-8, got b'\\xe9'"
    assert str(third).startswith(f"{path}:3: \"day\" must be readable, got a 'timestamp[ms]': ")


def test_columns_of_one_name_in_parquet(tmp_path):
    table = pyarrow.table([["a"], ["b"]], names=["prompt", "prompt"])
    parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(UserError, match="column names must differ, got 'prompt' twice"):
        read(tmp_path / "a.parquet")


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"user": "\\ud83d"}', '"user" must be valid Unicode (half a surrogate pair, or bytes'),
        ('{"a": [{"b": "\\udc00"}]}', '"a[0].b" must be valid Unicode'),
        ('{"\\ud83d": 1}', '"a key" must be valid Unicode'),
        ('{"a": {"\\ud83d": 1}}', '"a" must be valid Unicode'),
        ('{"m": ' + "[" * 800 + "]" * 800 + "}", '"m" must be nested at most 100 deep'),
        ("[" * 300 + "]" * 300, "must be nested at most 100 deep"),
        ('{"m": ' + "[" * 9000 + "]" * 9000 + "}", "malformed JSON: nested too deeply"),
        ('{"m": ' + "9" * 9000 + "}", "malformed JSON: Exceeds the limit (4300 digits)"),
        ('{"a": 1, "a": 2}', "'a' must be there once, got it twice in one object"),
        ('{"a": 1, "a": 1}', "'a' must be there once"),
        ('{"m": [{"role": 1, "role": 2}]}', '"m[0].role" must be there once'),
    ],
)
def test_rows_that_are_refused_alone(write, name, row, message):
    """The rows around them are read."""
    rows = ['{"prompt": "a"}', row, '{"prompt": "b"}']
    path = write(name, "\n".join(rows) if name == "a.jsonl" else f"[{','.join(rows)}]")
    first, second, third = read_file(path)
    assert (first.value, third.value) == ({"prompt": "a"}, {"prompt": "b"})
    assert str(second.value).startswith(f"{second.where}: {message}")


def test_bytes_that_are_not_utf8_spoil_their_row_only(write):
    table = b"prompt,n\na,1\ncaf\xe9,2\nb,3\n"
    first, second, third = read(write("a.csv", table))
    assert (first["prompt"], third["prompt"]) == ("a", "b")
    assert '"prompt" must be valid Unicode' in str(second)
    first, second = read(write("a.json", b'[{"prompt": "caf\xe9"}, {"prompt": "b"}]'))
    assert '"prompt" must be valid Unicode' in str(first)
    assert second == {"prompt": "b"}


# -- lists that are written as texts


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.parquet"])
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("messages", TURNS),
        ("conversations", [{"from": "human", "value": "hi"}]),
        ("responses", ["x", "y"]),
        ("ranking", [1, 2]),
        ("ratings", [0.5, 2]),
        ("prompt", TURNS[:1]),
        ("chosen", TURNS),
        ("completion", TURNS[1:]),
        ("chosen", TURNS[1]),
    ],
)
def test_a_list_that_is_written_as_text_is_a_list(write, tmp_path, name, key, value):
    text = json.dumps(value)
    if name == "a.parquet":
        path = write_parquet(tmp_path / name, {key: [text]})
    elif name == "a.csv":
        path = write(name, f'{key},n\n"{text.replace(chr(34), chr(34) * 2)}",1\n')
    else:
        path = write(name, json.dumps([{key: text}] if name == "a.json" else {key: text}))
    assert read(path)[0][key] == value


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("response", json.dumps(TURNS)),
        ("response", "[1, 2]"),
        ("text", json.dumps(TURNS)),
        ("prompt", "[1, 2]"),
        ("prompt", "[]"),
        ("prompt", '{"a": 1, "a": 2}'),
        ("prompt", '[{"role": "user"}]'),
        ("prompt", "Parse " + json.dumps(TURNS)),
        ("chosen", '{"role": "user"}'),
        ("response", '{"role": "user", "content": "x"}'),
        ("id", "[1]"),
        ("other", json.dumps(TURNS)),
    ],
)
def test_a_text_that_is_json_stays_text(write, key, value):
    assert read(write("a.jsonl", [{key: value}])) == [{key: value}]


@pytest.mark.parametrize("key", ["messages", "prompt", "chosen"])
def test_turns_in_the_notation_of_python_are_refused(write, key):
    for turns in (TURNS, TURNS[0], [{"id": 1, **TURNS[0]}]):
        path = write("a.jsonl", [{key: str(turns)}])
        assert refused(path).startswith(
            f'1: "{key}" must be a text or JSON, not Python\'s notation'
        )


def test_a_text_in_braces_that_is_no_turn_stays_text(write):
    for text in ("{'a': 1}", "{'role': 'admin'}", "[{'from': 'A', 'to': 'B'}]"):
        assert read(write("a.jsonl", [{"prompt": text}])) == [{"prompt": text}]


def test_keys_that_are_there_twice_in_a_list_that_is_written_as_text(write):
    path = write("a.jsonl", [{"messages": '[{"role": "user", "content": "a", "content": "b"}]'}])
    assert refused(path).startswith('1: "messages[0].content" must be there once')


# -- through a data module


@pytest.mark.parametrize(
    ("bad", "key"),
    [
        ({"prompt": "a", "response": "b", "user": "\ud83d"}, '"user"'),
        ({"prompt": "a", "response": "b", "meta": "?"}, '"meta"'),
        ({"prompt": "a", "responses": ["b", "c"], "ranking": [1, 2**70]}, '"ranking[1]"'),
        ({"prompt": "a", "responses": ["b", "c"], "ranking": [1, 1e999]}, '"ranking[1]"'),
    ],
)
def test_a_bad_value_is_one_line_before_training_or_skipped(write, tokenizer_folder, bad, key):
    from instructgpt.data.comparisons import ComparisonDataModule

    ranked = "ranking" in bad
    good = {"prompt": "x", "responses": ["y", "z"], "ranking": [1, 2]}
    rows = [good if ranked else {"prompt": f"x {i}", "response": "y"} for i in range(8)]
    deep = "[" * 800 + "]" * 800
    path = write("a.jsonl", [*rows, bad])
    path.write_text(path.read_text().replace('"?"', deep))
    module = ComparisonDataModule if ranked else DemonstrationDataModule
    options = {"tokenizer": tokenizer_folder, "validation": None}
    with pytest.raises(UserError) as error:
        module(train=str(path), **options).setup("fit")
    assert str(error.value).startswith(f"{path}:9: {key} must ")
    assert "\n" not in str(error.value)
    data = module(train=str(path), **options, on_error="skip")
    data.setup("fit")
    assert len(data.train_rows) == 8


def test_ratings_of_any_size(write, tokenizer_folder):
    from instructgpt.data.comparisons import ComparisonDataModule

    row = {"prompt": "x", "responses": ["y", "z"], "ratings": [1, 10**400]}
    path = str(write("a.jsonl", [row]))
    data = ComparisonDataModule(train=path, tokenizer=tokenizer_folder, validation=None)
    data.setup("fit")
    assert data.train_rows[0].ranking == (2, 1)
