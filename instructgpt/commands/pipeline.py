"""``pipeline``: run all stages of a YAML file in order, each once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any

from instructgpt.commands.functions import FUNCTIONS
from instructgpt.errors import OneLineParser
from instructgpt.types import UserError

PRELOAD = "instructgpt.commands.preload"
DEFAULT = "configs/miniature.yaml"


def pipeline(
    entry: str,
    config: str = DEFAULT,
    output: str | None = None,
    seed: int | None = None,
    only: str | None = None,
    from_: str | None = None,
    jobs: int | None = None,
    dry_run: bool = False,
    inputs: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Run a pipeline: the paper in miniature, or your own.

    Finished stages are skipped, an interrupted one goes on from its checkpoint. A stage whose
    settings, files or inputs changed is cleared and run again, with all that depends on it. Code
    and installed versions are not looked at: after changing them, use --from.

    Args:
        entry: ``module:function`` that runs a stage in a process of its own.
        config: YAML file that lists the stages.
        output: folder to write to; default: that of the file.
        seed: of every stage; default: that of the file. What another seed left in the same
            folder is replaced.
        only: run these stages alone, separated by commas; their inputs must be finished.
        from_: run this stage, and all that depends on it, anew.
        jobs: stages that run side by side, with OMP_NUM_THREADS threads each (default: 1)
            unless its ``threads`` says more, which then take the places of others;
            default: that of the file, else as many as there are cores, at most 2.
        dry_run: only print what would be run, with the commands.
        inputs: of the file, by name; on the command line, ``--NAME``.
    """
    from instructgpt.pipeline.call import run_pipeline
    from instructgpt.pipeline.program import Program

    program = Program(entry, FUNCTIONS, PRELOAD)
    run_pipeline(config, program, output, seed, only, from_, jobs, inputs=inputs, dry_run=dry_run)


def main(args: Sequence[str], entry: str) -> None:
    """Run the verb.

    It has a parser of its own: auto_cli keeps ``--config`` to itself, and no parameter can be
    called ``from``.

    Args:
        args: of the command line, after the verb.
        entry: ``module:function`` that runs a stage.
    """
    parser = OneLineParser(prog="python -m instructgpt pipeline", allow_abbrev=False)
    parser.description = (
        "Run all stages of a pipeline, each once: the paper in miniature, or your own."
    )
    parser.add_function_arguments(pipeline, as_group=False, skip={"entry", "from_", "inputs"})
    parser.add_argument(
        "--from",
        type=str | None,
        metavar="STAGE",
        help="run this stage, and all that depends on it, anew.",
    )
    inputs = inputs_of(args)
    for name, default in inputs.items():
        note = "must be given" if default is None else f"default: {default or 'none'}"
        about = f"input of the file; {note}."
        parser.add_argument(f"--{name}", type=str | None, metavar="VALUE", help=about)
    if sum(one.partition("=")[0] == "--config" for one in args) > 1:
        raise UserError("--config must be given once: a file says `extends: OTHER.yaml` itself")
    given = parser.parse_args(args).as_dict()
    values = {name: given.pop(name) for name in inputs}
    values = {name: value for name, value in values.items() if value is not None}
    pipeline(entry, from_=given.pop("from"), inputs=values, **given)


def inputs_of(args: Sequence[str]) -> dict[str, Any]:
    """The inputs of the file that the command line names, with their defaults; they are flags."""
    from instructgpt.pipeline.document import read_document

    path = Path(DEFAULT)
    for flag, value in pairwise([*args, ""]):
        name, equals, inline = flag.partition("=")
        if name == "--config":
            path = Path(inline if equals else value)
    return dict(read_document(path)["inputs"]) if path.is_file() else {}
