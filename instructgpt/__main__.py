"""The command line: finds the verb, and what runs it."""

from __future__ import annotations

import atexit
import difflib
import gc
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module

from instructgpt.verbs import VERBS

HELP = """usage: python -m instructgpt VERB [--config FILE ...] [--option VALUE ...]

InstructGPT end to end: pretraining, SFT, reward model, PPO and PPO-ptx; or DPO and its kin.

verbs:
{verbs}

python -m instructgpt VERB --help              the options of a verb
python -m instructgpt fit --model.help NAME    the options of one class, such as PPOModule
python -m instructgpt fit --config FILE --print_config    everything a run would use"""


def main(args: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit code.

    0 done, 1 a run went wrong (numbers that are not finite, a stage of a pipeline that failed), 2
    wrong input, 3 people have to do something first, 130 interrupted.
    """
    args = list(sys.argv[1:] if args is None else args)
    if not args or args[0] in ("-h", "--help"):
        verbs = "\n".join(f"  {name:10}{verb.about}" for name, verb in VERBS.items())
        print(HELP.format(verbs=verbs))
        return 0
    verb = args[0]
    if verb not in VERBS:
        near = difflib.get_close_matches(verb, VERBS, 1)
        guess = f"; did you mean {near[0]}?" if near else f" (verbs: {', '.join(VERBS)})"
        print(f"instructgpt: error: unknown verb {verb!r}{guess}", file=sys.stderr)
        return 2
    from instructgpt.errors import guarded

    atexit.register(gc.freeze)  # or Python looks for garbage in all that was imported, at the end
    find_own_modules()
    return guarded(_run_trainer_verb if VERBS[verb].trainer else _run_plain_verb, args)


def find_own_modules() -> None:
    """Let class paths and ``module:function`` name files of the current directory.

    ``python -m`` does so too. It comes behind all that is installed, and replaces nothing of it.
    """
    with suppress(FileNotFoundError):  # the directory is gone
        if not sys.flags.safe_path and not {"", os.getcwd()} & set(sys.path):
            sys.path.append(os.getcwd())


def _run_trainer_verb(args: list[str]) -> None:
    from instructgpt.deferred_private import quick_imports
    from instructgpt.terminal import harmless_messages

    with quick_imports():
        module = import_module(f"{__package__}.{'commands.plan' if args[0] == 'plan' else 'cli'}")
    with harmless_messages():  # once more: Lightning has brought a form of its own
        module.main(args)


def _run_plain_verb(args: list[str]) -> None:
    from instructgpt.settings import check_alone

    verb, *options = args
    check_alone(verb)
    if verb == "pipeline":
        from instructgpt.commands.pipeline import main as run_pipeline

        run_pipeline(options, entry=f"{__package__}.__main__:main")  # for each of its stages
        return
    from jsonargparse import auto_cli

    from instructgpt.commands.functions import FUNCTIONS
    from instructgpt.errors import OneLineParser

    auto_cli(
        FUNCTIONS[verb],
        args=options,
        as_positional=False,
        prog=f"python -m instructgpt {verb}",
        parser_class=OneLineParser,
        allow_abbrev=False,
    )


if __name__ == "__main__":
    sys.exit(main())
