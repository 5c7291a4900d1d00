"""Run a preparation: refuse, go on, or say that nothing is to be done."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from instructgpt.data.progress import Progress
from instructgpt.hygiene.executors import (
    Executor,
    Job,
    Slurm,
    on_ray,
    ray_executor,
    run_here,
    slurm_executors,
)
from instructgpt.hygiene.inputs import MARK, contents, fingerprint, size_of
from instructgpt.hygiene.output import WriteOutput, check_unchanged
from instructgpt.hygiene.reading import cut
from instructgpt.hygiene.recipe import Cleaning
from instructgpt.hygiene.steps import DECISION, DecidePass, ShardPass, stage_of
from instructgpt.hygiene.work import RAW, Work
from instructgpt.models.folder import check_replaceable, write_text
from instructgpt.models.lock import locked
from instructgpt.terminal import say
from instructgpt.types import UserError

RECIPE, SUBMITTED = "recipe.json", "submitted.json"


@dataclass(frozen=True)
class Machine:
    """Where it runs.

    Args:
        executor: kind.
        num_proc: processes, or tasks of a cluster at the same time.
        slurm: what Slurm is told.
    """

    executor: Executor
    num_proc: int
    slurm: Slurm


def run(names: Sequence[str], output: Path, recipe: Cleaning, machine: Machine) -> None:
    """Prepare the input, unless the output is there.

    Args:
        names: of the input.
        output: folder to write.
        recipe: what is done.
        machine: where.
    """
    output = output.absolute()
    check_apart(names, output)
    check_replaceable(output, MARK)
    found = fingerprint(names)
    facts = {"input": found, **recipe.facts()}
    facts["contents"] = {one: contents(one) for one in facts["made_from"]}
    mark = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    work = Work(str(output.with_name(f".{output.name}.work")))
    if is_there(output, mark):
        say(f"{output} is up to date: the same rows, rules and options")
        clear(work, mark)
        return
    with locked(Path(work.folder), "prepare"):
        begin(work, mark)
        _cut(names, work)
        shards = work.read_json(RAW, "all")["shards"]
        finish = WriteOutput(work, recipe, str(output), tuple(names), mark)
        jobs = jobs_of(work, recipe, shards, finish)
        if machine.executor == "slurm":
            submit(jobs, work, machine)
            return
        run_jobs(jobs, work, machine)
    shutil.rmtree(work.folder)


def check_apart(names: Sequence[str], output: Path) -> None:
    """Refuse to write where the input lies.

    Args:
        names: of the input.
        output: folder.
    """
    place = output.resolve()
    for name in names:
        path = Path(name).expanduser().resolve()
        if place == path or place in path.parents:
            raise UserError(f"--output must not be where the input is ({name}), got {output}")


def is_there(output: Path, mark: str) -> bool:
    """Whether the folder holds what would be written; what somebody changed there is refused.

    Args:
        output: folder.
        mark: fingerprint of the preparation.
    """
    try:
        written = json.loads((output / MARK).read_bytes())
        same, files = written["fingerprint"] == mark, dict(written["files"])
    except FileNotFoundError:
        return False
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"--output {output}: {MARK} is damaged: move the folder away") from None
    check_unchanged(output, files)
    if not same:
        say(f"{output} holds rows of another input, recipe or version: they are replaced")
    return same


def clear(work: Work, mark: str) -> None:
    """Remove what the jobs of a cluster have left, which cannot do it themselves.

    Args:
        work: folder of a preparation that is done.
        mark: its fingerprint; the folder of another one stays.
    """
    if begun(work, mark) and not waiting(work):
        shutil.rmtree(work.folder)


def begun(work: Work, mark: str) -> bool:
    """Whether the folder is of this preparation."""
    path = work.path(RECIPE)
    return path.is_file() and path.read_text() == mark


def begin(work: Work, mark: str) -> None:
    """Go on from what an interrupted run of the same preparation has left, else begin anew.

    Args:
        work: its folder, locked.
        mark: fingerprint of the preparation.
    """
    if begun(work, mark):
        say(f"goes on from what is in {work.folder}")
        return
    for one in Path(work.folder).iterdir():
        if one.is_dir():
            shutil.rmtree(one)
        elif not one.name.startswith(".fit.lock"):
            one.unlink()
    write_text(work.path(RECIPE), mark)


def _cut(names: Sequence[str], work: Work) -> None:
    if work.path(RAW, "all.json").exists():
        return
    with Progress("reading", size_of(names)) as progress:
        cut(names, work, progress.add)


def jobs_of(work: Work, recipe: Cleaning, shards: int, finish: WriteOutput) -> list[Job]:
    """All that is to be done once the input is cut, in order.

    Args:
        work: folder.
        recipe: what is done.
        shards: of the input.
        finish: writes the output.
    """
    jobs = []
    for number, one in enumerate(recipe.passes):
        stage = stage_of(number)
        jobs.append(Job(stage, ShardPass(work, recipe, number), shards))
        if one.every:
            decide = Job(f"{stage}-{DECISION}", DecidePass(work, recipe, number), 1)
            jobs.append(decide)
    return [*jobs, Job("output", finish, 1)]


def run_jobs(jobs: Sequence[Job], work: Work, machine: Machine) -> None:
    """Run all jobs, one after the other.

    Args:
        jobs: in order.
        work: folder.
        machine: where.
    """
    logs = work.path("logs")
    if machine.executor == "ray":
        with on_ray():
            for job in jobs:
                ray_executor(job, logs, machine.num_proc).run()
        return
    rows = work.read_json(RAW, "all")["rows"]
    for place, job in enumerate(jobs, 1):
        what = f"{place} of {len(jobs)}: {about(job)}"
        with Progress(what, rows if job.tasks > 1 else 0) as progress:
            add = partial(_add, progress, rows, job.tasks)
            run_here(job, logs / job.name, machine.num_proc, add)


def _add(progress: Progress, rows: int, tasks: int, task: int) -> None:
    """A task is over: it had its share of the rows."""
    share = rows * (task + 1) // tasks - rows * task // tasks
    progress.add(share, share)


def about(job: Job) -> str:
    """What a job does, for people."""
    if not isinstance(job.step, ShardPass | DecidePass):
        return "writing"
    own, recipe = job.step.rules, job.step.recipe
    if isinstance(job.step, DecidePass):
        return "deciding on " + ", ".join(recipe.rules[place].name for place in own.every)
    each = [recipe.rules[place].name for place in own.each]
    return ", ".join(each) or ("checking" if job.step.number == 0 else "writing rows")


def submit(jobs: Sequence[Job], work: Work, machine: Machine) -> None:
    """Hand the jobs to Slurm, unless they wait or run there.

    Args:
        jobs: in order.
        work: folder, on a disk that all nodes see.
        machine: where.
    """
    if not machine.slurm.partition:
        raise UserError("--slurm.partition must name a partition for --executor slurm, got none")
    if shutil.which("sbatch") is None:
        raise UserError("--executor slurm must find sbatch, got none on this machine")
    if alive := waiting(work):
        say(f"{len(alive)} jobs of this preparation wait or run: {', '.join(alive)}")
        return
    chain = slurm_executors(jobs, work.path("logs"), machine.slurm, machine.num_proc)
    chain[-1].run()  # it begins those it depends on
    numbers = [str(one.job_id) for one in chain if one.job_id not in (None, -1)]
    write_text(work.path(SUBMITTED), json.dumps(numbers))
    say(f"handed to Slurm: jobs {', '.join(numbers)}; the same command says whether they are done")


def waiting(work: Work) -> list[str]:
    """Which jobs of a preparation Slurm still knows.

    Args:
        work: its folder.
    """
    path = work.path(SUBMITTED)
    if not path.is_file():
        return []
    numbers = json.loads(path.read_text())
    command = ["squeue", "--noheader", "--format=%A", f"--jobs={','.join(numbers)}"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()
    except OSError:
        return []
    return sorted(set(found) & set(numbers))
