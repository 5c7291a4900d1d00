"""What stands for trainer and rows in a plan: the numbers that a fit would have."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from jsonargparse import Namespace
from lightning.pytorch.trainer.states import TrainerFn, TrainerState
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from instructgpt.data.base import StageData
from instructgpt.data.rows import LanguageRow
from instructgpt.data.summary import Summary
from instructgpt.data.train_sets import TrainSets
from instructgpt.data.views import Rows
from instructgpt.models.choice import choose_template
from instructgpt.models.template import BUILT_IN, Template
from instructgpt.models.tensor_parallel import OPTION
from instructgpt.models.tokenizer import load_tokenizer
from instructgpt.modules.placement import tensor_parallel_of
from instructgpt.types import UserError, require

EPOCHS = 1000
"""Of a trainer that is told nothing."""
VOCABULARY = 50_257
"""Ids of a tokenizer that is not there."""


@dataclass(frozen=True)
class Assumed:
    """What a plan takes for granted where nothing else says it.

    Args:
        rows: to train on; with it no data is read: all rows are alike. Without it they are read, as
            by fit, which then finds them prepared.
        prompt_tokens: of each of these rows; default: --data.max_prompt_tokens.
        response_tokens: of each of their responses; default: --data.max_response_tokens.
        responses: to each of their prompts, where they are ranked (paper: 4 to 9).
        device_memory: GiB of a device; default: 80, of a CPU what this machine has.
        peak: operations that a device does in a second at best, in TFLOP/s (H100, bfloat16: 989);
            on a CPU there is no default, and no time is said without.
        mfu: the share of them that a run comes to (model FLOPs utilisation). Sampling, which waits
            for memory, comes to much less.
    """

    rows: int | None = None
    prompt_tokens: int | None = None
    response_tokens: int | None = None
    responses: int = 4
    device_memory: float | None = None
    peak: float | None = None
    mfu: float = 0.4

    def __post_init__(self) -> None:
        """Check the numbers."""
        for name in ("rows", "prompt_tokens", "response_tokens", "responses"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"--plan.{name}", ">= 1", value)
        for name in ("device_memory", "peak"):
            value = getattr(self, name)
            holds = value is None or 0 < value < math.inf
            require(holds, f"--plan.{name}", "> 0", value)
        require(0 < self.mfu <= 1, "--plan.mfu", "in (0, 1]", self.mfu)


class PlannedDevice(NamedTuple):
    """Where networks would be."""

    root_device: torch.device


@dataclass
class PlannedTrainer:
    """The numbers of a trainer, without one: its devices need not be there.

    Args:
        settings: ``--trainer``, as parsed.
        lightning_module: the stage.
        datamodule: its data.
        default_root_dir: where a tokenizer is written that is trained on the text.
    """

    settings: Namespace
    lightning_module: Any
    datamodule: Any
    default_root_dir: str
    state: TrainerState = field(default_factory=lambda: TrainerState(fn=TrainerFn.FITTING))
    callbacks: Sequence[Any] = ()
    training = True
    global_rank = global_step = current_epoch = 0
    is_global_zero = True

    @property
    def on_cpu(self) -> bool:
        """Whether a CPU is asked for; a plan on a laptop is for something else."""
        return bool(self.settings.accelerator == "cpu")

    @property
    def strategy(self) -> PlannedDevice:
        """The kind of device."""
        return PlannedDevice(torch.device("cpu" if self.on_cpu else "cuda"))

    @property
    def world_size(self) -> int:
        """Devices of all nodes; one where as many are asked for as there are."""
        asked = self.settings.devices
        if isinstance(asked, str) and asked.lstrip("-").isdigit():
            asked = int(asked)
        listed = asked.split(",") if isinstance(asked, str) and asked != "auto" else asked
        count = len(listed) if isinstance(listed, list) else listed
        return max(1, count if isinstance(count, int) else 1) * int(self.settings.num_nodes)

    @property
    def distributed_sampler_kwargs(self) -> dict[str, int]:
        """As Lightning says it: devices that cut layers read the same rows."""
        size = tensor_parallel_of(self.settings.strategy)
        require(self.world_size % size == 0, OPTION, "a divisor of the devices", size)
        return {"num_replicas": self.world_size // size, "rank": 0}

    @property
    def precision(self) -> str:
        """As Lightning names it."""
        asked = str(self.settings.precision or "32-true")
        return {"32": "32-true", "16": "16-mixed", "bf16": "bf16-mixed"}.get(asked, asked)

    @property
    def accumulate_grad_batches(self) -> int:
        """Batches of a step."""
        return int(self.settings.accumulate_grad_batches or 1)

    @property
    def fast_dev_run(self) -> int:
        """Batches that are tried out."""
        return int(self.settings.fast_dev_run or 0)

    @property
    def overfit_batches(self) -> int | float:
        """Batches that are seen again and again."""
        return self.settings.overfit_batches or 0.0

    @cached_property
    def num_training_batches(self) -> int | float:
        """Batches of an epoch of a process."""
        whole = len(self.datamodule.train_dataloader())
        limit = self.fast_dev_run or self.overfit_batches or self.settings.limit_train_batches
        if limit is None:
            return whole
        return min(whole, limit if isinstance(limit, int) else int(whole * limit))

    @property
    def max_steps(self) -> int:
        """The limit of optimizer steps, or -1."""
        return self.fast_dev_run or int(self.settings.max_steps)

    @property
    def max_epochs(self) -> int:
        """The limit of epochs, or -1."""
        if self.fast_dev_run:
            return 1
        if (asked := self.settings.max_epochs) is not None:
            return int(asked)
        return EPOCHS if self.max_steps == -1 and self.settings.max_time is None else -1

    @property
    def estimated_stepping_batches(self) -> int | float:
        """Optimizer steps of the run."""
        epoch = math.ceil(self.num_training_batches / self.accumulate_grad_batches)
        steps = math.inf if self.max_epochs == -1 else epoch * self.max_epochs
        return min(steps, math.inf if self.max_steps == -1 else self.max_steps)


class AlikeRows(Rows[LanguageRow]):
    """Rows that are not there, all of the same length.

    Args:
        count: how many.
        prompt: tokens of each.
        responses: tokens of each response.
        tokens: of a row as its ``lengths`` count them.
    """

    def __init__(self, count: int, prompt: int, responses: list[int], tokens: int) -> None:
        self.number, self.prompt, self.responses, self.tokens = count, prompt, responses, tokens

    def __len__(self) -> int:
        """How many there are."""
        return self.number

    def row(self, place: int) -> LanguageRow:
        """None is there."""
        raise NotImplementedError("a planned row has lengths only")

    def sizes(self, place: int) -> tuple[int, list[int]]:
        """Tokens of a prompt, and of the responses to it."""
        return self.prompt, self.responses

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each."""
        return np.full(self.number, self.tokens)

    @property
    def targets(self) -> np.ndarray:
        """Trained tokens of each."""
        return np.full(self.number, self.tokens - self.prompt)

    @property
    def names(self) -> Sequence[np.ndarray]:
        """They have none."""
        return []


def assume_rows(data: StageData, assumed: Assumed, rows: int, vocabulary: int | None) -> str:
    """Have rows in a data module that reads nothing, and say what they are.

    Args:
        data: to have them.
        assumed: how long they are.
        rows: how many.
        vocabulary: ids of the tokenizer, where there is none.
    """
    prompt = assumed.prompt_tokens or data.max_prompt_tokens
    response = assumed.response_tokens or data.max_response_tokens
    responses, tokens, what = [response], prompt + response, "rows"
    if not data.has_prompts:
        prompt, tokens, what = 1, data.block_tokens, "blocks"
    elif data.wanted == "comparison":
        responses, what = [response] * assumed.responses, "prompts"
    elif data.wanted == "prompt":
        tokens, what = prompt, "prompts"
    for name, given, limit in (
        ("prompt_tokens", assumed.prompt_tokens, data.max_prompt_tokens),
        ("response_tokens", assumed.response_tokens, data.max_response_tokens),
    ):
        rule = f"at most --data.max_{name} ({limit})"
        require(given is None or given <= limit, f"--plan.{name}", rule, given)
    data.tokenizer, data.template = _text_format(data, vocabulary)
    data.train_sets = TrainSets()
    data.train_sets.add(AlikeRows(rows, prompt, responses, tokens), 1.0, "assumed", Summary())
    data.train_rows = data.train_sets.rows
    each = f"{tokens:,} tokens" if not data.has_prompts else f"prompts of {prompt:,} tokens"
    if data.has_prompts and data.wanted != "prompt":
        several = f"{len(responses)} responses" if len(responses) > 1 else "a response"
        each += f" and {several} of {response:,}"
    return f"{rows:,} {what}, {each}, as --plan says; no data is read"


def _text_format(
    data: StageData, vocabulary: int | None
) -> tuple[PreTrainedTokenizerBase, Template]:
    """The tokenizer if it is there, else one with as many ids; and the template."""
    name = data.tokenizer_name
    try:
        if name is not None:
            found = load_tokenizer(name)
            return found, choose_template(data.template_name, name, found, "--data.template")[0]
    except UserError:  # a plan needs no more than a configuration
        pass
    ids = {f"<{number}>": number for number in range(vocabulary or VOCABULARY)}
    empty = Tokenizer(models.WordLevel(ids, unk_token="<0>"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=empty, eos_token="<0>", pad_token="<0>")
    return tokenizer, Template("plain", BUILT_IN["plain"])
