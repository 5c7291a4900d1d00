"""Interrupting stages, the toy among them, and comparing what comes of it."""

import json
import os
import signal

import torch
from toy_stage import ToyModule

from instructgpt.__main__ import main as run
from instructgpt.callbacks.checkpoint import StageCheckpoint
from instructgpt.modules.base import StageModule

SIGNALS = {
    "kill": [signal.SIGKILL],
    "terminate": [signal.SIGTERM],
    "interrupt": [signal.SIGINT],
    "interrupt twice": [signal.SIGINT] * 2,
}


def kill_at(step):
    """Die without a word before an optimizer step, in this process alone."""
    original = StageModule.on_before_optimizer_step

    def dying(self, optimizer):
        if self.global_step == step:
            os.kill(os.getpid(), signal.SIGKILL)
        original(self, optimizer)

    StageModule.on_before_optimizer_step = dying


def killed(args, hook, step, later=0):
    """Run in a child that kills itself, before a checkpoint can be written there; how it ended.

    Args:
        args: of the command.
        hook: of a callback, in which it does.
        step: optimizer steps made by then, at least.
        later: calls of the hook that come first, such as batches of a step that is accumulated.
    """
    original, calls = getattr(StageCheckpoint, hook), []

    def dying(self, trainer, *rest):
        if trainer.global_step >= step:
            calls.append(step)
            if len(calls) > later:
                os.kill(os.getpid(), signal.SIGKILL)
        original(self, trainer, *rest)

    return ended(args, StageCheckpoint, hook, dying)


def interrupt_at(monkeypatch, step):
    """Ctrl-C while the optimizer step after ``step`` others is made."""
    original, sent = ToyModule.training_step, []

    def training_step(self, rows, batch_idx):
        if self.trainer.global_step == step and not sent:
            sent.append(step)
            os.kill(os.getpid(), signal.SIGINT)
        return original(self, rows, batch_idx)

    monkeypatch.setattr(ToyModule, "training_step", training_step)


def state(folder):
    """Of a finished run, all that an interruption must not change."""
    last = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    metrics = json.loads((folder / "metrics.json").read_text())
    del metrics["seconds"]
    samples = folder / "samples.jsonl"
    export = torch.load(folder / "export" / "weights.pt", weights_only=True)
    return {
        "step": last["global_step"],
        "weights": {name: value.tolist() for name, value in last["state_dict"].items()},
        "optimizer": repr(last["optimizer_states"]),
        "schedule": repr(last["lr_schedulers"]),
        "metrics": metrics,
        "samples": samples.read_text() if samples.exists() else None,
        "export": export["0.weight"].tolist(),
    }


def stopped(args, kind, step, place="training_step"):
    """Run in a child that signals itself at an optimizer step; how it ended."""
    original, sent = getattr(ToyModule, place), []

    def signalled(self, rows, batch_idx):
        if self.trainer.global_step == step and not sent:
            for number in SIGNALS[kind]:
                sent.append(number)
                os.kill(os.getpid(), number)
        return original(self, rows, batch_idx)

    return ended(args, ToyModule, place, signalled)


def ended(args, kind, name, method):
    """Run in a child in which a class has another method; how it ended."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 1
    try:
        setattr(kind, name, method)
        code = run(args)
    finally:
        os._exit(code)


def interrupt_call(monkeypatch, kind, name, number):
    """Ctrl-C in that call of a method; the calls that were made, as they come."""
    original, calls = getattr(kind, name), []

    def method(self, *args):
        calls.append(1)
        if len(calls) == number:
            raise KeyboardInterrupt
        return original(self, *args)

    monkeypatch.setattr(kind, name, method)
    return calls


def resumed(output):
    """What the same command goes on with: nothing where no state was written yet."""
    there = (output / "checkpoints" / "last.ckpt").exists()
    return ["--ckpt_path=last"] if there else []
