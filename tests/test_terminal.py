"""Nothing that comes from data, models or file names acts on the terminal."""

import ast
import json
import logging
import subprocess
import sys
import warnings
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

import instructgpt
from instructgpt.__main__ import main
from instructgpt.callbacks import progress
from instructgpt.errors import guarded
from instructgpt.pipeline.board import LiveBoard, PlainBoard, Running, Status
from instructgpt.terminal import printable, say
from instructgpt.types import UserError

PACKAGE = Path(instructgpt.__file__).parent
RED, TITLE, C1, BIDI = "\x1b[31m", "\x1b]0;owned\x07", "\x9b31m", "\u202eevil\u2066"
EVIL = f"a{RED}b{TITLE}c{C1}d{BIDI}e\x7ff\rg\x00h\u2028i"
ACTING = {chr(n) for n in (*range(32), *range(127, 160), 0x202E, 0x2066, 0x2028)} - {"\n", "\t"}


def assert_harmless(text):
    assert not ACTING & set(text)


def test_what_acts_becomes_visible_and_the_rest_stays():
    assert printable("é 🐖 ‍ \t\n ß") == "é 🐖 ‍ \t\n ß"
    assert printable("\x1b[31m\x9b\x7f\u202e") == r"\u001b[31m\u009b\u007f\u202e"
    assert printable("half \ud83d") == r"half \ud83d"
    assert_harmless(printable(EVIL))


def test_json_holds_the_same_values_afterwards():
    text = json.dumps({"response": EVIL}, ensure_ascii=False)
    assert "\x9b" in text  # JSON itself leaves these as they are
    assert_harmless(printable(text))
    assert json.loads(printable(text)) == {"response": EVIL}


def test_output_and_errors(capfd):
    say(EVIL)
    say(EVIL, error=True)
    out, err = capfd.readouterr()
    assert out == err == printable(EVIL) + "\n"


def test_a_warning_is_one_line_without_the_code(capsys):
    def verb(args):
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            print(warnings.formatwarning("cut 3 of 9", UserWarning, "a.py", 7, "x = 1"), end="")
        return 0

    assert guarded(verb, []) == 0
    assert capsys.readouterr().out == "warning: cut 3 of 9\n"


LATE = """
import sys, types, warnings
from instructgpt import __main__ as entry
def cli(name):
    import lightning.pytorch as lightning
    where = (UserWarning, lightning.__file__, 1)
    return types.SimpleNamespace(main=lambda args: warnings.warn_explicit("careful", *where))
entry.import_module = cli
sys.exit(entry.main(["fit"]))
"""


def test_a_warning_of_lightning_is_one_too_though_it_comes_later():
    """Its import brings a form of warnings of its own, with the path of its file."""
    done = subprocess.run([sys.executable, "-c", LATE], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "warning: careful\n")


def test_errors_warnings_and_log_records(capsys):
    log, stream = logging.getLogger("a library"), StringIO()
    handler = logging.StreamHandler(stream)

    def verb(args):
        warnings.warn(EVIL, stacklevel=1)
        log.warning("about %s, %d", EVIL, 3)
        raise UserError(f"{EVIL}: wrong")

    log.addHandler(handler)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            shown = warnings.showwarning
            warnings.showwarning = lambda *given: print(warnings.formatwarning(*given[:4]))
            assert guarded(verb, []) == 2
            warnings.showwarning = shown
    finally:
        log.removeHandler(handler)
    out, err = capsys.readouterr()
    assert "\\u001b[31mb" in out
    assert "\\u001b[31mb" in err
    assert stream.getvalue().startswith("about a\\u001b[31mb")
    assert stream.getvalue().endswith(", 3\n")
    for text in (out, err, stream.getvalue()):
        assert_harmless(text)


@pytest.mark.parametrize("kind", ["bars", "lines"])
def test_progress(kind, capsys):
    console = Console(file=StringIO(), width=200)
    shown = progress.Bars(console) if kind == "bars" else progress.Lines(0.0)
    shown.show(f"[red]name[/red]{RED}", 1, 2, f"note[/b]{TITLE}{C1}")
    shown.hide(f"[red]name[/red]{RED}")
    shown.show(f"[red]name[/red]{RED}", 1, 2, f"note[/b]{TITLE}{C1}")
    shown.close()
    text = console.file.getvalue() if kind == "bars" else capsys.readouterr().out
    assert "[red]name[/red]\\u001b[31m" in text  # markup of rich is text
    assert "note[/b]\\u001b]0;owned\\u0007\\u009b31m" in text
    assert "\x1b[31m" not in text
    assert "\x9b" not in text


def test_the_pipeline(capsys):
    status = Status(0.5, 61.0, 10.0, [Running("stage", 5.0, f"[red]{EVIL}")])
    console = Console(file=StringIO(), force_terminal=True, width=300)
    screen = LiveBoard(console)
    screen.say(EVIL)
    screen.update(status)
    screen.close()
    lines = PlainBoard(0.0)
    lines.say(EVIL)
    lines.update(status)
    for text in (console.file.getvalue(), capsys.readouterr().out):
        assert "[red]a\\u001b[31mb" in text
        for part in (RED, TITLE, C1, "\u202e", "\x7f", "\x00"):  # rich itself moves the cursor
            assert part not in text


def test_a_message_about_a_file_whose_name_acts(tmp_path, capsys):
    name = tmp_path / f"{RED}\u202e.jsonl"
    name.write_text("{}\n")
    assert main(["label", "--samples", str(name)]) == 2
    err = capsys.readouterr().err
    assert '"prompt" is missing' in err
    assert_harmless(err)


def test_everything_is_printed_by_say():
    """The help of ``__main__`` holds nothing of data; rich gets ``printable`` texts, see above."""
    prints = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print"
    }
    assert prints == {"terminal.py", "__main__.py"}
