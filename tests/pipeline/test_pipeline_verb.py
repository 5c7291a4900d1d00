"""The verb on the command line, and a stage as a process of its own."""

from functools import partial

import pytest

from instructgpt.commands.functions import FUNCTIONS
from instructgpt.commands.pipeline import main
from instructgpt.errors import guarded
from instructgpt.pipeline.call import run_pipeline
from instructgpt.pipeline.program import Program
from instructgpt.verbs import VERBS

ENTRY = "instructgpt.__main__:main"


def error_of(args, capsys):
    assert guarded(partial(main, entry=ENTRY), args) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0].removeprefix("instructgpt: error: ")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "--config must be an existing file, got configs/miniature.yaml (in "),
        (["--config=no.yaml"], "--config must be an existing file, got no.yaml (in "),
        (["--seed=x"], "--seed must be int, got x"),
        (["--form=a"], "unknown option --form; did you mean from?"),
        (["--config=toy.yaml", "--from=b"], "--from: unknown stage 'b' (there are a)"),
        (["--config", "toy.yaml", "--only", "b"], "--only: unknown stage 'b' (there are a)"),
        (["--config=bad.yaml"], "bad.yaml:1:6: "),
        (["--config=bad.yaml", "--config", "toy.yaml"], "--config must be given once: a file says"),
        (["--config=toy.yaml", "--output="], "--output must name a folder, got ''"),
        (["--config=toy.yaml", "--output=toy.yaml"], "--output toy.yaml cannot be written: "),
    ],
)
def test_what_a_user_gets_wrong(toy, capsys, args, message):
    toy.write("stages: {a: {verb: fit}}")
    toy.write("a: [b", "bad.yaml")
    assert error_of(args, capsys).startswith(message)


def test_every_verb_but_itself_and_those_of_lightning_has_a_function():
    plain = {name for name, verb in VERBS.items() if not verb.trainer}
    assert set(FUNCTIONS) == plain - {"pipeline"}


def test_help_names_the_options(capsys):
    assert guarded(partial(main, entry=ENTRY), ["--help"]) == 0
    text = capsys.readouterr().out
    for option in ("--config", "--output", "--seed", "--only", "--from STAGE", "--jobs"):
        assert option in text


def test_a_stage_runs_the_verb_itself(toy, capsys):
    """A real one, which refuses its input; its line comes back with the name of the stage."""
    toy.write("stages: {e: {verb: export, options: {run: nowhere}}}")
    message = error_of(["--config=toy.yaml", "--output=out"], capsys)
    rule = "e: --run must be the folder of a run, got nowhere: it has no config.yaml"
    assert message == f"{rule} (log: out/e.log)"


def test_a_stage_looks_like_a_command(toy, monkeypatch):
    """With this, Lightning starts further ranks."""
    text = "import __main__, os, sys\ndef main(args): print(__main__.__spec__.name, sys.argv[1:], "
    toy.write(text + "os.environ['OMP_NUM_THREADS'], sys.stdin.read(), os.isatty(1))", "looks.py")
    toy.write("stages: {a: {verb: fit}}\noutput: out")
    monkeypatch.syspath_prepend(str(toy.folder))
    run_pipeline("toy.yaml", Program("looks:main", {}), board=toy.board)
    shown = (toy.folder / "out/a.log").read_text().splitlines()[-1]
    args = ["fit", "--output", "out/a", "--seed_everything=0"]
    assert shown == f"looks {args} 1  False"
