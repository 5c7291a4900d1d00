"""Run the stages that are not finished, side by side where their inputs allow it."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import wait
from typing import Any, NamedTuple

from instructgpt.errors import WAITING, WRONG_INPUT, collapse
from instructgpt.pipeline.board import Board
from instructgpt.pipeline.fingerprint import FileHashes, fingerprint, named_files
from instructgpt.pipeline.folder import (
    Record,
    answers_of,
    asks_people,
    begin,
    forget,
    read_record,
    wait_until_free,
    write_record,
)
from instructgpt.pipeline.forecast import Forecast, longest_ways
from instructgpt.pipeline.process import Child
from instructgpt.pipeline.program import Program
from instructgpt.pipeline.record import RunRecord
from instructgpt.pipeline.spec import Spec
from instructgpt.terminal import say
from instructgpt.types import UserError, WaitingForLabelsError

POLL_SECONDS = 0.1
REDRAW_SECONDS = 0.25
REPEAT_SECONDS = 0.5  # `timeout` signals the process and then its group: that is one request
ERROR_LINE = "instructgpt: error: "
WAITING_LINE = "instructgpt: "
LAST_LINES = 15


class Failure(NamedTuple):
    """How a stage ended that did not end well."""

    name: str
    code: int
    child: Child


class StageRunner:
    """One call of the pipeline, which holds the lock of its folder.

    Args:
        spec: the pipeline.
        hashes: fingerprint of each stage.
        names: the stages to run unless they are done.
        done: stages that need not run.
        board: where to tell.
        record: of what was run.
        program: what runs a stage.
        again: the call asked for stages to be run anew.
    """

    def __init__(
        self,
        spec: Spec,
        hashes: dict[str, str],
        names: list[str],
        done: set[str],
        board: Board,
        record: RunRecord,
        program: Program,
        again: bool = False,
    ) -> None:
        self.spec, self.hashes, self.board = spec, hashes, board
        self.record, self.program = record, program
        self.same = "the same command without --from" if again else "the same command"
        self.done = set(done)
        self.skipped = [name for name in names if name in self.done]
        ways = longest_ways(spec.stages)  # the longest first, the first of the list if equal
        waiting = [name for name in names if name not in self.done]
        self.waiting = sorted(waiting, key=lambda name: -ways[name])
        self.running: dict[str, tuple[Child, Record]] = {}
        self.problems: list[Failure | UserError] = []  # after one, nothing new starts
        self.signals: list[int] = []
        records = {name: read_record(spec.folder(name)) for name in self.done}
        measured = {name: found.seconds for name, found in records.items() if found}
        self.forecast = Forecast(spec, names, measured)
        self._told, self._shown, self._signalled = False, 0.0, 0.0

    def run(self) -> None:
        """Run until nothing is left to do or to wait for.

        Raises:
            UserError: the input of a stage was wrong.
            WaitingForLabelsError: people are asked to do something.
            SystemExit: a stage failed, or the pipeline was interrupted.
        """
        if self.skipped:
            self.board.say(f"finished earlier: {', '.join(self.skipped)}")
        try:
            with self._listening():
                while self._start_ready() or self.running:
                    self._collect()
                    self._show()
        finally:
            for child, _ in self.running.values():
                child.send(signal.SIGKILL)
                child.close()
            self.board.close()
            with self._careful("pipeline.json"):
                self.record.write(self.running, final=True)
        self._report()

    @contextmanager
    def _careful(self, name: str) -> Iterator[None]:
        """What goes wrong with one stage is told at the end: the others may save and end."""
        try:
            yield
        except UserError as error:
            self.problems.append(UserError(f"{name}: {error}"))
        except OSError as error:
            self.problems.append(UserError(f"{name}: {collapse(str(error))}"))

    # -- starting

    def _start_ready(self) -> bool:
        """Start what can start; whether anything did."""
        started = False
        for name in list(self.waiting):
            taken = sum(map(self.spec.places, self.running))
            if self.problems or self.signals or taken >= self.spec.jobs:
                break
            if set(self.spec.stages[name].inputs) <= self.done:
                if taken + self.spec.places(name) > self.spec.jobs:
                    break  # those behind it would take its place again and again
                with self._careful(name):
                    self._start(name)
                    started = True
        return started

    def _start(self, name: str) -> None:
        stage, folder, log = self.spec.stages[name], self.spec.folder(name), self.spec.log(name)
        contents = FileHashes(self.spec)
        if fingerprint(stage, self.hashes, contents) != self.hashes[name]:
            raise UserError(f"what it reads changed while the pipeline ran: run {self.same} again")
        wait_until_free(log)
        for other in self.spec.dependents(name):  # made of what is replaced now
            forget(self.spec.folder(other))
        start = begin(folder, self.hashes[name], stage.verb, named_files(stage, contents))
        arguments = self.spec.arguments(stage)
        arguments += ["--ckpt_path", "last"] if start.resumes else []
        self.waiting.remove(name)
        self.record.write([*self.running, name])
        self.board.say(f"start     {name}" + (f"  ({start.note})" if start.note else ""))
        call = self.spec.call(stage, self.program, arguments)
        record = start.record._replace(threads=call.threads)
        self.running[name] = (Child(call, log), record)

    # -- ending

    def _collect(self) -> None:
        """Wait a moment and take note of stages that ended."""
        wait([child.sentinel for child, _ in self.running.values()], POLL_SECONDS)
        self._forward_signals()
        for name, (child, record) in list(self.running.items()):
            if child.code is None:
                continue
            seconds = child.seconds
            child.close()
            del self.running[name]
            with self._careful(name):
                self._ended(name, child, record._replace(seconds=record.seconds + seconds))

    def _ended(self, name: str, child: Child, record: Record) -> None:
        folder = self.spec.folder(name)
        code = child.code or 0
        people = record.people or code == WAITING or asks_people(folder)
        record = record._replace(people=people)
        if code == 0:
            record = record._replace(state="finished", answers=answers_of(folder))
        write_record(folder, record)
        if code == 0:
            self.done.add(name)
            self.forecast.measured[name] = record.seconds
        self.record.write(self.running)
        if code == 0:
            said = child.lines()[-1:] if people else []  # how many are ranked
            self.board.say("  ".join([f"finished  {name}", f"{record.seconds:.1f} s", *said]))
        elif self.signals:
            self.board.say(f"stopped   {name}")
        else:
            if self.spec.stages[name].launch and code == 1 and _said(child, ERROR_LINE):
                code = WRONG_INPUT  # torchrun ends with 1, whatever its processes say
            self.problems.append(Failure(name, code, child))
            others = ", ".join(self.running)
            rest = f"; {others} may end, nothing new starts" if others else ""
            verb = "waits" if code == WAITING else "failed"
            self.board.say(f"{verb:9} {name}{rest}")

    def _report(self) -> None:
        """End as the first stage that did not end well asks for."""
        for problem in self.problems[0 if self.signals else 1 :]:
            say(_explain(problem), error=True)
        if self.signals:
            self.board.say(f"stopped; {self.same} goes on from here")
            raise SystemExit(128 + self.signals[0])
        if not self.problems:
            return
        failure = self.problems[0]
        if isinstance(failure, UserError):
            raise failure
        if failure.code == WAITING:
            raise WaitingForLabelsError(_explain(failure))
        if failure.code == WRONG_INPUT:
            raise UserError(_explain(failure))
        for line in failure.child.lines()[-LAST_LINES:]:
            say(f"  {line}", error=True)
        say(f"{ERROR_LINE}{_explain(failure)}", error=True)
        raise SystemExit(1)

    # -- signals

    @contextmanager
    def _listening(self) -> Iterator[None]:
        """Pass the first Ctrl-C on to the stages, which save and stop; the second kills them."""
        asked = [
            s for s in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(s) != signal.SIG_IGN
        ]
        before = {number: signal.signal(number, self._on_signal) for number in asked}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, frame: Any) -> None:
        now = time.monotonic()
        if not self.signals or now - self._signalled > REPEAT_SECONDS:
            self.signals.append(number)
            self._signalled = now

    def _forward_signals(self) -> None:
        """Not in the handler, where a stage may just be starting or ending."""
        asked = min(len(self.signals), 2)
        for child, _ in self.running.values():
            if child.signals < asked:
                child.signals = asked
                child.send(self.signals[0] if asked == 1 else signal.SIGKILL)
        if asked and not self._told:
            self.board.say(
                "stopping: fit saves its state, other stages will begin again; "
                "once more stops at once"
            )
            self._told = True

    # -- progress

    def _show(self) -> None:
        if time.monotonic() - self._shown > REDRAW_SECONDS:
            self._shown = time.monotonic()
            children = {name: child for name, (child, _) in self.running.items()}
            status = self.forecast.status(children, self.waiting, self.record.seconds)
            self.board.update(status)


def _explain(failure: Failure | UserError) -> str:
    """One line: the stage, what it said, its log."""
    if isinstance(failure, UserError):
        return str(failure)
    for code, start in ((WRONG_INPUT, ERROR_LINE), (WAITING, WAITING_LINE)):
        said = _said(failure.child, start)
        if failure.code == code and said:
            return f"{failure.name}: {said[-1]} (log: {failure.child.log})"
    how = f"exit code {failure.code}" if failure.code > 0 else f"signal {-failure.code}"
    hint = ", perhaps for want of memory" if failure.code == -signal.SIGKILL else ""
    return f"{failure.name} ended with {how}{hint}; its log is {failure.child.log}"


def _said(child: Child, start: str) -> list[str]:
    """What follows in the lines that begin so."""
    return [line.removeprefix(start) for line in child.lines() if line.startswith(start)]
