"""Stands for ``instructgpt.__main__`` where the power is cut: stages that sync what they write."""

import hashlib
import json
import os
from pathlib import Path

from power_cut import Synced


def main(args):
    Synced(*json.loads(os.environ["POWER_CUT"]), joins=True)
    options = dict(arg[2:].split("=", 1) for arg in args if "=" in arg)
    folder = Path(args[args.index("--output") + 1])
    inputs = sorted(value for value in options.values() if Path(value).is_dir())
    result = "".join([folder.name, *(Path(one, "result.txt").read_text() for one in inputs)])
    for name in ("first.txt", "result.txt"):
        write(folder / name, hashlib.sha256(result.encode()).hexdigest())
    return 0


def write(path, text):
    """As ``models.folder`` does, which would import torch."""
    with path.with_name(f".{path.name}.part").open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    Path(file.name).replace(path)
    number = os.open(path.parent, os.O_RDONLY)
    os.fsync(number)
    os.close(number)
