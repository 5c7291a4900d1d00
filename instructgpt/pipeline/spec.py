"""From the YAML to stages in order, each with what it needs and the command it runs."""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from instructgpt.errors import guess
from instructgpt.pipeline.document import read_document
from instructgpt.pipeline.inputs import fill, given_inputs, without_unneeded
from instructgpt.pipeline.launch import JOBS_FOLDER, StageCall, call_of, read_job, read_launch
from instructgpt.pipeline.matrix import expand_matrix
from instructgpt.pipeline.program import Functions, Program
from instructgpt.pipeline.references import RUN_INFO, Names, expand, named_stages
from instructgpt.types import UserError
from instructgpt.verbs import VERBS
from instructgpt.yaml_files import load_yaml

DEFAULT_JOBS = 2
RUN_FILE = "pipeline.json"
RESERVED = {"config": "is a key of the stage", "output": "is given by the pipeline"}


class Stage(NamedTuple):
    """One run of a verb; ``{name}`` in its options is the folder of another stage."""

    name: str
    verb: str
    configs: list[str]
    options: dict[str, Any]  # the seed among them
    inputs: list[str]
    cost: float | None  # relative seconds
    launch: list[str]  # words in front of it, such as torchrun
    job: dict[str, Any]  # what a job of Slurm is submitted with; empty for a process here
    threads: int  # that it computes with, each in the place of a stage beside it


class Spec(NamedTuple):
    """A whole pipeline."""

    path: Path
    output: Path
    seed: int
    jobs: int
    stages: dict[str, Stage]
    document: dict[str, Any]

    def folder(self, name: str) -> Path:
        """Where a stage writes; of ``pipeline``, the file that says what was run."""
        return self.output / (RUN_FILE if name == RUN_INFO else name)

    def log(self, name: str) -> Path:
        """Where a stage prints to."""
        return self.output / f"{name}.log"

    def call(self, stage: Stage, program: Program, arguments: list[str]) -> StageCall:
        """How a stage is started.

        Args:
            stage: of this pipeline.
            program: that a stage is.
            arguments: of the stage, the verb first.
        """
        jobs = self.output / JOBS_FOLDER / stage.name
        call = call_of(program, stage.launch, stage.job, jobs, arguments)
        return call._replace(threads=self.places(stage.name))

    def places(self, name: str) -> int:
        """How many stages could run in the place of a stage: as many as it has threads."""
        return min(self.stages[name].threads, self.jobs)

    def dependents(self, name: str) -> list[str]:
        """Stages that read what a stage writes, and those that read what they write."""
        found = [name]
        for stage in self.stages.values():
            if set(found) & set(stage.inputs):
                found.append(stage.name)
        return found[1:]

    def arguments(self, stage: Stage) -> list[str]:
        """The command line of a stage, the verb first."""
        folder = self.folder(stage.name)
        output = folder / VERBS[stage.verb].writes
        arguments = [stage.verb]
        for config in stage.configs:
            arguments += ["--config", config]
        arguments += ["--output", str(output)]
        for name, value in stage.options.items():
            value = expand(value, lambda name: str(self.folder(name)))
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            arguments.append(f"--{name}={text}")
        return arguments


def read_spec(
    path: Path,
    functions: Functions,
    output: Path | None = None,
    seed: int | None = None,
    jobs: int | None = None,
    inputs: Mapping[str, str] = MappingProxyType({}),
) -> Spec:
    """Read and check a pipeline.

    Args:
        path: of the YAML file.
        functions: of the plain verbs that a stage can run; their parameters are its options.
        output: instead of that in the file.
        seed: instead of that in the file.
        jobs: instead of those in the file.
        inputs: of the file, which the command line gives.
    """
    document = read_document(path)
    if not document["stages"]:
        raise UserError(f"{path}: stages must name at least one stage, got none")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    defaults = {"output": f"runs/{path.stem}", "seed": 0, "jobs": min(DEFAULT_JOBS, cores or 1)}
    given = {"output": output and str(output), "seed": seed, "jobs": jobs}
    given = {name: value for name, value in given.items() if value is not None}
    document = {**defaults, **document, **given}
    document["inputs"] = given_inputs(document["inputs"], inputs, path)
    for name, least in {"seed": 0, "jobs": 1}.items():
        if document[name] < least:
            raise UserError(f"{path}: {name} must be >= {least}, got {document[name]}")
    stages = _stages(document, path, functions)
    folder = Path(os.path.expanduser(document["output"]))
    return Spec(path, folder, document["seed"], document["jobs"], stages, document)


def _stages(document: dict[str, Any], path: Path, functions: Functions) -> dict[str, Stage]:
    """All stages in order."""
    inputs = document["inputs"]
    matrix = {
        axis: without_unneeded(values, inputs, f"{path}: matrix.{axis}")
        for axis, values in document["matrix"].items()
    }
    needed = without_unneeded(document["stages"], inputs, f"{path}: stages")
    unneeded = {key: one for key, one in document["stages"].items() if key not in needed}
    trees = expand_matrix({"matrix": matrix, "stages": needed, "unneeded": unneeded}, path)
    stages: dict[str, Stage] = {}
    for name, tree in trees.items():
        if name in inputs:
            raise UserError(f"{path}: stages.{name} must not be called like an input")
        names = Names(list(trees), list(stages))
        place = f"{path}: stages.{name}"
        for key in ("options", "launch", "slurm"):
            tree = {**tree, key: fill(tree.get(key, ""), inputs, f"{place}.{key}")}
        stages[name] = _stage(name, tree, names, document["seed"], functions, place)
    return stages


def _stage(
    name: str, tree: dict[str, Any], names: Names, seed: int, functions: Functions, place: str
) -> Stage:
    verb = str(tree.get("verb"))
    there = [name for name, one in VERBS.items() if one.trainer or name in functions]
    if verb not in there:
        hint = guess(verb, there) or f" (there are {', '.join(there)})"
        raise UserError(f"{place}.verb: unknown verb {verb!r}{hint}")
    options: dict[str, Any] = {}
    inputs: list[str] = []
    # Those of Lightning's verbs cannot be told without building a parser.
    function = functions.get(verb)
    parameters = None if function is None else inspect.signature(function).parameters
    known = None if parameters is None else list(parameters)
    for option, value in tree["options"].items():
        _check_option(option, verb, known, f"{place}.options")
        if value is None and known is not None:  # as text it would be the word "null"
            continue
        options[option] = value
        inputs += named_stages(value, names, f"{place}.options.{option}")
    configs = tree.get("config", [])
    for config in configs:
        if not Path(config).is_file():
            raise UserError(f"{place}.config must be an existing file, got {config}")
    if parameters is not None:
        _check_required(verb, parameters, {*map(_first, options), *_keys(configs)}, place)
    if known is None or "seed" in known:
        options = {VERBS[verb].seed_option: seed, **options}
    inputs = list(dict.fromkeys(inputs))
    launch = read_launch(tree["launch"], f"{place}.launch")
    job = read_job(tree["slurm"], f"{place}.slurm")
    threads = tree.get("threads", 1)
    return Stage(name, verb, configs, options, inputs, tree.get("cost"), launch, job, threads)


def _first(option: str) -> str:
    """``answers`` of ``answers.sft`` and of ``answers+``."""
    return option.rstrip("+").split(".")[0]


def _keys(configs: list[str]) -> set[str]:
    """What config files of a stage give."""
    trees = [load_yaml(Path(path)) for path in configs]
    rows = [tree.items() for tree in trees if isinstance(tree, dict)]
    return {_first(str(key)) for row in rows for key, value in row if value is not None}


def _check_required(
    verb: str, parameters: Mapping[str, inspect.Parameter], given: set[str], place: str
) -> None:
    """Refuse now to run without what the verb needs; a stage has nobody to ask."""
    required = [name for name, one in parameters.items() if one.default is one.empty]
    for name in (*required, *VERBS[verb].asks):
        if name not in given:
            raise UserError(f"{place}.options: {verb} needs {name}, got none")


def _check_option(option: Any, verb: str, known: list[str] | None, place: str) -> None:
    """Refuse now what the stage would refuse after minutes."""
    name = _first(str(option))
    if option in RESERVED or (option == "ckpt_path" and VERBS[verb].resumes):
        raise UserError(f"{place}: {option} {RESERVED.get(option, RESERVED['output'])}: leave out")
    if not isinstance(option, str) or (known is not None and name not in known):
        raise UserError(f"{place}: unknown option {option!r}{guess(name, known or [])}")
