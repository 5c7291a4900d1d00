"""Payloads that would leave a file behind if anything ran them, and commands that meet them."""

import json
import os
import pickle

from instructgpt.__main__ import main

MARKER = "ran"
TOUCH = f"touch {MARKER}"  # for a shell
CODE = f"open({MARKER!r}, 'w').close()\n"  # for Python


class Evil:
    """Unpickling it makes the marker."""

    def __reduce__(self):
        return os.system, (TOUCH,)


PICKLE = pickle.dumps(Evil())


def refused(capsys, *args):
    """The one line that ends a command on what was planted, with a code for wrong input."""
    capsys.readouterr()
    code = main([str(one) for one in args])
    lines = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert code == 2, lines
    assert [line for line in lines if line.startswith("instructgpt: error: ")] == lines[-1:]
    assert "Traceback" not in lines[-1]
    return lines[-1].removeprefix("instructgpt: error: ")


def unlisted(folder):
    """An artefact without checksums, as a stranger would write it who changes its files."""
    file = folder / "instructgpt.json"
    facts = json.loads(file.read_text())
    facts.pop("files", None)
    file.write_text(json.dumps(facts))
    return folder
