"""Giving an artefact to the Hugging Face hub, after a question."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from instructgpt.terminal import say
from instructgpt.types import UserError, require

HIDDEN = [".*", "*/.*"]  # patterns, of which * stands for any number of folders
NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


class Push(NamedTuple):
    """What is asked of the hub."""

    repository: str
    public: bool
    yes: bool  # nobody is asked


def check_push(asked: Push) -> None:
    """Refuse what could not be uploaded, before anything is computed for it."""
    from huggingface_hub import get_token
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    rule = "the name of a repository of the hub, owner/name"
    require(bool(NAME.fullmatch(asked.repository)), "--push", rule, repr(asked.repository))
    try:
        validate_repo_id(asked.repository)
    except HFValidationError as error:
        raise UserError(f"--push: {error}") from None
    if get_token() is None:
        raise UserError("--push needs a token of the hub, found none: `hf auth login`, or HF_TOKEN")
    if not asked.yes and not sys.stdin.isatty():
        raise UserError("--yes true must be given where no terminal can be asked")


def push(folder: Path, asked: Push) -> None:
    """Show what would be uploaded, ask, and upload it.

    Args:
        folder: an artefact.
        asked: where to.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError

    api = HfApi()
    try:
        there = _there(api, asked)
        _show(folder, f"{api.endpoint}/{asked.repository}, {there.visibility}", there.files)
        if not asked.yes and input("upload? [y/N] ").strip().lower() not in ("y", "yes"):
            say("nothing was uploaded")
            return
        place = _upload(api, folder, asked)
    except EOFError:
        say("nothing was uploaded")
        return
    except (HTTPError, OSError) as error:  # of the hub, and of the network
        raise UserError(f"--push {asked.repository}: {_first_line(error)}") from None
    say(f"uploaded to {place}")


def _upload(api: Any, folder: Path, asked: Push) -> str:
    """Upload all files and return where they are.

    Raises:
        UserError: a file did not arrive, or the hub does not take the card.
    """
    from huggingface_hub.errors import HTTPError

    api.create_repo(asked.repository, private=not asked.public, exist_ok=True)
    wanted = {"repo_id": asked.repository, "folder_path": folder, "ignore_patterns": [*HIDDEN]}
    try:
        done = api.upload_folder(**wanted)
    except HTTPError:
        raise
    except (RuntimeError, ValueError) as error:
        why = " ".join(str(error).split())
        if isinstance(error, RuntimeError) and error.__cause__ is not None:
            why += f" {_first_line(error.__cause__)}; the same command goes on from there"
        raise UserError(f"--push {asked.repository}: {why}") from None
    return str(getattr(done, "repo_url", asked.repository))


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


class There(NamedTuple):
    """What the hub has under the name."""

    visibility: str
    files: list[str]  # their names


def _there(api: Any, asked: Push) -> There:
    """Who will see it: that of a repository which is there already stays."""
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        found = api.repo_info(asked.repository)
    except RepositoryNotFoundError:
        return There(f"a new repository, {'public' if asked.public else 'private'}", [])
    private = bool(found.private)
    if asked.public and private:
        raise UserError(
            f"--public must be left out: {asked.repository} is there and private, which its "
            "settings on the hub can change"
        )
    if not asked.public and not private:
        raise UserError(f"--public true must be given: {asked.repository} is there and public")
    files = [one.rfilename for one in found.siblings or [] if not one.rfilename.startswith(".")]
    return There(f"which is there and {'private' if private else 'public'}", files)


def _show(folder: Path, place: str, others: list[str]) -> None:
    """Print the files, and those of the repository that none of them replaces."""
    files = [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(n.startswith(".") for n in path.relative_to(folder).parts)
    ]
    sizes = [path.stat().st_size for path in files]
    count = f"{len(files)} files, {_size(sum(sizes))}"
    say(f"{folder} -> {place}: {count}")
    names = [path.relative_to(folder).as_posix() for path in files]
    for name, size in zip(names, sizes, strict=True):
        say(f"  {name}  {_size(size)}")
    if stay := sorted(set(others) - set(names)):
        say(f"  there and not among these, stays: {', '.join(stay)}")
    about = folder / "instructgpt.json"
    local = list(dict.fromkeys(_paths(json.loads(about.read_text(encoding="utf-8")))))
    if local:
        say(f"  {about.name} names paths of this machine, such as {local[0]}")


def _paths(value: Any) -> Iterator[str]:
    if isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _paths(one)
    elif isinstance(value, str) and "\n" not in value and PurePath(value).is_absolute():
        yield value


def _size(count: float) -> str:
    """A number of bytes.

    >>> _size(12), _size(1500), _size(269_060_552)
    ('12 B', '1.5 kB', '269.1 MB')
    """
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.1f} {unit}" if unit != "B" else f"{count:.0f} B"
        count /= 1000
    return f"{count:.1f} GB"
