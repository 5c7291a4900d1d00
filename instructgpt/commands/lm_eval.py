"""lm-eval's own command line with the model ``instructgpt`` (extra ``lm-eval``)."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.util import find_spec

from instructgpt.terminal import say
from instructgpt.types import RunFailedError, UserError

HELP = """usage: python -m instructgpt.commands.lm_eval --model_args pretrained=MODEL --tasks TASK …

Every task of lm-eval, asked with the engine of this package: contexts are read once for all of
their choices, and answers are decoded in slots. --model instructgpt is put in where no --model is.

of --model_args, separated by commas:
  pretrained           folder or hub id of a policy
  dtype                float32 (default), bfloat16 or float16
  max_tokens           of one forward pass (default: 1024)
  slots                answers that are written at once (default: 64)
  seed                 of answers that are drawn (default: 0)
  trust_remote_code    run code that comes with the model (default: False)

--batch_size of lm-eval has no use here. What follows is lm-eval's own help.
"""


def main(args: Sequence[str]) -> int:
    """Run lm-eval; what a user got wrong here ends in one line.

    Args:
        args: of the command line.

    Returns:
        0 when done, 1 for a run that went wrong, 2 for wrong input.
    """
    try:
        run(args)
    except UserError as error:
        say(f"instructgpt: error: {error}", error=True)
        return 1 if isinstance(error, RunFailedError) else 2
    return 0


def run(args: Sequence[str]) -> None:
    """Run lm-eval.

    Args:
        args: of the command line.

    Raises:
        UserError: it is not installed, or its model refuses what it is given.
    """
    if find_spec("lm_eval") is None:
        raise UserError("lm-eval must be installed: pip install 'instructgpt[lm-eval]'")
    import lm_eval.__main__ as harness

    import instructgpt.commands.lm_eval_model  # noqa: F401  # registers the model

    given = list(args)
    if not given or given[0] in ("-h", "--help"):
        say(HELP)
        given = ["run", "--help"]
    runs = given[0].startswith("-") or given[0] == "run"
    if runs and not any(one.partition("=")[0] in ("--model", "-M") for one in given):
        given += ["--model", "instructgpt"]
    before = sys.argv
    sys.argv = ["lm_eval", *given]  # from where lm-eval reads it
    try:
        harness.cli_evaluate()
    finally:
        sys.argv = before


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
