"""What is refused of settings before anything is built from them."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Sequence
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import Namespace

from instructgpt.types import UserError, require
from instructgpt.yaml_files import check_aliases, check_depth, load_yaml

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

UNPLANNED = {
    "GradientAccumulationScheduler": "--trainer.accumulate_grad_batches",
    "BatchSizeFinder": "--data.batch_size",
    "LearningRateFinder": "--model.optimizer.lr",
    "BackboneFinetuning": "--model.trained",
    "ModelPruning": None,
    "StochasticWeightAveraging": "EMAWeightAveraging",
}
"""Callbacks that change what a run does behind its plan, and what to give instead."""

RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "max_epochs": (lambda value: value != 0, ">= 1, or -1 for no limit"),
    "max_steps": (lambda value: value != 0, ">= 1, or -1 for no limit"),
    "max_time": (lambda value: any(c in "123456789" for c in str(value)), "longer than nothing"),
    "min_epochs": (lambda value: value >= 0, ">= 0"),
    "min_steps": (lambda value: value >= 0, ">= 0"),
    "accumulate_grad_batches": (lambda value: value >= 1, ">= 1"),
    "check_val_every_n_epoch": (lambda value: value >= 1, ">= 1 or null"),
    "val_check_interval": (lambda value: not isinstance(value, int | float) or value > 0, "> 0"),
    "gradient_clip_val": (lambda value: 0 <= value < math.inf, ">= 0; 0 does not clip"),
    "log_every_n_steps": (lambda value: value >= 0, ">= 0"),
    "num_sanity_val_steps": (lambda value: value >= -1, ">= -1"),
    "num_nodes": (lambda value: value >= 1, ">= 1"),
    "barebones": (lambda value: not value, "false: checkpoints and export are part of a run"),
    "sync_batchnorm": (lambda value: not value, "false: no model here has batch normalization"),
    "use_distributed_sampler": (
        lambda value: not value,
        "false: each process has its share of the rows anyway",
    ),
    "reload_dataloaders_every_n_epochs": (lambda value: value == 0, "0: rows are read once"),
    "model_registry": (lambda value: False, "null: models are written to --output only"),
}
"""What a number may be; of what would do nothing, only that it is off."""
NEEDED = {
    "fit": "limit_train_batches",
    "validate": "limit_val_batches",
    "test": "limit_test_batches",
    "predict": "limit_predict_batches",
}


def check_trainer(verb: str, settings: Any) -> None:
    """Refuse numbers with which the trainer would do nothing, or something without meaning.

    Args:
        verb: fit, validate, test or predict.
        settings: of the trainer.
    """
    rules = {**RULES, NEEDED[verb]: (lambda value: value > 0, "> 0")}
    for name, (holds, rule) in rules.items():
        value = settings.get(name)
        require(value is None or holds(value), f"--trainer.{name}", rule, value)
    check_strategy(settings.get("strategy"))
    check_loggers(settings.get("logger"))


def check_loggers(loggers: Any) -> None:
    """Refuse keys and passwords, which would stand in config.yaml, checkpoints and exports.

    Args:
        loggers: as they were parsed: a class path with options, a list of those, or a switch.
    """
    for one in loggers if isinstance(loggers, list) else [loggers]:
        for name, value in (getattr(one, "init_args", None) or {}).items():
            if value is not None and name in ("api_key", "api_token"):
                raise UserError(
                    f"--trainer.logger.{name} must be left out, as all options are written down: "
                    "an environment variable of the library can hold it"
                )
            if isinstance(value, str) and re.match(r"[a-z+0-9]+://[^/@]*:[^/@]+@", value):
                raise UserError(
                    f"--trainer.logger.{name} must be without a password, as all options are "
                    "written down: MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD can hold "
                    "one"
                )


def check_strategy(strategy: Any) -> None:
    """Refuse of DeepSpeed all but what was seen to do what one process does.

    Args:
        strategy: a name, or a class path with options.
    """
    name = strategy if isinstance(strategy, str) else getattr(strategy, "class_path", "")
    known = ("deepspeed_stage_2", "deepspeed_stage_3")
    if "deepspeed" in name.lower() and name not in known:
        raise UserError(
            f"--trainer.strategy must not be {name}: of DeepSpeed deepspeed_stage_2 and "
            "deepspeed_stage_3 alone are known to do what one process does"
        )


def check_callbacks(callbacks: Sequence[object]) -> None:
    """Refuse callbacks that work against the plan of a run."""
    for callback in callbacks:
        for kind in type(callback).__mro__:
            if kind.__name__ in UNPLANNED and kind.__module__.startswith("lightning."):
                instead = UNPLANNED[kind.__name__]
                hint = f": give {instead} instead" if instead else ""
                raise UserError(
                    f"--trainer.callbacks must not be {kind.__name__}, which changes what is "
                    f"trained behind the plan{hint}"
                )


def check_processes(trainer: Trainer) -> None:
    """Refuse more processes than a machine can start, and others than were started.

    Where the trainer leaves out some that torchrun or srun have started, each is a run of its own,
    and all write to the same folder.

    Args:
        trainer: with its devices, on each of its nodes.
    """
    devices, nodes = trainer.num_devices, trainer.num_nodes
    most = max(16, os.cpu_count() or 1)
    require(
        trainer.strategy.root_device.type != "cpu" or devices <= most,
        "--trainer.devices",
        f"at most {most} on this machine",
        devices,
    )
    count, name = launched()
    if count not in (1, devices * nodes):
        raise UserError(
            f"--trainer.devices times --trainer.num_nodes must be the {count} processes that "
            f"{name} started, got {devices} times {nodes}"
        )
    alone = count == 1 and "SLURM_JOB_ID" in os.environ and "NODE_RANK" not in os.environ
    require(not alone or nodes == 1, "--trainer.num_nodes", "1 without srun in front", nodes)


def launched() -> tuple[int, str]:
    """How many processes torchrun or srun started this one among, and which; 1 where neither did.

    In a batch script of Slurm, outside of ``srun``, there are tasks but no step.
    """
    for name, mark, count in (
        ("torchrun", "TORCHELASTIC_RUN_ID", "WORLD_SIZE"),
        ("srun", "SLURM_STEP_ID", "SLURM_STEP_NUM_TASKS"),
    ):
        if mark in os.environ and (number := os.environ.get(count, "1")).isdecimal():
            return int(number), name
    return 1, ""


def starter(plugins: Any) -> list[Any]:
    """The plugins of a trainer, and in a job of Slurm what starts its processes.

    Left to itself Lightning takes each process of a job for one of srun's, in the batch script and
    in a step of one task too, and waits for others that nobody starts; lets all steps of a job
    meet at the job's first machine, by one port; and at SIGUSR1 saves in the middle of a step.

    Args:
        plugins: as given, which may say it themselves.
    """
    from lightning.fabric.plugins.environments import (
        ClusterEnvironment,
        LightningEnvironment,
        SLURMEnvironment,
    )

    given = plugins if isinstance(plugins, list) else [] if plugins is None else [plugins]
    own = any(isinstance(one, ClusterEnvironment) for one in given)
    count, name = launched()
    if own or name == "torchrun" or "SLURM_JOB_ID" not in os.environ:
        return given
    if count == 1:
        return [*given, LightningEnvironment()]
    job, step, nodes = (
        int(os.environ[f"SLURM_{n}"]) for n in ("JOB_ID", "STEP_ID", "STEP_NUM_NODES")
    )
    first = SLURMEnvironment.resolve_root_node_address(os.environ["SLURM_STEP_NODELIST"])
    os.environ.setdefault("MASTER_ADDR", first)
    os.environ.setdefault("MASTER_PORT", str(15000 + (job + 1000 * step) % 10000))
    # That of the job says nothing of this step, and is not there after `srun -n 2`.
    os.environ["SLURM_NTASKS_PER_NODE"] = str(count // nodes)
    return [*given, SLURMEnvironment(auto_requeue=False)]


def check_alone(verb: str) -> None:
    """Refuse to do the work of a verb several times at once.

    Args:
        verb: that runs in one process.
    """
    count, name = launched()
    require(count == 1, f"{name}: the processes of {verb}", "1", count)


def check_classes(settings: Any) -> None:
    """Refuse functions where a class is named: parsers call whatever a class path leads to.

    Args:
        settings: of a run, as they were parsed.
    """
    if isinstance(settings, list | tuple):
        for one in settings:
            check_classes(one)
    parts = settings if isinstance(settings, dict) else getattr(settings, "__dict__", {})
    if isinstance(path := parts.get("class_path"), str):
        module, _, name = path.rpartition(".")
        if not isinstance(getattr(import_module(module), name), type):
            raise UserError(f"class_path must name a class, got the function {path}")
    for one in parts.values():
        if isinstance(one, dict | list | tuple | Namespace):
            check_classes(one)


def check_options(args: Sequence[str]) -> None:
    """Refuse what no parser can hold, in options and in the configurations that they name."""
    check_order([arg.partition("=")[0] for arg in args])
    for flag, following in pairwise([*args, ""]):
        name, equals, value = flag.partition("=")
        value = value if equals else following
        check_depth(flag, flag[:40])
        inline = value if equals else flag
        if "*" in inline and "&" in inline:
            check_aliases(inline, flag[:40])
        if is_configuration(name, value) and os.path.isfile(value):
            try:
                text = Path(value).read_text(encoding="utf-8", errors="replace")
            except OSError as error:
                raise UserError(f"{value}: cannot be read: {error.strerror}") from error
            check_depth(text, value)
            check_aliases(text, value)


def check_order(names: Sequence[str]) -> None:
    """Refuse options of a class that is named after them: until then nobody knows what they are.

    Args:
        names: of the options of a command line; others may stand among them.
    """
    for kind in ("--model", "--data"):
        if kind not in names:
            continue
        before = names[: names.index(kind)]
        early = next((name for name in before if name.startswith(f"{kind}.")), None)
        if early is not None and not {"-c", "--config"} & set(before):
            raise UserError(f"{kind} must stand before {early}, got it behind")


def is_configuration(option: str, value: str) -> bool:
    """Whether the value of an option is a file to read options from: data can be JSON, too.

    >>> is_configuration("--data.train", "chats.json"), is_configuration("--data", "chats.json")
    (False, True)
    """
    if option in ("-c", "--config") or value.endswith((".yaml", ".yml")):
        return True
    holds = re.fullmatch(r"--(model|data|trainer)|--(model|trainer)\..*", option)
    return holds is not None and value.endswith(".json")


def check_syntax(args: Sequence[str]) -> None:
    """Name file, line and column of YAML that does not parse; jsonargparse names no file."""
    for flag, value in pairwise([*args, ""]):
        name, _, inline = flag.partition("=")
        path = Path(inline or value)
        if name in ("-c", "--config") and path.is_file():
            found = load_yaml(path)
            if isinstance(found, dict) and "stages" in found:
                raise UserError(
                    f"--config {path} has the stages of a pipeline: python -m instructgpt pipeline "
                    f"--config {path}"
                )
