"""``pipeline``: run all stages of a YAML file in order, each once."""

from __future__ import annotations

from collections.abc import Sequence

from instructgpt.commands.functions import FUNCTIONS
from instructgpt.errors import OneLineParser
from instructgpt.types import UserError

PRELOAD = "instructgpt.commands.preload"


def pipeline(
    entry: str,
    config: str = "configs/miniature.yaml",
    output: str | None = None,
    seed: int | None = None,
    only: str | None = None,
    from_: str | None = None,
    jobs: int | None = None,
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
        jobs: stages that run side by side, with OMP_NUM_THREADS threads each (default: 1);
            default: that of the file, else as many as there are cores, at most 2.
    """
    from instructgpt.pipeline.call import run_pipeline
    from instructgpt.pipeline.program import Program

    program = Program(entry, FUNCTIONS, PRELOAD)
    run_pipeline(config, program, output, seed, only, from_, jobs)


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
    parser.add_function_arguments(pipeline, as_group=False, skip={"entry", "from_"})
    parser.add_argument(
        "--from",
        type=str | None,
        metavar="STAGE",
        help="run this stage, and all that depends on it, anew.",
    )
    if sum(one.partition("=")[0] == "--config" for one in args) > 1:
        raise UserError("--config must be given once: a file says `extends: OTHER.yaml` itself")
    given = parser.parse_args(args).as_dict()
    pipeline(entry, from_=given.pop("from"), **given)
