"""Reading files: every format, and one clear line for everything that can be wrong."""

import gzip
import json

import pyarrow
import pytest
from pyarrow import parquet

from instructgpt.data.demonstrations import DemonstrationDataModule
from instructgpt.data.errors import shorten
from instructgpt.data.files import read_file
from instructgpt.data.opening import LINE_LIMIT
from instructgpt.data.sources import load
from instructgpt.data.summary import Summary
from instructgpt.types import UserError

ROWS = [{"prompt": "a", "n": 1}, {"prompt": "b", "n": 2}]


def values(path):
    return [item.value for item in read_file(path)]


def complaint(path):
    """The first error of a file, whether it is the file's or a row's."""
    message = ""
    try:
        message = str(next(v for v in values(path) if isinstance(v, UserError)))
    except UserError as error:
        message = str(error)
    assert "\n" not in message
    return message.removeprefix(f"{path.parent}/")


@pytest.mark.parametrize(
    "name",
    [
        "a.jsonl",
        "a.jsonl.gz",
        "a.jsonl.zst",
        "a.ndjson",
        "a.jsonlines.zst",
        "A.JSONL",
        "A.NDJson.GZ",
    ],
)
def test_jsonl(write, name):
    path = write(name, ROWS)
    assert values(path) == ROWS
    assert [item.where for item in read_file(path)] == [f"{path}:1", f"{path}:2"]


@pytest.mark.parametrize("name", ["a.json", "a.json.gz", "A.Json.Zst"])
def test_json_array_knows_line_and_item(write, name):
    path = write(name, json.dumps(ROWS, indent=1))
    assert values(path) == ROWS
    # [ is line 1; each object has 4 lines, so the items start on lines 2 and 6
    assert [item.where for item in read_file(path)] == [f"{path}:2 (item 1)", f"{path}:6 (item 2)"]


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.csv.zst"])
def test_csv_with_lists_as_json_and_rows_of_several_lines(write, name):
    table = 'prompt,responses,ranking\n"two\nlines","[""x"", ""y""]","[1, 2]"\nb,,\n'
    first, second = read_file(write(name, table))
    assert first.value == {"prompt": "two\nlines", "responses": ["x", "y"], "ranking": [1, 2]}
    assert first.where.endswith(":2")
    assert second.where.endswith(":4")  # the first row takes lines 2 and 3
    assert second.value == {"prompt": "b", "responses": None, "ranking": None}


def test_parquet(tmp_path):
    path = tmp_path / "a.parquet"
    rows = [{"prompt": "a", "responses": ["x", "y"]}, {"prompt": "b", "responses": None}]
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    assert values(path) == rows
    assert [item.where for item in read_file(path)] == [f"{path}:1", f"{path}:2"]


def test_separators_inside_strings_nan_and_blank_lines_keep_line_numbers(write):
    odd = '{"prompt": "a\u2028b\u2029c\x85d\u000b"}\n'.replace("\u000b", "\\u000b")
    path = write(
        "a.jsonl", odd + "\r\n" + '{"prompt": "b", "x": NaN, "id": 1}\n{"id": 1}\nnot json'
    )
    items = list(read_file(path))
    assert [item.where.rpartition(":")[2] for item in items] == ["1", "3", "4", "5"]
    assert items[0].value["prompt"] == "a\u2028b\u2029c\x85d\u000b"
    assert isinstance(items[3].value, UserError)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.jsonl",
            '{"a": 1}\n{"a": }\n',
            "a.jsonl:2: malformed JSON: Expecting value at column 7, got '{\"a\": }'",
        ),
        (
            "a.jsonl",
            '{"a": 1}\n{"a": \n',
            "a.jsonl:2: malformed JSON: Expecting value at column 8, got '{\"a\":'",
        ),
        (
            "a.jsonl",
            '{"a": "b\tc"}\n',
            "a.jsonl:1: malformed JSON: Invalid control character at column 9, got",
        ),
        ("a.jsonl", "[" * 100_000, "a.jsonl:1: malformed JSON: nested too deeply"),
        ("a.jsonl", b'{"a": "\xff"}\n', "a.jsonl:1: must be UTF-8, got b'\\xff\"}\\n' at byte 8"),
        (
            "a.csv",
            "a".encode("utf-16"),
            "a.csv:1: must be UTF-8, got the byte order mark of UTF-16: save the file as UTF-8",
        ),
        ("a.jsonl", "", "a.jsonl: must hold at least one row, got an empty file"),
        ("a.jsonl", "\n \n", "a.jsonl: must hold at least one row, got an empty file"),
        ("a.jsonl.gz", "", "a.jsonl.gz: must hold at least one row, got an empty file"),
        ("a.json", "", "a.json: must hold at least one row, got an empty file"),
        ("a.json", "[]", "a.json: must hold at least one row, got an empty file"),
        ("a.csv", "a,b\n", "a.csv: must hold at least one row, got an empty file"),
        ("a.json", '{"a": 1}', "a.json:1: a .json file must hold one list of objects"),
        (
            "a.json",
            '[{"a": 1}\n{"a": 2}]',
            'a.json:1 (item 1): malformed JSON: must be followed by "," or "]"',
        ),
        ("a.json", '[{"a": 1},\n{"a" 2}]', "a.json:2 (item 2): malformed JSON, got '{\"a\" 2}]'"),
        ("a.json", '[{"a": 1},]', "a.json:1 (item 2): malformed JSON"),
        ("a.json", "[{}] []", "a.json: malformed JSON: nothing may follow the list, got '[]'"),
        (
            "a.json",
            '[{"a": 1}',
            'a.json:1 (item 1): malformed JSON: must be followed by "," or "]", got \'\'',
        ),
        ("a.csv", 'a,b\n1,2\n"3', "a.csv:3: malformed CSV: unexpected end of data"),
        ("a.csv", "a,b\n1\n", "a.csv:2: must have 2 cells as the header, got 1"),
        ("a.csv", "a,a\n1,2\n", "a.csv:1: column names must differ, got ['a', 'a']"),
        ("a.csv", "ranking\n1 2\n", "a.csv:2: \"ranking\" must be JSON in a CSV cell, got '1 2'"),
        ("a.parquet", "no", "a.parquet: must be a parquet file, got: "),
        ("a.txt", "text", "a.txt: extension must be one of .jsonl, .ndjson, "),
    ],
)
def test_bad_files(write, name, content, message):
    assert complaint(write(name, content)).startswith(message)


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.parquet", "a.jsonl.gz"])
def test_missing_file(tmp_path, name):
    assert complaint(tmp_path / name) == f"{name}: no such file"


def test_unreadable_and_truncated_gzip(write, tmp_path):
    plain = tmp_path / "plain.jsonl.gz"
    plain.write_bytes(b'{"a": 1}\n')
    assert complaint(plain).startswith(
        "plain.jsonl.gz: must be a whole gzip file, got: Not a gzipped"
    )
    whole = gzip.compress(b'{"a": 1}\n' * 1000)
    for end in (len(whole) // 2, len(whole) - 4):
        cut = tmp_path / "cut.jsonl.gz"
        cut.write_bytes(whole[:end])
        assert complaint(cut).startswith("cut.jsonl.gz: must be a whole gzip file, got: Compressed")
    broken = tmp_path / "broken.jsonl.gz"
    broken.write_bytes(whole[:12] + bytes([whole[12] ^ 255]) + whole[13:])
    assert complaint(broken).startswith("broken.jsonl.gz: must be a whole gzip file")


def test_zstd_of_several_frames_and_what_is_none(tmp_path):
    frame = pyarrow.compress(b'{"a": 1}\n' * 1000, codec="zstd", asbytes=True)
    path = tmp_path / "a.jsonl.zst"
    path.write_bytes(frame + frame)  # as `cat` and parallel compressors write it
    assert len(values(path)) == 2000
    for broken in (b'{"a": 1}\n', frame[: len(frame) // 2], frame[:-2], frame + b"more"):
        path.write_bytes(broken)
        assert complaint(path).startswith("a.jsonl.zst: must be a whole zstd file, got: ")


def test_long_line_is_one_bad_row_and_the_next_line_is_read(write):
    long = json.dumps({"a": "x" * LINE_LIMIT})
    path = write("a.jsonl", f'{{"a": 1}}\n{long}\n{{"a": 3}}\n')
    items = list(read_file(path))
    assert [item.where for item in items] == [f"{path}:{i}" for i in (1, 2, 3)]
    assert str(items[1].value) == f"{path}:2: must be at most 8 MiB long, got a longer line"
    assert items[2].value == {"a": 3}


def test_line_of_exactly_the_limit_is_read(write):
    line = json.dumps({"a": ""})
    line = json.dumps({"a": "x" * (LINE_LIMIT - len(line) - 1)}) + "\n"
    assert len(line) == LINE_LIMIT
    assert len(values(write("a.jsonl", line))[0]["a"]) == LINE_LIMIT - 10


def test_values_are_shortened():
    assert shorten("short") == "'short'"
    assert shorten("é" * 1000) == "'" + "é" * 59 + "…'"
    assert shorten("line\nline") == r"'line\nline'"
    assert len(shorten(list(range(1000)))) == 61
    assert shorten(True) == "True"


# -- tables

EXCEL = 'prompt;response\r\n"What colour,\r\nis ""the"" pig?";Pink.\r\n'
PIG = [{"prompt": 'What colour,\r\nis "the" pig?', "response": "Pink."}]


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["", ".gz", ".zst"])
@pytest.mark.parametrize(
    ("name", "separator", "told"),
    [
        ("a.csv", ",", None),
        ("a.csv", ";", "separator ';'"),
        ("a.csv", "\t", r"separator '\t'"),
        ("a.tsv", "\t", None),
        ("a.tsv", ";", "separator ';'"),
    ],
)
def test_separators_and_byte_order_marks(write, mark, end, name, separator, told):
    path, lines = write(name + end, mark + EXCEL.replace(";", separator)), []
    assert [item.value for item in read_file(path, lines.append)] == PIG
    assert lines == ([f"{path}: {told}"] if told else [])


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.json.gz"])
def test_json_with_a_byte_order_mark(write, name):
    content = json.dumps(PIG[0] if name == "a.jsonl" else PIG)
    assert values(write(name, "\ufeff" + content)) == PIG


@pytest.mark.parametrize(
    ("table", "row"),
    [
        ("text\na;b\n", {"text": "a;b"}),
        ('"a;b",c\n1,2\n', {"a;b": "1", "c": "2"}),
        ('"a,b";"c\td\ne"\n1;2\n', {"a,b": "1", "c\td\ne": "2"}),
        ('\r\n\r\na;b\n"1;2";3\n', {"a": "1;2", "b": "3"}),
        ('"a ""x,y""";b\n1;2\n', {'a "x,y"': "1", "b": "2"}),
    ],
)
def test_the_separator_is_that_of_the_header_outside_of_quotes(write, table, row):
    assert values(write("a.csv", table)) == [row]


def test_what_spreadsheets_leave_empty_is_no_column_and_no_row(write):
    table = "a,b,,\n1,2,,\n3,\n,,,\n\n5,6\n,,\n"
    rows = [{"a": "1", "b": "2"}, {"a": "3", "b": ""}, {"a": "5", "b": "6"}]
    assert values(write("a.csv", table)) == rows
    lost = write("lost.csv", "a,b,,\n1,2,,3\n")
    assert complaint(lost) == "lost.csv:2: must have 2 cells as the header, got 4"


@pytest.mark.parametrize("first", ["sep=;", '"sep=;"', "SEP=;", "\ufeffsep=;"])
def test_a_first_line_that_says_the_separator(write, first):
    path, told = write("a.csv", f"{first}\r\nprompt;b,c\r\nx;y\r\nz\r\n"), []
    good, bad = read_file(path, told.append)
    assert (good.where, good.value) == (f"{path}:3", {"prompt": "x", "b,c": "y"})
    assert str(bad.value) == f"{path}:4: must have 2 cells as the header, got 1"
    assert told == [f"{path}: separator ';'"]
    rule = "a.csv:1: the separator must be a comma, a semicolon or a tab, got 'sep=|'"
    assert complaint(write("a.csv", "sep=|\na|b\n1|2\n")) == rule


def test_decimal_commas_of_scores(write):
    table = "prompt;score_chosen;n\na;8,5;1,5\nb; -2,25 ;x\nc;1,2,3;x\n"
    path, told = write("a.csv", table), []
    rows = [item.value for item in read_file(path, told.append)]
    assert [row["score_chosen"] for row in rows] == ["8.5", "-2.25", "1,2,3"]
    assert rows[0]["n"] == "1,5"  # a text, for all we know
    column = 'column "score_chosen" has decimal commas'
    assert told == [f"{path}: separator ';'", f"{path}: {column} (first: {path}:2)"]
    assert values(write("b.tsv", "score\n8,5\n")) == [{"score": "8,5"}]


def test_a_column_without_a_name_is_shown(write):
    summary = Summary()
    load([str(write("a.csv", ",prompt\n0,q\n"))], "prompt", "stop", summary)
    assert summary.lines()[1] == "  columns: prompt used as prompt; '' kept as metadata"


@pytest.mark.parametrize("header", ["a,b;c", "a;b\tc", 'a,"x;y";b'])
def test_a_header_with_two_separators_is_refused(write, header):
    message = complaint(write("a.csv", f"{header}\n1,2\n"))
    assert message.startswith(
        "a.csv:1: the header must have one separator (comma, semicolon or tab; names that hold "
        "another stand in quotes), got "
    )


def test_the_separator_is_named_in_the_summary(write, tokenizer_folder):
    path = str(write("excel.csv", "\ufeff" + EXCEL))
    data = DemonstrationDataModule(train=path, tokenizer=tokenizer_folder, validation=None)
    data.setup("fit")
    assert f"{path}: separator ';'" in data.summary
