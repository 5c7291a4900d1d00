"""The verbs: a static table, so that ``python -m instructgpt --help`` imports next to nothing."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Sequence

TRAINER_VERBS = {
    "fit": "train one stage: pretraining, SFT, reward model or PPO",
    "validate": "run the validation set once",
    "test": "run the test loop of a module once",
    "predict": "write responses (policies) or scores (reward models) as JSONL",
}
PLAIN_VERBS = {
    "pipeline": "run all stages in order: the paper in miniature, or your own",
    "world": "write the data of the miniature world",
    "generate": "answer prompts from a file, or interactively, with any policy",
    "label": "rank sampled responses, by simulated labelers or by people",
    "evaluate": "compare policies: win rates, ground truth, a report",
    "export": "write the artefact of a run from one of its checkpoints",
}
VERBS = {**TRAINER_VERBS, **PLAIN_VERBS}

HELP = """usage: python -m instructgpt VERB [--config FILE ...] [--option VALUE ...]

InstructGPT end to end: pretraining, SFT, reward model, PPO and PPO-ptx.

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
        print(HELP.format(verbs="\n".join(f"  {verb:10}{text}" for verb, text in VERBS.items())))
        return 0
    verb = args[0]
    if verb not in VERBS:
        near = difflib.get_close_matches(verb, VERBS, 1)
        guess = f"; did you mean {near[0]}?" if near else f" (verbs: {', '.join(VERBS)})"
        print(f"instructgpt: error: unknown verb {verb!r}{guess}", file=sys.stderr)
        return 2
    from instructgpt.errors import guarded

    return guarded(_run_trainer_verb if verb in TRAINER_VERBS else _run_plain_verb, args)


def _run_trainer_verb(args: list[str]) -> None:
    from instructgpt.cli import main as run

    run(args)


def _run_plain_verb(args: list[str]) -> None:
    from importlib import import_module

    from jsonargparse import auto_cli

    from instructgpt.errors import OneLineParser

    verb = args[0]
    module = import_module(f"instructgpt.commands.{verb}")
    if hasattr(module, "main"):  # reads its options itself
        module.main(args[1:])
        return
    function = getattr(module, verb)
    auto_cli(
        function,
        args=args[1:],
        as_positional=False,
        prog=f"python -m instructgpt {verb}",
        parser_class=OneLineParser,
        allow_abbrev=False,
    )


if __name__ == "__main__":
    sys.exit(main())
