"""Whether a stage would do again what it did: one hash over its settings and what it reads.

Code and installed versions are not looked at: after changing them, ``--from`` begins again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from instructgpt.pipeline.document import load_yaml
from instructgpt.pipeline.references import RUN_INFO
from instructgpt.pipeline.spec import Spec, Stage
from instructgpt.types import UserError

PATH_LIMIT = 1024  # characters; longer text is no path


def fingerprints(spec: Spec) -> dict[str, str]:
    """A hash for each stage: verb, options, config files, files it reads, and its inputs' hashes.

    Comments do not count, nor does where the pipeline writes to.

    Args:
        spec: the pipeline.
    """
    contents = Contents(spec)
    hashes: dict[str, str] = {}
    for name in spec.stages:
        hashes[name] = fingerprint(spec.stages[name], hashes, contents)
    return hashes


def fingerprint(stage: Stage, hashes: dict[str, str], contents: Contents) -> str:
    """The hash of one stage.

    Args:
        stage: the stage.
        hashes: of its inputs.
        contents: reads files.
    """
    configs = [load_yaml(Path(path)) for path in stage.configs]
    what = {
        "verb": stage.verb,
        "options": stage.options,
        "configs": configs,
        "inputs": {name: hashes[name] for name in stage.inputs},
        "files": {name: contents.of(name) for name in named_files(stage, configs, contents)},
    }
    return digest(json.dumps(what, default=str).encode())


def digest(data: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def named_files(stage: Stage, configs: list[Any], contents: Contents) -> list[str]:
    """Files and folders that options and config files name, where an option does not overrule.

    Args:
        stage: with its options.
        configs: contents of its config files.
        contents: says what is a file.
    """
    given: dict[str, list[str]] = {}
    for config in configs:
        for path, text in leaves(config):
            given.setdefault(path, []).append(text)
    found = [text for value in stage.options.values() for _, text in leaves(value)]
    options = [_plain(name) for name in stage.options if not name.endswith("+")]
    for path, texts in given.items():
        if path != "output" and not any(f"{path}.".startswith(f"{name}.") for name in options):
            found += texts
    return sorted({text for text in found if contents.is_external(text)})


def _plain(option: str) -> str:
    return option.replace(".init_args", "")


def leaves(tree: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Every text in a tree with its dotted option; of keys, those of ``{file: weight}``.

    Examples:
        >>> list(leaves({"model": {"init_args": {"init_from": "a"}}}))
        [('model.init_from', 'a')]
        >>> list(leaves({"data": {"train": {"b.jsonl": 0.5}}}))
        [('data.train', 'b.jsonl')]
    """
    if isinstance(tree, dict):
        for key, value in tree.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                yield path, str(key)
            inner = path if key == "init_args" else f"{path}.{key}".lstrip(".")
            yield from leaves(value, inner)
    elif isinstance(tree, list):
        for value in tree:
            yield from leaves(value, path)
    elif isinstance(tree, str):
        yield path, tree


class Contents:
    """Hashes of files and folders, each read once.

    Args:
        spec: the pipeline, which reads nothing that it writes.
    """

    def __init__(self, spec: Spec) -> None:
        self._written = [spec.folder(name).resolve() for name in (*spec.stages, RUN_INFO)]
        self._hashes: dict[Path, str] = {}

    def is_external(self, text: str) -> bool:
        """Whether a text is the path of something the pipeline does not write itself."""
        if not text or len(text) > PATH_LIMIT or "\n" in text or "\0" in text:
            return False
        try:
            path = Path(text).expanduser().resolve()
            there = path.is_file() or path.is_dir()
        except (OSError, RuntimeError):
            return False
        around = (path, *path.parents)
        return there and not any(own in around or path in own.parents for own in self._written)

    def of(self, text: str) -> str:
        """Hash of a file, or of the names and contents of all files in a folder.

        Args:
            text: the path.
        """
        path = Path(text).expanduser().resolve()
        if path.is_dir():
            files = sorted(file for file in path.rglob("*") if file.is_file())
            rows = [f"{file.relative_to(path)} {self._of_file(file)}" for file in files]
            return digest("\n".join(rows).encode())
        return self._of_file(path)

    def _of_file(self, path: Path) -> str:
        if path not in self._hashes:
            try:
                with path.open("rb") as file:
                    self._hashes[path] = hashlib.file_digest(file, "sha256").hexdigest()
            except OSError as error:
                raise UserError(f"{path}: cannot be read: {error.strerror}") from error
        return self._hashes[path]
