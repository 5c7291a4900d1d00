"""Rows of .json files, however they are nested, in bounded memory."""

import json
import random
import tracemalloc

import pandas
import pytest

from instructgpt.data.files import read_file
from instructgpt.data.opening import LINE_LIMIT
from instructgpt.types import UserError

ROWS = [{"prompt": "a", "n": 1}, {"prompt": "b é\n", "n": None}]
RULE = "a .json file must hold one list of objects, alone or in an object, or what pandas writes"


def read(path):
    """The rows of a file, and what was told of it."""
    told = []
    rows = [item.value for item in read_file(path, told.append)]
    return rows, [line.removeprefix(f"{path}: ") for line in told]


def refusal(path):
    with pytest.raises(UserError) as error:
        list(read_file(path, lambda line: None))
    return str(error.value).removeprefix(f"{path}:")


@pytest.mark.parametrize("name", ["a.json", "a.json.gz", "a.json.zst"])
@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize(
    ("orient", "told"),
    [
        ("records", []),
        ("columns", ["a table that is written column by column, as by pandas"]),
        ("index", ["the rows are called by numbers"]),
        ("split", ["the rows are the list \"data\"; not read: 'index'"]),
        ("table", ["the rows are the list \"data\"; not read: 'schema'"]),
    ],
)
def test_tables_of_pandas(write, name, indent, orient, told):
    text = pandas.DataFrame(ROWS).to_json(orient=orient, indent=indent)
    rows, lines = read(write(name, text))
    if orient == "table":
        assert [row.pop("index") for row in rows] == [0, 1]
    assert rows == ROWS
    assert lines == told


def test_tables_of_pandas_with_an_index_of_their_own(write):
    table = pandas.DataFrame(ROWS, index=["x", "y"])
    rows, lines = read(write("a.json", table.to_json(orient="columns")))
    assert (rows, len(lines)) == (ROWS, 1)
    rows, lines = read(write("a.json", table.to_json(orient="index")))
    assert (rows, lines) == (ROWS, ["the rows have names, which are not read"])
    odd = pandas.DataFrame([{"q": 1}], index=["x"])  # nobody can say which are the columns
    for orient in ("columns", "index"):
        assert refusal(write("a.json", odd.to_json(orient=orient))).startswith(f"1: {RULE}")


def test_one_object_a_line_under_another_name(write):
    text = pandas.DataFrame(ROWS).to_json(orient="records", lines=True)
    path = write("a.json", text)
    assert read(path) == (ROWS, ["one object a line, as in .jsonl"])
    assert [item.where for item in read_file(path)] == [f"{path}:1", f"{path}:2"]


@pytest.mark.parametrize("indent", [None, 1])
def test_a_list_in_an_object(write, indent):
    value = {"version": "1.1", "about": {"by": ["me"]}, "tags": ["x"], "rows": ROWS, "end": 1}
    rows, lines = read(write("a.json", json.dumps(value, indent=indent)))
    assert rows == ROWS
    assert lines == ["the rows are the list \"rows\"; not read: 'about', 'version', 'tags', 'end'"]


@pytest.mark.parametrize(
    "value",
    [
        {"prompt": "a", "response": "b"},  # one row
        {"messages": [{"role": "user", "content": "a"}]},
        {"prompt": "a", "responses": ["b", "c"], "ranking": [1, 2]},
        {},
        {"data": []},
        {"a": {"x": 1}, "b": {"y": 1}},
        "text",
    ],
)
def test_what_holds_no_rows(write, value):
    line = refusal(write("a.json", json.dumps(value)))
    assert line.startswith(f"1: {RULE}")
    assert "\n" not in line


def test_two_lists_in_an_object(write):
    path = write("a.json", json.dumps({"train": ROWS, "test": ROWS}))
    assert refusal(path) == "1 ('test'): must hold one list of rows, got the list \"train\" too"


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (
            '{"data": [{"a": 1}]',
            "1 ('data'): malformed JSON: must be followed by",
        ),
        ('{"data": [{"a": 1}], 1}', "1: malformed JSON: must be a key, got '1}'"),
        ('{"data" [{"a": 1}]}', "1: malformed JSON: must be a key, got '[{\"a\": 1}]}'"),
        ('{"data": [{"a": 1}]} x', " malformed JSON: nothing may follow the list, got 'x'"),
        (
            '{"data": [{"a": 1}\n{"a": 2}]}',
            "1 (item 1): malformed JSON: must be followed",
        ),
        ('{"a": {"0": 1', "1 ('a'): malformed JSON, got '{\"0\": 1'"),
    ],
)
def test_broken_objects(write, text, rule):
    assert refusal(write("a.json", text)).startswith(rule)


def test_cells_that_do_not_fit_the_columns(write):
    path = write("a.json", '{"columns": ["a", "b"], "data": [[1, 2], [3]]}')
    rows, _ = read(path)
    assert rows[0] == {"a": 1, "b": 2}
    assert str(rows[1]) == f"{path}:1 (item 2): must have 2 cells as the columns, got 1"


def test_keys_that_are_there_twice_in_rows_called_by_numbers(write):
    rows, _ = read(write("a.json", '{"0": {"prompt": "a"}, "1": {"prompt": 1, "prompt": 2}}'))
    assert rows[0] == {"prompt": "a"}
    assert "must be there once" in str(rows[1])


def test_a_long_file_is_read_in_bounded_memory(tmp_path):
    row = {"prompt": "é" * 500_000}
    path = tmp_path / "a.json"
    with path.open("w", encoding="utf-8") as file:
        file.write("[\n" + ",\n".join([json.dumps(row, ensure_ascii=False)] * 100) + "\n]")
    assert path.stat().st_size > 100_000_000
    tracemalloc.start()
    wheres = [item.where for item in read_file(path)]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert wheres[::99] == [f"{path}:2 (item 1)", f"{path}:101 (item 100)"]
    assert peak < 80_000_000  # two windows of 8 Mi characters of two bytes, and what is read


def test_a_long_row_is_one_bad_row(write):
    path = write("a.json", f'[{{"a": 1}},\n{{"a": "{"x" * LINE_LIMIT}"}},\n{{"a": 3}}]')
    first, second, third = read_file(path)
    assert (first.value, third.value) == ({"a": 1}, {"a": 3})
    assert third.where == f"{path}:3 (item 3)"
    rule = "must be at most 8 MiB long, got a longer row"
    assert str(second.value) == f"{path}:2 (item 2): {rule}"


@pytest.mark.parametrize("size", [64, 65, 66, 67, 100])
@pytest.mark.parametrize("text", ["x", "\\\\", '\\"', "]", "é", "},{"])
def test_rows_that_are_longer_than_what_is_held(write, monkeypatch, size, text):
    """The same rows wherever a part of the file ends."""
    monkeypatch.setattr("instructgpt.data.json_window.LINE_LIMIT", size)
    for count in range(100, 116):
        long = f'{{"a": "{text * count}", "b": [[1, {{}}], "y"]}}'
        short = '{"a": [1, "é", {"b": "\\\\"}]}'
        path = write("a.json", f"[{short},\n\n {long} ,\n {short}, {long}]")
        items = list(read_file(path))
        assert [isinstance(item.value, UserError) for item in items] == [False, True, False, True]
        assert items[0].value == items[2].value == json.loads(short)
        assert [item.where.removeprefix(f"{path}:") for item in items] == [
            *("1 (item 1)", "3 (item 2)", "4 (item 3)", "4 (item 4)"),
        ]
        path = write("a.json", f"[{short}, {long[:-1]}")
        assert "malformed JSON" in refusal(path)


@pytest.mark.parametrize("size", [40, 41, 1000])
def test_any_value_in_any_part_of_a_file(write, monkeypatch, size):
    rng = random.Random(size)
    texts = ["", "é", "🐖", '"', "\\", "]}", "\n", "x" * 9]
    value = [{rng.choice(texts): rng.choice([*texts, 1.5, None, [1], {}])} for _ in range(200)]
    monkeypatch.setattr("instructgpt.data.json_window.LINE_LIMIT", size)
    for ascii_only in (True, False):
        text = json.dumps(value, ensure_ascii=ascii_only, indent=rng.choice([None, 1]))
        assert read(write("a.json", text))[0] == value
        assert read(write("a.json", f'{{"data": {text}}}'))[0] == value
