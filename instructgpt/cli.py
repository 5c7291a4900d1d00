"""The trainer verbs: LightningCLI in subclass mode, one folder per run, one line per error."""

from __future__ import annotations

import inspect
import logging
import os
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from copy import deepcopy
from enum import Enum
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import rich
import yaml
from jsonargparse import Namespace
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from lightning.pytorch.utilities.exceptions import MisconfigurationException

# Importing a class is what makes its short name known on the command line.
import instructgpt.algorithms
import instructgpt.data.comparisons
import instructgpt.data.demonstrations
import instructgpt.data.prompts
import instructgpt.modules.ppo
import instructgpt.modules.preference
import instructgpt.modules.reward
import instructgpt.modules.sft
import instructgpt.rewards.learned
import instructgpt.rewards.mixture
import instructgpt.rewards.rules
from instructgpt.callbacks.checkpoint import StageCheckpoint
from instructgpt.callbacks.defaults import default_callbacks, forced_callbacks
from instructgpt.callbacks.doctor import Doctor, learning_by_heart
from instructgpt.callbacks.export import Beside
from instructgpt.callbacks.lightning_private import OpenCLI, is_restoring
from instructgpt.callbacks.logged_runs import end_runs, go_on_in_runs, tensorboard
from instructgpt.callbacks.resume import history
from instructgpt.callbacks.traces import Traces
from instructgpt.data.base import StageData
from instructgpt.data.text import TextDataModule
from instructgpt.errors import OneLineParser, check_flags, collapse, is_ours, user_message
from instructgpt.models.checkpoint import load_checkpoint, newest
from instructgpt.models.folder import check_replaceable, check_writable
from instructgpt.models.lock import InUseError, locked
from instructgpt.models.source import ARTEFACT_FILE
from instructgpt.modules.base import StageModule
from instructgpt.settings import (
    check_callbacks,
    check_classes,
    check_processes,
    check_syntax,
    check_trainer,
    starter,
)
from instructgpt.types import UserError

for _module in iter_modules(instructgpt.algorithms.__path__):  # a new algorithm is one file
    import_module(f"instructgpt.algorithms.{_module.name}")

TRAINER_DEFAULTS = {
    "use_distributed_sampler": False,  # our loaders cut the global batch themselves
    "inference_mode": False,  # a cache made in validation must not break training
    "num_sanity_val_steps": 0,
    "enable_model_summary": False,  # the plan names the networks
    "log_every_n_steps": 10,
}
SHARED = ("tokenizer", "seed")
"""What model and data must agree on, so that it is given once."""
USAGE = "python -m instructgpt {} [--config FILE ...] [--section.option VALUE ...]"
QUIET_WARNINGS = (
    r".*LeafSpec.*is deprecated",  # torch 2.13 with lightning 2.6
    r".*functional.all_gather is deprecated",
    r".*Total length of `list` across ranks is zero",  # no validation, which the summary shows
    r".*module\(s\) in eval mode",  # frozen models and averages
    r".*does not have many workers",
    r".*smaller than the logging interval",
    r".*It is recommended to use `self.log\(.*sync_dist=True",  # our metrics reduce themselves
    r".*Checkpoint directory .* exists and is not empty",
    r".*`torch\.jit\..*` is (deprecated|not supported)",
)
QUIET_LINES = (
    "GPU available",
    "TPU available",
    "HPU available",
    "Seed set",
    "💡",
    "`Trainer.fit`",
    "Loading `train_dataloader`",
    "Detected KeyboardInterrupt",
)


class StageParser(OneLineParser, LightningArgumentParser):
    """Lightning's parser with one-line errors."""

    def __init__(
        self, *args: Any, prog: str | None = "python -m instructgpt VERB", **kwargs: Any
    ) -> None:
        super().__init__(*args, prog=prog, **kwargs)  # jsonargparse names none for --model.help


class StageCLI(OpenCLI):
    """``fit``, ``validate``, ``test`` and ``predict`` for any stage with any data that fits it."""

    def __init__(self, args: list[str]) -> None:
        self.verb = args[0] if args else None
        self.checkpoint_step: int | None = None
        self.changes: list[str] = []  # what resumes have changed
        super().__init__(
            StageModule,
            StageData,
            save_config_callback=None,
            trainer_defaults=TRAINER_DEFAULTS,
            seed_everything_default=0,
            parser_kwargs={
                "prog": "python -m instructgpt",
                "allow_abbrev": False,
                **{v: {"usage": USAGE.format(self.called or v)} for v in self.subcommands()},
            },
            parser_class=StageParser,
            subclass_mode_model=True,
            subclass_mode_data=True,
            args=args,
            auto_configure_optimizers=False,
        )

    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add what belongs to no class."""
        parser.add_argument(
            "--seed_everything",
            type=int,
            default=0,
            help="One seed for new weights, data order, dropout and sampling.",
        )
        parser.add_argument(
            "--output",
            type=str | None,
            help="Folder of the run: configuration, checkpoints, TensorBoard events, samples, "
            "metrics and export/ (default: runs/STAGE).",
        )
        parser.add_argument(
            "--export",
            type=bool | None,
            help="Write export/ at the end of fit (default: unless --trainer.fast_dev_run).",
        )
        parser.add_argument(
            "--bands",
            type=dict | None,
            sub_configs=True,
            help="File of the bands in which the metrics of this recipe move (its place is beside "
            "the YAML that names it): fit draws them and says when a run leaves them.",
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the options of the checkpoints and of the doctor."""
        parser.add_lightning_class_args(StageCheckpoint, "checkpoint")
        parser.add_lightning_class_args(Doctor, "doctor")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse, decide on the folder, and fill in what model and data share."""
        self.config = parser.parse_args(args)
        verb, config = self.config.subcommand, self.config[self.config.subcommand]
        check_flags(args, config)
        check_classes(config)
        check_trainer(verb, config.trainer)
        root = config.trainer.default_root_dir
        for name, folder in (("output", config.output), ("trainer.default_root_dir", root)):
            if folder is not None and not str(folder).strip():
                raise UserError(f"--{name} must name a folder, got {folder!r}")
        if config.output and root and config.output != root:
            raise UserError(f"--trainer.default_root_dir is --output {config.output}, got {root}")
        stage = _import(config.model.class_path).stage
        config.output = config.output or root or f"runs/{stage}"
        if config.doctor.overfit is not None:  # no run, and in nobody's way
            config.output, config.export = f"{config.output}/overfit", False
        check_writable(Path(config.output), "--output")
        if verb == "fit" and config.export is not False and not config.trainer.fast_dev_run:
            check_replaceable(Path(config.output, "export"), ARTEFACT_FILE)
        asked = config.clone()
        asked.ckpt_path = None  # to run the file again must not mean to resume
        self.config_text = self.verb_parser(verb).dump(asked, skip_unset=False)
        self.run_config = yaml.safe_load(self.config_text)
        config.trainer.default_root_dir = config.output
        _share(config)

    def hyperparameters(self) -> dict[str, Any]:
        """Those of the run, and what model and data share."""
        plain = {name: deepcopy(self.run_config[name]) for name in ("model", "data")}
        for name, section in plain.items():
            used = self.config[self.config.subcommand][name].get("init_args", {})
            section.get("init_args", {}).update({n: used[n] for n in SHARED if n in used})
        return plain

    def read_checkpoint(self) -> None:
        """Check that the checkpoint is of the class asked for, and take nothing else from it."""
        config = self.config[self.config.subcommand]
        name = config.get("ckpt_path")
        if name is None:
            return
        path, note, folder = Path(name), "", Path(config.output, "checkpoints")
        if name == "last":
            path, note = newest(folder)
        elif name == "best":
            path = folder / "best.ckpt"
        if path.parent == folder and not path.is_file():
            raise UserError(
                f"--ckpt_path must be an existing checkpoint, got {path}; where the run was moved, "
                "--output must be its new folder"
            )
        checkpoint = load_checkpoint(path, "--ckpt_path")
        if note:
            rank_zero_warn(note)
        found = checkpoint["instructgpt"]["class_path"]
        asked = _import(config.model.class_path)  # of which the configuration has the public name
        if found != f"{asked.__module__}.{asked.__qualname__}":
            raise UserError(
                f"--ckpt_path {path} must hold a {asked.__name__}, "
                f"got a {found.rpartition('.')[2]}; another stage starts from --model.init_from"
            )
        config.ckpt_path = str(path)
        if self.config.subcommand == "fit":
            self.changes = history(checkpoint, self.run_config, str(path))
            if path.parent.resolve() == folder.resolve():
                loggers = config.trainer.logger
                go_on_in_runs(loggers, checkpoint["instructgpt"], self.run_config)
        self.checkpoint_step = int(checkpoint["global_step"])

    def instantiate_classes(self) -> None:
        """Build model, data and trainer; a value that a constructor refuses is the user's."""
        try:
            super().instantiate_classes()
        except UserError:
            raise
        except ValueError as error:  # jsonargparse wraps whatever a constructor raises
            cause: BaseException = error
            while cause.__cause__ is not None:
                cause = cause.__cause__
            if not isinstance(cause, ValueError) or is_ours(cause):
                raise
            raise UserError(collapse(str(cause))) from error

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Build the trainer, whose complaints are about its own options."""
        try:
            trainer = super().instantiate_trainer(**kwargs)
            check_processes(trainer)
            return trainer
        except UserError:
            raise
        except (ValueError, TypeError, MisconfigurationException) as error:
            if is_ours(error):
                raise
            raise UserError(f"trainer: {collapse(str(error))}") from error

    def complete(self, config: dict[str, Any], forced: list[Callback]) -> list[Callback]:
        """Add logger and callbacks."""
        settings = self.config[self.subcommand]
        given = given if isinstance(given := config["callbacks"] or [], list) else [given]
        config.update(learning_by_heart(settings.doctor.overfit))
        config["plugins"] = starter(config["plugins"])
        if config["logger"] in (None, True):
            verb = str(self.subcommand)
            config["logger"] = tensorboard(settings.output, verb, self.checkpoint_step)
        config["callbacks"] = given + default_callbacks(
            given,
            seed=settings.seed_everything,
            folder=settings.output,
            config=self.run_config,
            config_text=self.config_text,
            changes=self.changes,
            logging=bool(config["logger"]),
            progress=config["enable_progress_bar"] is not False,
            export=not config["fast_dev_run"] if settings.export is None else settings.export,
            compare=_beside,
            bands=settings.bands,
        )
        check_callbacks(given)
        return forced_callbacks(forced, given, config["enable_checkpointing"] is not False)

    def run_verb(self, verb: str) -> None:
        """Run a verb; where the input was wrong, or with fast_dev_run, nothing is left of it."""
        config = self.config[verb]
        if isinstance(self.datamodule, TextDataModule):
            self.datamodule.resumes = bool(config.ckpt_path)
        self.model.check_data(self.datamodule, predicts=verb == "predict")
        traces = Traces(Path(config.output), "" if verb == "fit" else verb)
        # Other ranks of this run write nothing that a lock would have to keep them from.
        alone = verb == "fit" and self.trainer.is_global_zero and not config.trainer.fast_dev_run
        try:
            with locked(Path(config.output), "fit") if alone else nullcontext():
                super().run_verb(verb)
        except InUseError:
            raise  # what is in the folder is another run's
        except Exception as error:
            if user_message(error, UserError) is not None:
                # Without a step there is no checkpoint, which would need the tokenizer.
                traces.remove(tokenizer=self.trainer.global_step == 0)
            elif config.ckpt_path and is_restoring(error):
                problem = collapse(f"{type(error).__name__}: {error}")[:200]
                raise UserError(
                    f"--ckpt_path {config.ckpt_path} does not fit: {problem}"
                ) from error
            raise
        finally:
            end_runs(self.trainer)
            if config.trainer.fast_dev_run and self.trainer.is_global_zero:
                traces.remove(tokenizer=True)

    def before_fit(self) -> None:
        """Say when a folder is used again."""
        config = self.config["fit"]
        used = Path(config.output, "config.yaml").is_file()
        if used and not config.ckpt_path and not config.trainer.fast_dev_run:
            rank_zero_info(f"{config.output} holds an earlier run, which this one overwrites")

    def verb_arguments(self, verb: str) -> dict[str, Any]:
        """Keep predictions out of memory: a callback writes them."""
        no_predictions = {"return_predictions": False} if verb == "predict" else {}
        return super().verb_arguments(verb) | no_predictions


def _beside(stage: StageModule, step: int, seconds: float) -> Beside | None:
    """What a reward model is beside cheap baselines; other stages need not load them."""
    if not isinstance(stage, instructgpt.modules.reward.RewardModule):
        return None
    from instructgpt.evaluation.baselines import beside

    return beside(stage, step, seconds)


def _share(config: Namespace) -> None:
    """Give the data the tokenizer of the model, and everything the same seed."""
    model, data = config.model, config.data
    source = model.init_args.get("tokenizer") or model.init_args.get("init_from")
    _fill(data, "data.tokenizer", source, "--model.tokenizer or --model.init_from")
    _fill(data, "data.seed", config.seed_everything, "--seed_everything")
    _fill(model, "model.seed", config.seed_everything, "--seed_everything")


def _fill(section: Namespace, argument: str, value: Any, source: str) -> None:
    """Set an argument that another one decides; a contradiction is an error, never ignored."""
    name = argument.rpartition(".")[2]
    if name not in section.init_args:
        return
    given = section.init_args[name]
    if given not in (_default(_import(section.class_path), name), value):
        raise UserError(f"--{argument} follows from {source} ({value}): leave it out, got {given}")
    section.init_args[name] = value


def _default(cls: type, name: str) -> Any:
    """What an option is when it is not given: its own class says so, or one below it."""
    signatures = (inspect.signature(kind).parameters for kind in cls.__mro__)
    return next(found[name].default for found in signatures if name in found)


def _import(class_path: str) -> Any:
    module, _, name = class_path.rpartition(".")
    return getattr(import_module(module), name)


def quiet() -> None:
    """Silence what Lightning says in every run and nobody can act on."""
    for message in QUIET_WARNINGS:
        warnings.filterwarnings("ignore", message)
    rich.reconfigure(markup=False)  # Lightning's tables hold names of labelers and sources
    for name in ("lightning.pytorch", "lightning.fabric"):
        for handler in logging.getLogger(name).handlers:
            handler.addFilter(_worth_saying)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # loaders may fork
    # Defaults of Lightning's Timer are members of an Enum, which could not be written down.
    yaml.SafeDumper.add_multi_representer(Enum, lambda to, item: to.represent_str(item.value))


def _worth_saying(record: logging.LogRecord) -> bool:
    message = record.getMessage()
    return not any(line in message for line in QUIET_LINES)


def main(args: Sequence[str]) -> StageCLI:
    """Run a trainer verb and return what it was run with.

    Args:
        args: the verb and its options.

    Raises:
        UserError: something given is wrong.
    """
    quiet()
    check_syntax(args)
    return StageCLI(list(args))
