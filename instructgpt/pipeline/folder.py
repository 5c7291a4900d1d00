"""Folders of stages: which are finished, which may be cleared, and who writes to them.

``stage.json`` in a folder is written whole or not at all. It says ``running`` before anything else
is written there, and ``finished`` after everything else is: a folder half written is never taken
for a finished one, whenever the pipeline is killed.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

from instructgpt.models.checkpoint import damage, newest
from instructgpt.models.folder import PARTIAL, make_folder, write_text
from instructgpt.types import UserError
from instructgpt.verbs import VERBS

STAGE_FILE, LOCK_FILE = "stage.json", ".lock"
PEOPLE = ".people"  # shows that people were asked; there before the question is
ANSWER = "comparisons.jsonl"  # what they say
PATIENCE = 30.0  # seconds for the processes of a killed pipeline to go

State = Literal["finished", "running", "stale"]


class Record(NamedTuple):
    """What ``stage.json`` says.

    ``people`` is True once people were asked for something: from then on the folder may hold their
    work and is never cleared. ``files`` are those of the user that the stage reads, as it names
    them; ``answers`` is the hash of the rankings there when it finished. ``threads`` is how many it
    had, where the pipeline gave it more than one.
    """

    state: State
    fingerprint: str
    seconds: float = 0.0
    people: bool = False
    files: tuple[str, ...] = ()
    answers: str = ""
    threads: int = 1


def write_json(path: Path, value: Any) -> None:
    """Write a file whole or not at all.

    Args:
        path: of the file, in an existing folder.
        value: to write.
    """
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_record(folder: Path) -> Record | None:
    """What a folder says about itself; None where it is not a stage's."""
    try:
        record = Record(**json.loads((folder / STAGE_FILE).read_text("utf-8")))
        record = record._replace(files=tuple(record.files))
    except (OSError, ValueError, TypeError):
        return None
    return record._replace(people=record.people or asks_people(folder))


def write_record(folder: Path, record: Record) -> None:
    """Say something about a folder."""
    write_json(folder / STAGE_FILE, record._asdict())


def forget(folder: Path) -> None:
    """Have a stage run anew, however often it is interrupted."""
    if record := read_record(folder):
        write_record(folder, record._replace(state="stale"))


def asks_people(folder: Path) -> bool:
    """Whether a stage asked people for something, be it killed before it could say so."""
    return (folder / PEOPLE).exists()


def answers_of(folder: Path) -> str:
    """Hash of what people wrote."""
    path = folder / ANSWER
    return hashlib.sha256(path.read_bytes() if path.is_file() else b"").hexdigest()


def holds_foreign_answers(folder: Path, record: Record) -> bool:
    """Whether rankings lie in a folder that its stage has not written: somebody put them there."""
    return (folder / ANSWER).is_file() and record.answers != answers_of(folder)


def is_finished(folder: Path, fingerprint: str) -> bool:
    """Whether a stage did all it would do now; what people corrected is to be read again."""
    record = read_record(folder)
    if record is None or record[:2] != ("finished", fingerprint):
        return False
    return not record.people or record.answers == answers_of(folder)


class Start(NamedTuple):
    """How a stage begins: from a checkpoint or anew, and what to tell about it."""

    resumes: bool
    record: Record
    note: str


def check_ours(folder: Path) -> None:
    """Refuse a folder that holds something and is not a stage's."""
    if read_record(folder) is not None or not (folder.exists() or folder.is_symlink()):
        return
    # A name like .stage.json.1@host.tmp is left where a pipeline was killed in its first moment.
    if not folder.is_dir() or any(STAGE_FILE not in path.name for path in folder.iterdir()):
        raise UserError(
            f"{folder} must be a folder of the pipeline (with {STAGE_FILE}), got something else: "
            "move it away or give another --output"
        )


def begin(folder: Path, fingerprint: str, verb: str, files: Sequence[str] = ()) -> Start:
    """Make a folder ready for a stage and mark it as begun.

    Args:
        folder: of the stage.
        fingerprint: of what it will do.
        verb: of the stage.
        files: of the user that it reads.

    Raises:
        UserError: the folder holds something that no pipeline wrote.
    """
    record, resumes, grows, note = read_record(folder), False, False, ""
    if record is None:
        check_ours(folder)
        make_folder(folder)
    elif record.people or holds_foreign_answers(folder, record):
        if record.fingerprint != fingerprint or not record.people:
            note = f"what it needs has changed; the earlier folder is kept as {_set_aside(folder)}"
            record = None
            make_folder(folder)
    elif record[:2] == ("running", fingerprint):
        resumes = VERBS[verb].resumes and damage(newest(folder / "checkpoints")[0]) is None
        grows = any(folder.glob(f"*{PARTIAL}"))
        note = "goes on from its checkpoint" if resumes else "begins again"
        note = "goes on behind the rows that are there" if grows else note
    elif record.state != "stale":
        note = "what it needs has changed: begins again"
    kept = record is not None and record.people
    seconds = record.seconds if record and (resumes or grows) else 0.0
    begun = Record("running", fingerprint, seconds, kept, tuple(files))
    if not resumes and not kept:
        _clear(folder, begun, grows)
    write_record(folder, begun)
    return Start(resumes, begun, note)


def _clear(folder: Path, record: Record, grows: bool) -> None:
    """Empty a folder of ours, but for rows that grow; half emptied, it must not be gone on from."""
    write_record(folder, record._replace(state="stale"))
    for path in folder.iterdir():
        if path.name == STAGE_FILE or (grows and PARTIAL in path.name):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _set_aside(folder: Path) -> Path:
    number = 1
    while (kept := folder.with_name(f"{folder.name}.kept_{number}")).exists():
        number += 1
    return folder.rename(kept)


@contextmanager
def locked_output(output: Path) -> Iterator[None]:
    """Hold the folder of a pipeline, which only one may write to.

    Args:
        output: created if it is not there.

    Raises:
        UserError: another pipeline has it, or it cannot be written.
    """
    try:
        make_folder(output)
        file = (output / LOCK_FILE).open("w")
    except OSError as error:
        raise UserError(f"--output {output} cannot be written: {error.strerror}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"--output {output} is in use by another pipeline") from None
        yield


def wait_until_free(log: Path, patience: float = PATIENCE) -> None:
    """Wait for the processes of an earlier call that still write to a stage.

    They hold a lock on the log, which is their standard output.

    Args:
        log: of the stage.
        patience: seconds.
    """
    deadline = time.monotonic() + patience
    with log.open("ab") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise UserError(f"{log}: a process of an earlier call still runs") from None
            time.sleep(0.05)
