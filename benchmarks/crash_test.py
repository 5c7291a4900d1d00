"""Kill `fit` at random and at awkward moments, go on, and compare with a run that was left alone.

    python benchmarks/crash_test.py --trials 105

Each trial is one stage (SFT, reward model, DPO, IPO, PPO, PPO-ptx, RLOO, RAFT; whole or with LoRA,
accumulated, streamed, in pieces of so many tokens) in a process of its own, forked from this one,
that is stopped four to six times: by SIGKILL, SIGTERM or Ctrl-C after a random time, by any of
them at optimizer steps, the last of an epoch among them, or by SIGKILL in the middle of writing a
checkpoint. After each the same command goes on with `--ckpt_path last`, or anew where there was no
checkpoint yet. Every other trial has a TMPDIR on another file system. At the end weights, optimizer
state, state of the phase, metrics, samples and export must be bit for bit those of the run that was
left alone. A signal counts where the run ended by it: one that came after its end hit nothing.
What was found goes into results/crash_test.json after each trial.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file

import instructgpt.commands.preload  # noqa: F401  # the children must not import it again
import instructgpt.models.checkpoint as files
from instructgpt.__main__ import main as command
from instructgpt.callbacks.checkpoint import StageCheckpoint
from instructgpt.models.shard_files import SHARDS, whole_again

HERE = Path(__file__).parent
ROOT = HERE.parent
OTHER_FILE_SYSTEM = Path("/dev/shm")
PATIENCE = 900.0  # seconds for one run
TOO_LATE = 124  # the exit code of one that takes longer
STOPPED = {-9, -15, 130, 143}
"""Exit codes of a run that a signal ended."""
CLOCKS = ("seconds", "time/", "throughput/")  # beginnings of names under which runs may differ
PLACES = (
    *("output", "dirpath", "best_model_path", "kth_best_model_path", "last_model_path"),
    "best_k_models",
)

SHORT = "--checkpoint.every_n_steps=2 --trainer.enable_progress_bar=false"
ADAPTER = "--config configs/overlays/lora.yaml"
STREAM = "--data.streaming=true --data.shuffle_buffer=20 --trainer.max_epochs=-1"
PHASES = "--trainer.max_epochs=4 --trainer.check_val_every_n_epoch=2"
DPO = "--config configs/dpo.yaml --trainer.max_epochs=2 --data.batch_size=16"
PPO = (
    f"--config configs/ppo.yaml {PHASES} "
    "--model.batches.rollout_batch_size=16 --model.batches.minibatch_size=8"
)
CASES = {
    "sft": "--config configs/sft.yaml --trainer.max_epochs=2 --data.batch_size=16",
    "sft_accumulated": "--config configs/sft.yaml --trainer.max_epochs=2 "
    "--trainer.accumulate_grad_batches=3 --trainer.val_check_interval=4",
    "sft_steps": "--config configs/sft.yaml --trainer.max_epochs=-1 --trainer.max_steps=13 "
    "--trainer.check_val_every_n_epoch=2 --data.batch_size=16",
    "sft_lora": f"--config configs/sft.yaml {ADAPTER} --trainer.max_epochs=2 --data.batch_size=16",
    "sft_lora_accumulated": f"--config configs/sft.yaml {ADAPTER} --trainer.max_epochs=2 "
    "--trainer.accumulate_grad_batches=2 --trainer.val_check_interval=3",
    "sft_streamed": f"--config configs/sft.yaml {STREAM} --trainer.max_steps=12 "
    "--data.validation=null",
    "sft_tokens": "--config configs/sft.yaml --trainer.max_epochs=2 --data.batch_size=16 "
    "--model.network.max_tokens=128",
    "reward": "--config configs/reward.yaml --trainer.max_epochs=2 --data.batch_size=16",
    "reward_streamed": f"--config configs/reward.yaml {STREAM} --trainer.max_steps=12 "
    "--data.validation=null",
    "reward_lora": f"--config configs/reward.yaml {ADAPTER} --trainer.max_epochs=2 "
    "--data.batch_size=16",
    "dpo": DPO,
    "dpo_precomputed": f"{DPO} --model.precompute=true",
    "dpo_lora": f"{DPO} {ADAPTER}",
    "ipo": DPO.replace("dpo.yaml", "ipo.yaml") + " --model.network.max_tokens=512",
    "ppo": PPO,
    "ppo_steps": f"{PPO} --trainer.max_steps=7 --model.algorithm.epochs=2",
    "ppo_lora": f"{PPO} {ADAPTER}",
    "ppo_ptx": PPO.replace("ppo.yaml", "ppo_ptx.yaml")
    + " --trainer.accumulate_grad_batches=2 --model.pretraining.ptx_per_episode=1",
    "ppo_tokens": f"{PPO} --model.network.max_tokens=128",
    "rloo": PPO.replace("ppo.yaml", "rloo.yaml"),
    "raft": f"--config configs/raft.yaml {PHASES} "
    "--model.batches.rollout_batch_size=32 --model.batches.minibatch_size=2",
}
STARTS = {
    "pretrain": "--config configs/pretrain.yaml --trainer.max_steps=20",
    "sft": "--config configs/sft.yaml --trainer.max_epochs=1",
    "reward": "--config configs/reward.yaml --trainer.max_epochs=1",
}


class Stop(NamedTuple):
    """One interruption.

    ``seconds`` is when the parent sends it; otherwise the run does so itself: at the beginning of
    the optimizer step ``step``, or, where ``write`` is a number, at that call of ``write`` for a
    checkpoint file.
    """

    number: signal.Signals
    seconds: float | None = None
    step: int | None = None
    write: int | None = None

    def __str__(self) -> str:
        """Such as ``SIGINT at step 3``."""
        if self.seconds is not None:
            return f"{self.number.name} after {self.seconds:.2f} s"
        return f"{self.number.name} at " + (
            f"step {self.step}" if self.step is not None else f"write {self.write}"
        )


def main() -> None:
    """Make the trials and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=105)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=CASES)
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "crash_test")
    parser.add_argument("--results", type=Path, default=HERE / "results" / "crash_test.json")
    options = parser.parse_args()
    os.chdir(ROOT)
    torch.set_num_threads(1)
    runs = options.runs.resolve()
    shutil.rmtree(runs, ignore_errors=True)
    begin = time.monotonic()
    for name in STARTS:
        expect_success(arguments(runs, name, STARTS[name], "start"), runs / "start.log")
    alone: dict[str, tuple[float, int]] = {}
    trials = []
    for number in range(options.trials):
        name = options.cases[number % len(options.cases)]
        if name not in alone:
            alone[name] = left_alone(runs, name)
        rng = random.Random(f"{options.seed} {number}")
        kind = (number + number // len(options.cases)) % 3
        trials.append(trial(runs, number, name, moments(rng, kind, *alone[name])))
        found = summary(trials, time.monotonic() - begin)
        options.results.parent.mkdir(exist_ok=True)
        options.results.write_text(json.dumps(found, indent=1) + "\n")
        print(f"{number + 1}/{options.trials}, {found['signals']} hit: {trials[-1]}", flush=True)
    print(f"{len(trials)} trials, {len(found['different'])} different: {options.results}")
    if found["different"]:
        raise SystemExit(1)


def summary(trials: list[dict[str, Any]], seconds: float) -> dict[str, Any]:
    """What the results file says of all trials."""
    hits = [hit for one in trials for hit in one["hits"]]
    return {
        "trials": len(trials),
        "signals": len(hits),
        "of each signal": Counter(hits),
        "signals after the end of a run": sum(one["missed"] for one in trials),
        "of each case": Counter(one["case"] for one in trials),
        "signals of each case": Counter(one["case"] for one in trials for _ in one["hits"]),
        "TMPDIR on another file system": sum(one["other_tmpdir"] for one in trials),
        "different": [one for one in trials if one["differences"]],
        "minutes": round(seconds / 60, 1),
        "all": trials,
    }


def arguments(runs: Path, name: str, options: str, folder: str) -> list[str]:
    """A command line that takes its models from the runs made first."""
    args = ["fit", *options.split(), *SHORT.split(), "--output", str(runs / folder / name)]
    start = runs / "start"
    if "pretrain.yaml" not in options:
        source = "sft" if "sft.yaml" not in options else "pretrain"
        args += ["--model.init_from", str(start / source / "export")]
    if any(f"/{name}" in options for name in ("ppo", "rloo", "raft")):
        args += ["--model.reward.init_args.init_from", str(start / "reward" / "export")]
    return args


def left_alone(runs: Path, name: str) -> tuple[float, int]:
    """Run a case to its end; its seconds and optimizer steps."""
    begin = time.monotonic()
    expect_success(arguments(runs, name, CASES[name], "alone"), runs / f"{name}.log")
    seconds = time.monotonic() - begin
    last = torch.load(runs / "alone" / name / "checkpoints" / "last.ckpt", weights_only=True)
    return seconds, int(last["global_step"])


def moments(rng: random.Random, kind: int, seconds: float, steps: int) -> list[Stop]:
    """What happens to a trial: one of three is left to chance, two are constructed."""
    count = rng.choice([4, 5, 6])
    numbers = [signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT]
    if kind == 1:
        at = sorted(rng.sample(range(steps), min(count, steps)))
        return [Stop(rng.choice(numbers), step=step) for step in at]
    if kind == 2:
        return [Stop(signal.SIGKILL, write=rng.randint(1, 200)) for _ in range(count)]
    stops, rest = list[Stop](), 0.9 * seconds
    for _ in range(count):
        stops.append(Stop(rng.choice(numbers), rng.uniform(0.1, rest)))
        rest -= (stops[-1].seconds or 0) / 2  # what is done by then is mostly not done again
    return stops


def trial(runs: Path, number: int, name: str, stops: list[Stop]) -> dict[str, Any]:
    """Run a case with interruptions to its end and compare it."""
    folder, log = runs / "killed" / name, runs / "killed.log"
    shutil.rmtree(folder, ignore_errors=True)
    args = arguments(runs, name, CASES[name], "killed")
    other = number % 2 == 1
    tmpdir = tempfile.mkdtemp(dir=OTHER_FILE_SYSTEM) if other else None
    happened, hits, missed = list[str](), list[str](), 0
    for stop in [*stops, None]:
        found = any(
            (folder / "checkpoints" / name).is_file() for name in (files.LAST, files.PREVIOUS)
        )
        code = run([*args, *(["--ckpt_path=last"] if found else [])], log, stop, tmpdir)
        happened.append(f"{stop}: code {code}" if stop else f"code {code}")
        if stop and code in STOPPED:
            hits.append(stop.number.name)
        else:
            missed = int(stop is not None)
            break
    if tmpdir:
        shutil.rmtree(tmpdir)
    ended = code == 0
    differences = compare(runs / "alone" / name, folder) if ended else [f"ended with code {code}"]
    if differences:
        shutil.copytree(folder, runs / f"different_{number}", dirs_exist_ok=True)
        shutil.copy(log, runs / f"different_{number}.log")
    log.unlink()
    return {
        "case": name,
        "stops": happened,
        "hits": hits,
        "missed": missed,
        "other_tmpdir": other,
        "differences": differences[:5],
    }


def run(args: list[str], log: Path, stop: Stop | None, tmpdir: str | None = None) -> int:
    """Run a command in a fork of this process; its exit code, negative for a signal."""
    child = os.fork()
    if child == 0:
        code = 70
        try:
            code = inside(args, log, stop, tmpdir)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    begin, sent, seconds = time.monotonic(), False, 0.0
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status) if seconds < PATIENCE else TOO_LATE
        seconds = time.monotonic() - begin
        if stop and stop.seconds is not None and not sent and seconds >= stop.seconds:
            os.kill(child, stop.number)
            sent = True
        if seconds >= PATIENCE:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.01)


def inside(args: list[str], log: Path, stop: Stop | None, tmpdir: str | None) -> int:
    """What the child does."""
    log.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for stream in (1, 2):
        os.dup2(file, stream)
    print("$", *args, f"({stop})", flush=True)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background of a shell
    if tmpdir is not None:
        os.environ["TMPDIR"] = tempfile.tempdir = tmpdir
    if stop is not None and stop.step is not None:
        interrupt_at_step(stop.number, stop.step)
    if stop is not None and stop.write is not None:
        interrupt_at_write(stop.number, stop.write)
    return command(args)


def interrupt_at_step(number: int, step: int) -> None:
    """Send this process a signal as a step begins, or the first one after it."""
    original: Callable[..., None] = StageCheckpoint.on_train_batch_start
    sent = []

    def on_train_batch_start(self: Any, trainer: Any, *rest: Any) -> None:
        original(self, trainer, *rest)
        if not sent and trainer.global_step >= step:
            sent.append(step)
            os.kill(os.getpid(), number)

    StageCheckpoint.on_train_batch_start = on_train_batch_start  # type: ignore[method-assign]


def interrupt_at_write(number: int, count: int) -> None:
    """Send this process a signal in the middle of writing a checkpoint."""
    original: Callable[..., int] = files.Watched.write
    calls = []

    def write(self: Any, data: Any) -> int:
        calls.append(1)
        if len(calls) == count:
            os.kill(os.getpid(), number)
        return original(self, data)

    files.Watched.write = write  # type: ignore[method-assign]


def expect_success(args: list[str], log: Path) -> None:
    """Run a command that nothing happens to."""
    if code := run(args, log, None):
        raise SystemExit(f"{' '.join(args)}: code {code}, see {log}")


def compare(alone: Path, killed: Path) -> list[str]:
    """Names of what is not the same in two runs."""
    found = []
    for name in ("last.ckpt", "best.ckpt"):
        paths = [folder / "checkpoints" / name for folder in (alone, killed)]
        if paths[0].exists() or paths[1].exists():
            one, other = (whole_again(torch.load(p, weights_only=True), p) for p in paths)
            for checkpoint in (one, other):
                del checkpoint["loops"], checkpoint["epoch"]  # they know the hook that saved
                checkpoint.pop(SHARDS, None)  # where its tensors are
            found += differences(one, other, name)
    for path in sorted((alone / "export").rglob("*.safetensors")):
        same = killed / path.relative_to(alone)
        found += differences(load_file(path), load_file(same), f"export/{path.name}")
    metrics = [json.loads((folder / "metrics.json").read_text()) for folder in (alone, killed)]
    found += differences(*metrics, "metrics.json")
    samples = [folder / "samples.jsonl" for folder in (alone, killed)]
    if samples[0].exists() and samples[0].read_bytes() != samples[1].read_bytes():
        found.append("samples.jsonl")
    left = [str(path) for path in killed.rglob("*") if path.name.startswith(".")]
    return found + left + [str(p) for p in killed.rglob(files.PREVIOUS)]


def differences(one: Any, other: Any, place: str) -> list[str]:
    """Places in two trees of values at which they are not the same."""
    if isinstance(one, dict) and isinstance(other, dict):
        names = {n for n in (*one, *other) if not str(n).startswith(CLOCKS) and n not in PLACES}
        missing = [f"{place} {name}" for name in names if (name in one) != (name in other)]
        both = [name for name in names if name in one and name in other]
        return missing + [
            d for name in both for d in differences(one[name], other[name], f"{place} {name}")
        ]
    if isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        pairs = enumerate(zip(one, other, strict=True))
        return [d for i, (a, b) in pairs for d in differences(a, b, f"{place} {i}")]
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return [] if torch.equal(one, other) else [place]
    return [] if one == other else [place]


if __name__ == "__main__":
    main()
