"""``plan``: what a fit takes, before any weight or device is there."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, cast

import torch
from lightning.pytorch.cli import LightningArgumentParser

from instructgpt.callbacks.plan import plan_of
from instructgpt.cli import StageCLI, quiet
from instructgpt.commands.planned import Assumed, PlannedTrainer, assume_rows
from instructgpt.models.source import located
from instructgpt.models.tensor_parallel import cuts_of
from instructgpt.modules.placement import tensor_parallel_of
from instructgpt.modules.ppo import PPOModule
from instructgpt.modules.preference import PreferenceModule
from instructgpt.settings import check_syntax
from instructgpt.terminal import duration, say
from instructgpt.types import NoDataError, UserError

GIB = 2**30
GPU_MEMORY, GPU_PEAK = 80.0, 989.0
"""GiB, and TFLOP/s in half precision, of an H100."""
MOST_DEVICES = 4096


class Planned(NamedTuple):
    """What a configuration comes to."""

    lines: list[tuple[str, str]]
    bytes: int  # of a device
    flops: float  # of the run, or of a step where nobody knows how many there are
    steps: int | None
    devices: int
    on_cpu: bool


class Remedy(NamedTuple):
    """A flag that makes a run smaller."""

    option: str
    value: Any
    costs: str  # what it takes in return
    applies: Callable[[Any, int], bool] = lambda config, devices: True  # the settings; devices


def _has_reward(config: Any, devices: int) -> bool:
    return "reward" in config.model.init_args and _learned(config.model.init_args.reward)


def _learned(reward: Any) -> bool:
    return reward is not None and reward.class_path.endswith("LearnedReward")


def _untrained(config: Any, devices: int) -> bool:
    return "trained" in config.model.init_args and config.model.init_args.trained is None


LORA = {"class_path": "instructgpt.models.trained.LoRA"}
REMEDIES = [
    Remedy("model.network.max_tokens", 512, "the same results"),
    Remedy("model.network.max_tokens", 128, "the same results; slower on a GPU"),
    Remedy("model.sampling.batch_size", 16, "the same responses; slower"),
    Remedy("model.network.gradient_checkpointing", True, "the same results; a third slower"),
    Remedy("model.reward.network.quantization", "int8", "scores of 8 bits", _has_reward),
    Remedy("trainer.precision", "bf16-true", "weights of 16 bits: small steps are rounded away"),
    Remedy("model.trained", LORA, "adapters of rank 8 are trained", _untrained),
    Remedy("model.network.quantization", "nf4", "what does not learn has 4.5 bits a weight"),
]
"""The cheapest first."""


class PlanCLI(StageCLI):
    """The options of ``fit``, and instead of training a look at what it would take."""

    called = "plan"

    def __init__(self, args: list[str]) -> None:
        self.assumed = Assumed()
        self.planned: Planned  # as asked for
        with TemporaryDirectory() as self.folder:  # for a tokenizer that is trained on the text
            super().__init__(["fit", *args[1:]])

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add what a plan may assume."""
        super().add_arguments_to_parser(parser)
        parser.add_class_arguments(Assumed, "plan")

    def read_checkpoint(self) -> None:
        """A plan is of the whole run."""

    def instantiate_classes(self) -> None:
        """Refuse models that are not there in words of a plan, before anything asks for them."""
        check_sources(self.config["fit"].as_dict())
        super().instantiate_classes()

    def instantiate_trainer(self, **kwargs: Any) -> Any:
        """None: only its numbers are needed."""
        settings = self.config["fit"].trainer
        return PlannedTrainer(settings, self.model, self.datamodule, self.folder)

    def run_verb(self, verb: str) -> None:
        """Print the plan."""
        self.model.check_data(self.datamodule, predicts=False)
        self.assumed = self.config_init["fit"].plan
        found = self.planned = self.look()
        title = type(self.model).__name__
        width = max(len(name) for name, _ in found.lines)
        say(f"plan of {title}, on the meta device: nothing is trained, no weights are read")
        for name, value in found.lines:
            say(f"  {name:{width}}  {value}")
        for name, value in self.time_lines(found):
            say(f"  {name:{width}}  {value}")
        for line in self.fit_lines(found):
            say(f"  {line}")

    def look(self) -> Planned:
        """What the configuration comes to."""
        stage, data, trainer = self.model, self.datamodule, cast(PlannedTrainer, self.trainer)
        stage.trainer = data.trainer = trainer
        told = self._rows(data)
        with torch.device("meta"):
            stage.setup("fit")
            stage.configure_model()
            kept = getattr(stage, "precompute", False)
            if isinstance(stage, PreferenceModule) and stage.algorithm.uses_reference and not kept:
                stage.load_reference()  # as ``fit`` does when it begins
            if trainer.precision.endswith("16-true"):
                _halve(stage, trainer.precision)
        size = tensor_parallel_of(self.config["fit"].trainer.strategy)
        for network in stage.trained_networks() if size > 1 else []:
            cuts_of(network, size)  # as ``fit`` refuses what it cannot cut
        lines, memory = plan_of(stage, self.config["fit"].trainer.strategy)
        steps = stage.planned_steps()
        flops = sum(cost.flops for cost in stage.work(1 if steps is None else steps))
        lines = [("data", told), *lines, *memory.lines]
        place = trainer.world_size, trainer.on_cpu
        return Planned(lines, memory.bytes, flops, steps, *place)

    def _rows(self, data: Any) -> str:
        """Read the rows, or assume them; say which."""
        if self.assumed.rows is not None:
            architecture = getattr(self.model, "architecture", None) or {}
            bpe = getattr(data, "bpe", None)
            vocabulary = architecture.get("vocab_size") or (bpe.vocab_size if bpe else None)
            return assume_rows(data, self.assumed, self.assumed.rows, vocabulary)
        try:
            data.prepare_data()
            data.setup("fit")
        except NoDataError as error:
            raise UserError(f"{error} (to plan without the data, give --plan.rows)") from error
        for name in ("prompt_tokens", "response_tokens"):
            if getattr(self.assumed, name) is not None:
                raise UserError(f"--plan.{name} goes with --plan.rows: the rows are read")
        return f"{len(data.train_rows):,} rows, read as by fit, which will find them prepared"

    def time_lines(self, found: Planned) -> list[tuple[str, str]]:
        """How long the arithmetic takes at best."""
        peak = self.assumed.peak or (None if found.on_cpu else GPU_PEAK)
        if peak is None:
            return [("time", "give --plan.peak, in TFLOP/s, which a CPU's is not known")]
        seconds = found.flops / (peak * 1e12 * self.assumed.mfu * found.devices)
        what = "" if found.steps is not None else " a step"
        told = (
            f"{duration(seconds)}{what} at {self.assumed.mfu:.0%} of {peak:,.0f} TFLOP/s on each "
            f"of {found.devices:,}; sampling takes longer: it waits for memory"
        )
        return [("time", told)]

    def fit_lines(self, found: Planned) -> list[str]:
        """Whether it fits, and what would help."""
        room = self.assumed.device_memory or (_machine() if found.on_cpu else GPU_MEMORY)
        if found.bytes <= room * GIB:
            return [f"fits into {room:,.0f} GiB: {found.bytes / GIB:,.1f} GiB"]
        lines = [f"does not fit into {room:,.0f} GiB: {found.bytes / GIB:,.1f} GiB are needed"]
        lines.append("what would help, each with those before it, the cheapest first:")
        for remedy in [*REMEDIES, *_devices(found.devices)]:
            smaller = self.tried(remedy, found)
            if smaller is None:
                continue
            found = smaller
            shown = remedy.value if isinstance(remedy.value, int | str) else "LoRA"
            shown = str(shown).lower() if isinstance(shown, bool) else shown
            flags = f"--{remedy.option} {shown}"
            lines.append(f"  {flags}: {found.bytes / GIB:,.1f} GiB ({remedy.costs})")
            if found.bytes <= room * GIB:
                return [*lines, "  with these it fits"]
        return [*lines, "  with all of these it does not fit"]

    def tried(self, remedy: Remedy, before: Planned) -> Planned | None:
        """The plan with a flag more, if it is smaller; else the flag is taken back."""
        config = self.config["fit"]
        asked, place = config.clone(), _place(config, remedy.option)
        if place is None or not remedy.applies(config, before.devices):
            return None
        config[place] = remedy.value
        if remedy.option == "trainer.devices":
            config.trainer.strategy = "fsdp2"
        try:
            with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
                self.config["fit"] = self.verb_parser("fit").parse_object(config)
                self.instantiate_classes()
                found = self.look()
            if found.bytes < before.bytes:
                return found
        except UserError:  # such as a minibatch that so many devices cannot share
            pass
        self.config["fit"] = asked
        return None


def check_sources(config: Any, option: str = "") -> None:
    """Refuse models that are not there, and say what a plan of a later stage takes instead.

    Args:
        config: settings, or a part of them.
        option: the part's name.
    """
    parts = dict(enumerate(config)) if isinstance(config, list) else config
    for name, value in parts.items():
        place = option if name == "init_args" else f"{option}.{name}".removeprefix(".")
        if isinstance(value, dict | list):
            check_sources(value, place)
        elif name == "init_from" and value is not None:
            try:
                located(value, f"--{place}")
            except UserError as error:
                raise UserError(
                    f"{error}; where an earlier stage writes it, run that first, or plan with a "
                    f"model of its size: --{place} FOLDER_OR_ID"
                ) from error


def _place(config: Any, option: str) -> str | None:
    """Where an option is in the configuration; None where the stage has none."""
    section, _, rest = option.partition(".")
    if section != "model":
        return option
    name, _, below = rest.partition(".")
    if name not in config.model.init_args:
        return None
    inner = f"init_args.{below}" if name == "reward" else below
    return f"model.init_args.{name}.{inner}" if below else f"model.init_args.{name}"


def _devices(now: int) -> list[Remedy]:
    """More of them, which share everything."""
    counts, count = [], max(2, 2 * now)
    while count <= MOST_DEVICES:
        counts.append(count)
        count *= 2
    costs = "with --trainer.strategy fsdp2; more traffic"
    return [Remedy("trainer.devices", count, costs) for count in counts]


def _halve(stage: Any, precision: str) -> None:
    """Bring the weights into the format that the trainer would."""
    dtype = torch.bfloat16 if precision.startswith("bf16") else torch.float16
    stage.to(dtype)
    if isinstance(stage, PPOModule):
        stage.frozen.to(torch.device("meta"), dtype)


def _machine() -> float:
    """GiB of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB


def main(args: Sequence[str]) -> None:
    """Run the verb.

    Args:
        args: the verb and its options, which are those of ``fit`` and ``--plan``.

    Raises:
        UserError: something given is wrong.
    """
    quiet()
    check_syntax(args)
    PlanCLI(list(args))
