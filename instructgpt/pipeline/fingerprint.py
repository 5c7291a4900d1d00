"""Whether a stage would do again what it did: one hash over its settings and what it reads.

Code and installed versions are not looked at: after changing them, ``--from`` begins again.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from instructgpt.data.files import is_known
from instructgpt.pipeline.folder import LOCK_FILE, Record
from instructgpt.pipeline.launch import JOBS_FOLDER
from instructgpt.pipeline.references import RUN_INFO
from instructgpt.pipeline.spec import Spec, Stage
from instructgpt.types import UserError
from instructgpt.yaml_files import load_yaml

PATH_LIMIT = 1024  # characters; longer text is no path


def fingerprints(spec: Spec) -> dict[str, str]:
    """A hash for each stage: verb, options, config files, files it reads, and its inputs' hashes.

    Comments do not count, nor does where the pipeline writes to, nor what starts a stage
    (``launch``, ``slurm``): the same processes, started in another way, do the same; and so do, but
    for rounding, more ``threads``.

    Args:
        spec: the pipeline.
    """
    contents = FileHashes(spec)
    hashes: dict[str, str] = {}
    for name in spec.stages:
        hashes[name] = fingerprint(spec.stages[name], hashes, contents)
    return hashes


def fingerprint(stage: Stage, hashes: dict[str, str], contents: FileHashes) -> str:
    """The hash of one stage.

    Args:
        stage: the stage.
        hashes: of its inputs.
        contents: reads files.
    """
    what = {
        "verb": stage.verb,
        "options": stage.options,
        "configs": [load_yaml(Path(path)) for path in stage.configs],
        "inputs": {name: hashes[name] for name in stage.inputs},
        "files": {name: contents.of(name) for name in named_files(stage, contents)},
    }
    return digest(json.dumps(what, default=str).encode())


def digest(data: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def named_files(stage: Stage, contents: FileHashes) -> list[str]:
    """Files and folders that a stage names, and that the pipeline does not write itself.

    Args:
        stage: with its options and config files.
        contents: says what is a file.

    Raises:
        UserError: it names what a stage writes without saying so: it would not wait for it.
    """
    found = set()
    for option, text in texts(stage):
        inside = contents.written_by_stage(text)
        if inside and not inside.startswith(f"{{{stage.name}}}"):  # in its own folder it may write
            raise UserError(
                f"stages.{stage.name}: {option} must name a stage in braces, got {text}: write "
                f'{option}: "{inside}" among the options of {stage.name}'
            )
        if contents.is_external(text):
            found.add(text)
    return sorted(found)


def check_files(stage: Stage, record: Record | None) -> None:
    """Refuse to begin a stage again because a file is gone: it would only be cleared, and fail.

    Args:
        stage: to be run.
        record: what its folder says.
    """
    if record is None or record.state == "stale":
        return
    named = {text for _, text in texts(stage)}
    for name in record.files:
        if name in named and not Path(name).expanduser().exists() and not _matching(name):
            raise UserError(
                f"{stage.name}: {name}, which it read before, must exist (in {Path.cwd()}); "
                f"--from {stage.name} runs it anew without"
            )


def texts(stage: Stage) -> Iterator[tuple[str, str]]:
    """Every text in options and config files with its option, where nothing overrules it.

    Args:
        stage: with its options and config files.
    """
    for name, value in stage.options.items():
        yield from leaves(value, name)
    tree: Any = {}
    for path in stage.configs:
        tree = _overlaid(tree, load_yaml(Path(path)) or {})
    options = [_plain(name) for name in stage.options if not name.endswith("+")]
    for path, text in leaves(tree):
        if path != "output" and not any(f"{path}.".startswith(f"{name}.") for name in options):
            yield path, text


def _overlaid(base: Any, own: Any) -> Any:
    """A config file with a later one on top."""
    if isinstance(base, dict) and isinstance(own, dict):
        return base | {key: _overlaid(base.get(key), value) for key, value in own.items()}
    return own


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


class FileHashes:
    """Hashes of files and folders, each read once.

    Args:
        spec: the pipeline, which reads nothing that it writes.
    """

    def __init__(self, spec: Spec) -> None:
        self._own = {spec.folder(name).resolve(): name for name in (*spec.stages, RUN_INFO)}
        output = spec.output.resolve()
        logs = [output / spec.log(name).name for name in spec.stages]
        self._written = {output, output / LOCK_FILE, output / JOBS_FOLDER, *self._own, *logs}
        self._hashes: dict[Path, str] = {}

    def is_external(self, text: str) -> bool:
        """Whether a text is the path of something the pipeline does not write itself."""
        path = _path(text)
        if path is None or not {path, *path.parents}.isdisjoint(self._own):
            return False
        there = os.path.isfile(path) or os.path.isdir(path)  # unlike Path's, never raises
        return there or bool(_matching(text))

    def written_by_stage(self, text: str) -> str:
        """A path with the name of the stage that writes it in braces; nothing for other texts.

        Args:
            text: that may be a path; a word alone is none, even if a stage is called like it.
        """
        path = _path(text)
        if path is None or os.sep not in text:
            return ""
        for folder in (path, *path.parents):
            if name := self._own.get(folder):
                return str(Path(f"{{{name}}}", path.relative_to(folder)))
        return ""

    def of(self, text: str) -> str:
        """Hash of a file, or of the names and contents of all files in a folder or of a pattern.

        Args:
            text: the path.
        """
        path = Path(text).expanduser().resolve()
        if not path.exists() and (files := _matching(text)):
            rows = [f"{file.name} {self.of(str(file))}" for file in files]
            return digest("\n".join(rows).encode())
        if path.is_dir():
            rows = [f"{f.relative_to(path)} {self._of_file(f)}" for f in sorted(self._inside(path))]
            return digest("\n".join(rows).encode())
        return self._of_file(path)

    def _inside(self, folder: Path) -> Iterator[Path]:
        """All files below a folder but what the pipeline writes."""
        for root, folders, names in os.walk(folder):
            folders[:] = [name for name in folders if Path(root, name) not in self._written]
            files = {Path(root, name) for name in names} - self._written
            yield from (file for file in files if file.is_file())

    def _of_file(self, path: Path) -> str:
        if path not in self._hashes:
            try:
                with path.open("rb") as file:
                    self._hashes[path] = hashlib.file_digest(file, "sha256").hexdigest()
            except OSError as error:
                raise UserError(f"{path}: cannot be read: {error.strerror}") from error
        return self._hashes[path]


def _matching(text: str) -> list[Path]:
    """What a pattern of files matches, such as ``data/*.parquet``; nothing for other texts."""
    path = _path(text) if glob.has_magic(text) else None
    if path is None or not (os.sep in text or is_known(path)):
        return []
    found = [Path(match) for match in sorted(glob.glob(str(path)))]
    return [match for match in found if match.is_file() or match.is_dir()]


def _path(text: str) -> Path | None:
    """Where a text leads to, if it can be a path; ``.`` is the end of a sentence."""
    if not text.strip("./~ ") or len(text) > PATH_LIMIT or "\n" in text or "\0" in text:
        return None
    try:
        return Path(text).expanduser().resolve()
    except (OSError, RuntimeError):
        return None
