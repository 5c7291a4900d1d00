"""Stands for ``instructgpt.__main__`` in tests of the pipeline: verbs that take a moment.

A stage counts to ``--steps``, with a checkpoint after each step of ``fit``, and then writes
``result.txt``: a hash of its options and of the results of the stages that its options name. An
uninterrupted run and one that was killed anywhere must end with the same results.
"""

import hashlib
import json
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import torch


def main(args):
    options = dict(arg[2:].split("=", 1) for arg in args if "=" in arg)
    folder = Path(args[args.index("--output") + 1])
    resumes = args[-2:] == ["--ckpt_path", "last"]
    note(folder, "resume" if resumes else "begin")
    if "tell" in options:
        note(folder, f"threads={torch.get_num_threads()},{os.environ['OMP_NUM_THREADS']}")
    if "child" in options:  # such as a worker of a loader, or another rank
        note(folder, f"pid {subprocess.Popen(['sleep', '60']).pid}")
    try:
        return work(args[0], options, folder, resumes)
    except KeyboardInterrupt:
        note(folder, "saved")
        return 130


def work(verb, options, folder, resumes):
    first = read_step(folder) if resumes else 0
    assert resumes or "wait" in options or [p.name for p in folder.iterdir()] == ["stage.json"]
    for step in range(first, int(options.get("steps", 1))):
        time.sleep(float(options.get("seconds", 0.02)))
        if verb == "fit":
            write_step(folder, step + 1)
        print(f"fit {step + 1}/{options.get('steps', 1)}  [bold]not markup[/bold]")
    if "say" in options:
        print(options["say"], file=sys.stderr)
    if options.get("wait") and not (folder / "by_hand.txt").exists():
        print("instructgpt: rank the responses", file=sys.stderr)
        return 3
    if "code" in options and not Path(f"{folder}.repaired").exists():
        return int(options["code"])
    if "raise" in options:
        raise RuntimeError("a bug")
    inputs = [Path(v, "result.txt").read_text() for v in flat(options) if Path(v).is_dir()]
    text = json.dumps({k: v for k, v in options.items() if not Path(v).is_dir()}, sort_keys=True)
    text = text.replace(str(folder.parent), "")
    result = hashlib.sha256("".join([text, *inputs]).encode()).hexdigest()
    (folder / "result.txt").write_text(result)
    note(folder, "end")
    return 0


def flat(options):
    for value in options.values():
        yield from json.loads(value) if value.startswith("[") else [value]


def note(folder, what):
    """One line to a diary that outlives the folder."""
    with (folder.parent / "diary.txt").open("a") as file:
        file.write(f"{folder.name} {what} {os.getpid()} {time.time()}\n")


def write_step(folder, step):
    path = folder / "checkpoints" / "last.ckpt"
    path.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(f"{path}.tmp", "w") as file:
        file.writestr("step", str(step))
    Path(f"{path}.tmp").replace(path)


def read_step(folder):
    with zipfile.ZipFile(folder / "checkpoints" / "last.ckpt") as file:
        return int(file.read("step"))


if __name__ == "__main__":  # as a launcher starts it
    sys.exit(main(sys.argv[1:]))
