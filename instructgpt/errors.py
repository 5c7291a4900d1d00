"""Wrong input ends in one line on stderr and an exit code; a bug keeps its traceback."""

from __future__ import annotations

import ast
import difflib
import errno
import inspect
import os
import re
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from importlib import import_module
from itertools import pairwise
from typing import Any, NoReturn

from jsonargparse import ArgumentParser, Namespace

from instructgpt.jsonargparse_private import flags
from instructgpt.terminal import harmless_messages, say

FAILED = 1
NO_WAY = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOTDIR}
"""Errors of the operating system that no mistake of ours makes."""
WRONG_INPUT = 2
WAITING = 3
OTHERS_WAIT = 10.0
"""Seconds in which the first process of a machine says what all of them find."""
STARTER = "INSTRUCTGPT_STARTER"
"""Variable with the process that Lightning starts the others from; it may end before they look."""
COMPLAINERS = (f"{os.sep}lightning{os.sep}", f"torch{os.sep}optim{os.sep}")
"""Libraries whose complaints are about the settings that they were given."""
LOGGING = ("wandb", "mlflow", "comet_ml")
"""Libraries behind loggers, whose errors are about an account, a server or a place."""
OF_CODE = (
    "pytorch/core/module.py",
    "pytorch/core/optimizer.py",
    "pytorch/loops/optimization/",
    "pytorch/trainer/connectors/logger_connector/",
)
"""Where Lightning complains of what a module logs or returns, which is no setting."""
CLASS_RULE = "--{} must be written as class_path: NAME, with its options under init_args"
PLAIN_TYPES = ("int", "float", "bool", "str", "dict")


class OneLineParser(ArgumentParser):
    """Base of parsers: raise a one-line UserError instead of printing the usage and exiting."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Called by argparse and jsonargparse for anything that does not parse."""
        from instructgpt.types import UserError

        if not self.exit_on_error:  # an inner parser, whose message becomes part of another
            super().error(message, ex)
        raise UserError(one_line(message, list(flags(self)))) from None


def guarded(run: Callable[[list[str]], None], args: list[str]) -> int:
    """Run a verb and turn what it raises into an exit code.

    Args:
        run: the verb.
        args: of the command line, the verb first.

    Returns:
        0 when done, 1 for a run that went wrong, 2 for wrong input, 3 where people have to do
        something first, 128 + number for a signal.
    """
    from instructgpt.models.folder import NO_ROOM
    from instructgpt.settings import check_options
    from instructgpt.types import RunFailedError, UserError, WaitingForLabelsError

    if "LOCAL_RANK" not in os.environ:
        os.environ[STARTER] = str(os.getpid())
    try:
        with harmless_messages():
            check_options(args)
            check_output(args)
            run(args)
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):  # Lightning's way to end on Ctrl-C
            return 130
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        fall_silent()
        return 141
    except Exception as error:
        message = user_message(error, UserError)
        if message is None:
            raise
        if isinstance(error, WaitingForLabelsError):
            say(f"instructgpt: {message}", error=True)
            return WAITING
        failed = isinstance(error, RunFailedError)  # callbacks.lost has chosen who says it
        if failed or not first_speaks():
            say(f"instructgpt: error: {message}", error=True)
        full = isinstance(error, OSError) and error.errno in NO_ROOM
        return FAILED if full or failed else WRONG_INPUT
    except BaseException as stop:
        code = getattr(stop, "exit_code", None)  # callbacks.signals.Interrupted
        if code is None:
            raise
        if stop.args:
            say(f"\n{stop}", error=True)
        return int(code)
    return 0


def first_speaks() -> bool:
    """Whether this process has seen the first of its machine end, which then said why.

    What is wrong with the input most often is so for all processes of a run, and is to be said
    once. When the first ends, torchrun ends the others here, while they wait; Lightning started
    them itself, and leaves them. Where the first goes on, the fault is this process's own.
    """
    rank = os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", "0"))
    inherited = {} if "TORCHELASTIC_RUN_ID" in os.environ else os.environ  # torchrun's own, there
    first = int(inherited.get(STARTER, os.getppid())) if rank != "0" else None
    deadline = time.monotonic() + OTHERS_WAIT
    while first is not None and time.monotonic() < deadline:
        if os.getppid() != first:
            return True
        time.sleep(0.1)
    return False


def check_output(args: Sequence[str]) -> None:
    """Refuse an empty ``--output``, which would be the folder one happens to be in.

    Args:
        args: of the command line, the verb first.
    """
    from instructgpt.types import UserError

    for flag, value in pairwise([*args, "-"]):
        name, equals, inline = flag.partition("=")
        given = inline if equals else value
        if name == "--output" and not given.strip():
            place = "file" if args[0] == "generate" else "folder"
            raise UserError(f"--output must name a {place}, got {given!r}")


def check_unused(verb: Callable[..., None], switch: str, **given: Any) -> None:
    """Refuse options of a verb that another one leaves without a use.

    Args:
        verb: the function, which knows the defaults.
        switch: the option that does so, as written.
        **given: values of the options.
    """
    from instructgpt.types import UserError

    for name, value in given.items():
        if value != inspect.signature(verb).parameters[name].default:
            raise UserError(f"--{name} must be left out with {switch}, got {value}")


def fall_silent() -> None:
    """Print to nowhere: the reader of our output, such as ``head``, has seen enough."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def user_message(error: BaseException, kind: type[Exception]) -> str | None:
    """The line for the user, where an error or one of its causes is the user's to mend."""
    from instructgpt.models.folder import NO_ROOM

    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, kind):
            return collapse(str(cause))
        if isinstance(cause, OSError) and cause.errno in NO_ROOM | NO_WAY:
            return collapse(f"{cause.filename or ''}: {cause.strerror}".lstrip(": "))
        if _is_complaint(cause):
            return collapse(str(cause))
        if type(cause).__module__.partition(".")[0] in LOGGING:
            return f"--trainer.logger: {collapse(str(cause))[:400]}"
        cause = cause.__cause__
    return None


def _is_complaint(error: BaseException) -> bool:
    """Whether a package is not there, or a library's own ``raise`` is about a setting."""
    if isinstance(error, ModuleNotFoundError):
        return not (error.name or "").startswith("instructgpt")
    last = innermost(error)
    if last is None or any(part in last.filename.replace(os.sep, "/") for part in OF_CODE):
        return False
    # Lightning's word for a setting that does not fit; importing it would cost seconds.
    if type(error).__name__ == "MisconfigurationException":
        return True
    theirs = any(part in last.filename for part in COMPLAINERS)
    return theirs and (last.line or "").startswith("raise ")


def innermost(error: BaseException) -> traceback.FrameSummary | None:
    """The line that raised it, if it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    return frames[-1] if frames else None


def is_ours(error: BaseException) -> bool:
    """Whether code of this package raised it: a bug, where it is no UserError."""
    last = innermost(error)
    return last is not None and last.filename.startswith(os.path.dirname(__file__) + os.sep)


def collapse(text: str) -> str:
    """All of a text in one line."""
    return " ".join(text.split())


def one_line(message: str, options: list[str]) -> str:
    """Argument, rule, value given and a guess, out of the paragraph that jsonargparse writes.

    Args:
        message: of jsonargparse.
        options: names to guess from, besides those of this package's classes.
    """
    argument, value = _place(message)
    names, classes = known_names()
    if found := re.search(r"unrecognized arguments: (.*)", message):
        option = found[1].split()[0].split("=")[0].lstrip("-")
        return f"unknown option --{option}" + guess(option, options)
    if found := re.search(r"does not accept option '([^']+)'|Option '([^']+)' is not", message):
        option = found[1] or found[2]
        if option == "class_path":
            return CLASS_RULE.format(argument)
        path = argument if argument.endswith(option) else f"{argument}.{option}".lstrip(".")
        pool = options if "Subcommand" in message else names
        return f"unknown option --{path}" + guess(option, pool)
    if found := re.search(r"arguments are required: (.*)", message):
        required = [re.sub(r"^[a-z]+\.", "", name) for name in found[1].split(", ")]
        return ", ".join(f"--{argument}.{r}" if argument else f"--{r}" for r in required) + (
            " is required" if len(required) == 1 else " are required"
        )
    given = class_paths(message)
    if "is abstract" in message:
        return unfinished(argument, given[-1]) if given else CLASS_RULE.format(argument)
    if (found := re.search(r"not correspond to a subclass of (\w+)", message)) and given:
        return f"--{argument} must be a {found[1]}, got {given[-1]}"
    expected = re.findall(r"Expected (?:a )?<class '(\w+)'>", message)
    plain = [name for name in dict.fromkeys(expected) if name in PLAIN_TYPES]
    literals = re.findall(r"Expected (?:a )?typing\.Literal\[(.*?)\](?:\.|\s|$)", message)
    if literals:
        return f"--{argument} must be one of {', '.join(literals)}, got {value}"
    if plain:
        return f"--{argument} must be {' or '.join(plain)}, got {value}"
    if found := re.search(r"Expected a dot import path string: (\S+)", message):
        return f"--{argument}: unknown class {found[1]}" + guess(found[1], classes, argument)
    if found := re.search(r"Parser key \"([^\"]+)\": (File does not exist.*)", message):
        return f"--{found[1]}: {found[2]}"
    problems = (unimportable(argument, path) for path in given)
    return next((problem for problem in problems if problem), collapse(message)[:400])


def class_paths(message: str) -> list[str]:
    """The class paths that a user wrote, on the command line or in a file."""
    path, named = r"([A-Za-z_][\w.]*\.[A-Za-z_]\w*)", r"([A-Za-z_][\w.]*\.[A-Z_]\w*)"
    found = re.findall(rf"'class_path': '{path}'", message)
    # Any other value, such as rows.jsonl, is one only if it is written like a class.
    found += re.findall(rf"val='{named}'", message)
    found += re.findall(rf"Given value: {named}$", message, re.MULTILINE)
    return [path for path in found if not path.startswith("instructgpt.")]


def unimportable(argument: str, path: str) -> str:
    """Why a class path cannot be imported; "" where it can."""
    from instructgpt.types import failed

    module, _, name = path.rpartition(".")
    try:
        getattr(import_module(module), name)
    except AttributeError as error:
        return f"--{argument}: cannot import {path}: {error}"
    except ModuleNotFoundError as error:
        if error.name and f"{module}.".startswith(f"{error.name}."):
            place = "the module must be installed, or in the current directory or PYTHONPATH"
            return f"--{argument}: cannot import {path}: {error} ({place})"
        return str(failed(f"--{argument}: import of {path} failed", error))
    except Exception as error:  # the user's code
        return str(failed(f"--{argument}: import of {path} failed", error))
    return ""


def unfinished(argument: str, path: str) -> str:
    """What is wrong with a class: methods that it lacks, or else how it is written."""
    module, _, name = path.rpartition(".")
    lacking = getattr(getattr(import_module(module), name), "__abstractmethods__", ())
    if not lacking:
        return CLASS_RULE.format(argument)
    return f"--{argument}: {path} must define {', '.join(sorted(lacking))}"


def _place(message: str) -> tuple[str, str]:
    """Dotted name of the argument that jsonargparse complains about, and the value given."""
    keys = re.findall(r'Parser key "([^"]+)"', message)
    given = re.search(r"NestedArg\(key='([^']+)', val='?(.*?)'?\)", message)
    got = re.search(r"Got value: (.*)", message)
    values = re.findall(r"Given value: (.*)", message)
    value = given[2] if given else got[1] if got else values[0] if values else ""
    if not keys:
        return "", value
    if given:
        return f"{keys[0]}.{given[1]}", value
    if len(keys) > 1:
        path = _locate(_literal(values[-1]) if values else None, keys[-1])
        return f"{keys[0]}.{path or '.'.join(keys[1:])}", value
    return keys[0], value


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return None


def _locate(tree: Any, key: str) -> str | None:
    """Path of a key in nested dictionaries, without the levels that only jsonargparse knows."""
    if not isinstance(tree, dict):
        return None
    if key in tree:
        return key
    for name, child in tree.items():
        if (path := _locate(child, key)) is not None:
            return path if name == "init_args" else f"{name}.{path}"
    return None


def known_names() -> tuple[list[str], list[str]]:
    """Names of the arguments and of the classes of this package that are loaded."""
    arguments: dict[str, None] = {}
    classes: dict[str, None] = {}
    for module in [m for name, m in sys.modules.items() if name.startswith("instructgpt.")]:
        for name, member in vars(module).items():
            if inspect.isclass(member) and member.__module__.startswith("instructgpt."):
                classes[name] = None
                arguments.update(dict.fromkeys(inspect.signature(member.__init__).parameters))
    optimizers = vars(sys.modules["torch.optim"]) if "torch.optim" in sys.modules else {}
    return [*arguments], [*classes, *(name for name in optimizers if name[0].isupper())]


def guess(name: str, pool: list[str], argument: str = "") -> str:
    """``; did you mean ...?``, or what there is to choose from, or nothing."""
    others = [other for other in pool if other != name]  # known, but not in this place
    near = difflib.get_close_matches(name, others, 1, cutoff=0.7)
    if near:
        return f"; did you mean {near[0]}?"
    ending = {"model": "Module", "data": "DataModule"}.get(argument)
    choices = [c for c in pool if ending and c.endswith(ending) and not c.startswith("Stage")]
    if argument == "model":
        choices = [c for c in choices if not c.endswith("DataModule")]
    return f" (there are {', '.join(choices)})" if choices else ""


def check_flags(args: Sequence[str], config: Any) -> None:
    """Refuse an option of a nested group that does not exist: jsonargparse drops those in silence.

    Args:
        args: the command line.
        config: what it was parsed to.
    """
    from instructgpt.types import UserError

    for arg in args:
        if not arg.startswith(("--model.", "--data.")):
            continue
        path = arg[2:].partition("=")[0].removesuffix("+")
        node = config
        for name in path.split("."):
            if name in ("class_path", "init_args", "dict_kwargs", "help"):
                break
            if "class_path" in node:
                node = node.get("init_args") or Namespace()
            if name not in node:
                raise UserError(f"unknown option --{path}" + guess(name, list(node.keys())))
            node = node[name]
            if not isinstance(node, Namespace):
                break
