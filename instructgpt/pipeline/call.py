"""One call of the pipeline, from the file to the last line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from instructgpt.errors import guess
from instructgpt.pipeline.board import Board, make_board
from instructgpt.pipeline.fingerprint import check_files, fingerprints
from instructgpt.pipeline.folder import check_ours, forget, is_finished, locked_output, read_record
from instructgpt.pipeline.launch import check_there
from instructgpt.pipeline.program import Program
from instructgpt.pipeline.record import RunRecord
from instructgpt.pipeline.references import RUN_INFO
from instructgpt.pipeline.runner import StageRunner
from instructgpt.pipeline.spec import Spec, read_spec
from instructgpt.terminal import duration, say
from instructgpt.types import UserError, require
from instructgpt.verbs import VERBS


def run_pipeline(
    config: str,
    program: Program,
    output: str | None = None,
    seed: int | None = None,
    only: str | None = None,
    first: str | None = None,
    jobs: int | None = None,
    board: Board | None = None,
    inputs: Mapping[str, str] = MappingProxyType({}),
    dry_run: bool = False,
) -> None:
    """Run a pipeline.

    Args:
        config: the YAML file.
        program: what runs a stage.
        output: folder to write to, instead of that in the file.
        seed: instead of that in the file.
        only: run these stages alone, separated by commas.
        first: run this stage and all that depends on it anew.
        jobs: stages side by side.
        board: where to show progress.
        inputs: of the file, by name.
        dry_run: only say what would be run.
    """
    _check_call(config, output, seed, jobs)
    place = None if output is None else Path(output)
    spec = read_spec(Path(config), program.functions, place, seed, jobs, inputs)
    names = list(spec.stages) if only is None else _named(only, spec, "--only")
    again = [] if first is None else _named(first, spec, "--from")
    for name in again:
        if name not in names:
            raise UserError(f"--from {name}: must be among --only, got {only}")
    hashes = fingerprints(spec)
    if dry_run:
        _tell(names, _finished(names, again, spec, hashes), spec, program)
        return
    options: dict[str, Any] = {"config": config, "output": output, "seed": seed}
    options |= {"only": only, "from": first, "jobs": jobs, **inputs}
    with locked_output(spec.output):
        done = _finished(names, again, spec, hashes)
        _check_inputs(names, done, spec)
        _check_places(names, spec)
        _check_starts([name for name in names if name not in done], spec)
        for name in names:
            if name not in again:
                check_files(spec.stages[name], read_record(spec.folder(name)))
        for name in again:
            forget(spec.folder(name))
        record = RunRecord(spec, hashes, options)
        board = board or make_board()
        for name, value in spec.document["inputs"].items():
            board.say(
                f"input     {name}: {told(value)}" + ("" if name in inputs else "  (default)")
            )
        StageRunner(spec, hashes, names, done, board, record, program, again=bool(again)).run()
        _conclude(names, spec, record, board)


def _check_call(config: str, output: str | None, seed: int | None, jobs: int | None) -> None:
    """Refuse values that no pipeline can have."""
    if not Path(config).is_file():
        raise UserError(f"--config must be an existing file, got {config} (in {Path.cwd()})")
    for name, value, least in (("seed", seed, 0), ("jobs", jobs, 1)):
        require(value is None or value >= least, f"--{name}", f">= {least}", value)
    if output is not None and not output.strip():
        raise UserError(f"--output must name a folder, got {output!r}")


def _tell(names: list[str], done: set[str], spec: Spec, program: Program) -> None:
    """Say what would be run, as it would be started."""
    for name in names:
        stage = spec.stages[name]
        command = spec.call(stage, program, spec.arguments(stage)).shown
        say(f"{name}: finished" if name in done else f"{name}: {command}")


def told(value: Any) -> str:
    """The value of an input in a line."""
    return "none" if value in ([], {}, "") else str(value)


def _named(text: str, spec: Spec, option: str) -> list[str]:
    """Stages in their order."""
    asked = [name.strip() for name in text.split(",") if name.strip()]
    for name in asked:
        if name not in spec.stages:
            hint = guess(name, list(spec.stages)) or f" (there are {', '.join(spec.stages)})"
            raise UserError(f"{option}: unknown stage {name!r}{hint}")
    if not asked:
        raise UserError(f"{option} must name a stage, got {text!r}")
    return [name for name in spec.stages if name in asked]


def _finished(names: list[str], again: list[str], spec: Spec, hashes: dict[str, str]) -> set[str]:
    """Stages that need not run: all they read was there, and is not made anew in this call."""
    done: set[str] = set()
    anew: set[str] = set()  # what is run now, and all that would have to be because of it
    for name, stage in spec.stages.items():
        finished = name not in again and is_finished(spec.folder(name), hashes[name])
        if anew & set(stage.inputs) or (name in names and not finished):
            anew.add(name)
        elif finished:
            done.add(name)
    return done


def _check_inputs(names: list[str], done: set[str], spec: Spec) -> None:
    """Refuse to run a stage whose inputs will not be there."""
    for name in names:
        for need in spec.stages[name].inputs:
            if need not in names and need not in done:
                raise UserError(
                    f"--only {name}: its input {need} must be finished with this configuration: "
                    f"add it to --only"
                )


def _check_places(names: list[str], spec: Spec) -> None:
    """Refuse to write where something else is."""
    for name in names:
        check_ours(spec.folder(name))
    for file in (spec.folder(RUN_INFO), *map(spec.log, names)):
        if file.is_dir():
            raise UserError(f"{file} must be a file, got a folder: move it away")


def _check_starts(names: list[str], spec: Spec) -> None:
    """Refuse what this machine cannot start."""
    for name in names:
        check_there(spec.stages[name].launch, spec.stages[name].job, f"stages.{name}")


def _conclude(names: list[str], spec: Spec, record: RunRecord, board: Board) -> None:
    """Say where everything is."""
    for name in names:
        report = VERBS[spec.stages[name].verb].report
        if report and (spec.folder(name) / report).is_file():
            board.say(f"report: {spec.folder(name) / report}")
    stages = f"{len(names)} stage" + "s" * (len(names) != 1)
    board.say(f"{stages} finished in {duration(record.seconds)}: {spec.output}")
